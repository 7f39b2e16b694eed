"""Settings of the server: where it listens, whom it answers, its limits."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

MIB = 2**20


class Settings(BaseModel):
    """Limits are for one process; with several workers, each has its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0 takes a free one."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=128)] = "model"
    """Name of the model in URLs."""

    api_key: Annotated[SecretStr, Field(min_length=1)] | None = None
    allowed_hosts: tuple[str, ...] = ()
    """Names that a request's Host may give, beside addresses and localhost."""

    max_body_bytes: Annotated[int, Field(ge=1)] = 16 * MIB
    max_pixels: Annotated[int, Field(ge=1)] = 16_000_000
    """Of one image."""
    max_connections: Annotated[int, Field(ge=1)] = 800
    """Open at once; a process may usually have 1,024 files open."""
    receive_seconds: Annotated[float, Field(gt=0, le=86_400)] = 10.0
    """For the head of a request to arrive, for its body, and for a client to go on reading its response."""
    queue_images: Annotated[int, Field(ge=1)] = 256
    """Images that may wait for the model; further requests are rejected."""
    shutdown_seconds: Annotated[int, Field(ge=1, le=3_600)] = 8
    """After a signal, requests that were received are answered for so long; then the processes are killed."""

    collect: Path | None = None
    """The image folder into which images with the right label are put."""
    log_requests: bool = True
    """Log every request as a line of JSON; errors are logged in any case."""
