"""By which names a server may be asked: the guard against web pages that reach for it through the visitor's browser.

A page of others may point its own name to 127.0.0.1 once it is open (DNS rebinding); to the browser, the server is then
a part of that page. The request still carries the name, so that names must be known. An address cannot be pointed
elsewhere, so that addresses pass where the server listens to a network anyway.
"""

import ipaddress
import re
from collections.abc import Iterable

_HOST = re.compile(rb"(?:\[(?P<ipv6>[0-9a-fA-F:.]{2,45})\]|(?P<name>[A-Za-z0-9._-]{1,253}))(?::[0-9]{1,5})?")


class HostRule:
    """Which hosts a request may name.

    Parameters
    ----------
    bound_to : address or name where the server listens
    allowed : further names and addresses; "*" for all
    """

    def __init__(self, bound_to: str, allowed: Iterable[str]) -> None:
        self._allowed = {"localhost", *(_plain(name) for name in (bound_to, *allowed))}
        address = _address(bound_to)
        self._any_address = not (bound_to == "localhost" if address is None else address.is_loopback)

    def allows(self, host: bytes) -> bool:
        """Whether the header Host, a name or an address with or without a port, may say this."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = _plain((match["ipv6"] or match["name"]).decode())
        if not self._allowed.isdisjoint({"*", name}):
            return True
        address = _address(name)
        return address is not None and (self._any_address or address.is_loopback)


def _plain(name: str) -> str:
    return name.lower().rstrip(".")


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
