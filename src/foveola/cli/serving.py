"""The command that serves a model."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated

import typer

from foveola.cli.options import Quiet
from foveola.errors import UserError

_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def serve(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run directory or an exported .onnx file.")],
    host: Annotated[str, typer.Option(metavar="HOST", help="Where to listen; 0.0.0.0 is everywhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0 takes a free one.")] = 8000,
    workers: Annotated[
        int, typer.Option(min=1, max=256, metavar="N", help="Processes that share the port, one for each core.")
    ] = 1,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            envvar="FOVEOLA_API_KEY",
            help="Ask for it in every request. As an environment variable, others on the machine do not see it.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name by which the server may be asked; may be repeated."),
    ] = None,
    max_body: Annotated[
        str, typer.Option(metavar="SIZE", help="The longest body that is read, such as 500kB or 2MiB.")
    ] = "16MiB",
    max_pixels: Annotated[int, typer.Option(min=1, metavar="N", help="The largest picture.")] = 16_000_000,
    receive_timeout: Annotated[
        str, typer.Option(metavar="TIME", help="How long a request may take to arrive.")
    ] = "10s",
    queue: Annotated[
        int, typer.Option(min=1, metavar="N", help="Images that wait for the model; more are turned away.")
    ] = 256,
    collect: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Let the page put pictures with their right label there, to learn from."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model's name in URLs; the run's by default.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Answer over HTTP what a model makes of images: page, API, Open Inference Protocol."""
    from pydantic import SecretStr

    from foveola.serving.settings import Settings
    from foveola.workflow.budget import parse_duration
    from foveola.workflow.serve import name_of
    from foveola.workflow.serve import serve as serve_model

    if name is not None and re.fullmatch(r"[A-Za-z0-9._-]{1,128}", name) is None:
        raise UserError(f"--name is {name!r}; a name in URLs has letters, digits, dots, dashes and underscores.")
    if api_key == "":
        raise UserError("The API key is empty, so that everybody has it. Give a longer one, or none.")
    settings = Settings(
        host=host,
        port=port,
        workers=workers,
        name=name or name_of(model),
        api_key=None if api_key is None else SecretStr(api_key),
        allowed_hosts=tuple(allow_host or ()),
        max_body_bytes=parse_size(max_body),
        max_pixels=max_pixels,
        receive_seconds=parse_duration(receive_timeout),
        queue_images=queue,
        collect=collect,
        log_requests=not quiet,
    )
    if api_key is None and not is_loopback(host):
        typer.echo(
            f"Warning: whoever reaches {host} can use the model, because there is no API key. Set FOVEOLA_API_KEY, or "
            f"listen at 127.0.0.1.",
            err=True,
        )
    serve_model(
        model,
        settings,
        announce=lambda url: typer.echo(f"Serving {settings.name} at {url} (Ctrl+C ends)", err=True),
        verbose=not quiet,
    )


def parse_size(text: str) -> int:
    """Bytes of "16MB", "500 kB" or "2MiB".

    Raises
    ------
    UserError
        If the text is no number of bytes above zero.
    """
    match = re.fullmatch(r"(\d+)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _BYTES or int(match[1]) == 0:
        raise UserError(f"{text!r} is no size. Give bytes, such as 500kB, 16MB or 2MiB.")
    return int(match[1]) * _BYTES[match[2]]


def is_loopback(host: str) -> bool:
    """True where nobody from outside this machine can reach the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
