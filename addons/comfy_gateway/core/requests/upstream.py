"""Addresses of ComfyUI servers, and which server a request is for."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

POD_TOKEN_HEADER: Final = "X-Comfy-Gateway-Token"  # noqa: S105 - the header's name, not a token
"""What the front door of a pod asks for. The gateway sends it to that pod and to nobody else."""


def front_door_headers(token: str | None) -> dict[str, str]:
    """Headers for a request of ours to a ComfyUI server; a duty server has no front door and no token."""
    return {} if token is None else {POD_TOKEN_HEADER: token}


class Source(StrEnum):
    """Who answered, as ``X-Comfy-Session-Source`` says it."""

    DUTY = "duty"
    PRIVATE = "private"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Upstream:
    """Scheme, host, port and path prefix of one server.

    The prefix is empty or begins with a slash and has none at its end; a request's own path follows it
    byte for byte.
    """

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @classmethod
    def parse(cls, url: str) -> "Upstream":
        """Read ``http://host:port/prefix/``. Raises ValueError that says what is wrong with it."""
        parts = urlsplit(url.strip())
        if parts.scheme not in {"http", "https"}:
            raise ValueError("needs http:// or https:// in front")
        if not parts.hostname:
            raise ValueError("has no host name")
        if parts.username or parts.password:
            raise ValueError("must not contain a user name or password")
        if parts.query or parts.fragment:
            raise ValueError("must not contain a query or a fragment")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """Host header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_default = self.port == (443 if self.scheme == "https" else 80)
        return host if is_default else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """What a browser would send as Origin for this server."""
        return f"{self.scheme}://{self.authority}"

    def url(self, path: str) -> str:
        """Full address of a path that begins with a slash (query included, percent-encoding kept)."""
        return f"{self.origin}{self.prefix}{path}"


@dataclass(frozen=True, slots=True)
class Backend:
    """One ComfyUI server that may answer a user."""

    id: str
    """See ``core.requests.duty_servers``, or the pod's name; never shown to a client."""
    source: Source
    upstream: Upstream
    token: str | None = field(default=None, repr=False)
    """The front door's token (``X-Comfy-Gateway-Token``), or None for a duty server."""
    alias: str = ""
    """First subfolder under which clients see this server's outputs (``core.files.files``); empty for one shared server
    at most."""
