"""One order or question of the API: everything that its route and its description need to know."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from pydantic import BaseModel

ROOT: Final = "/gateway/api/v1"

type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Operation:
    """``path`` may have ``{id}`` in it."""

    method: str
    path: str
    """Below ``ROOT``."""
    name: str
    """For generated clients."""
    summary: str
    handle: Handler
    says: type[BaseModel] | None
    """Of its 200; None for a stream of events or a document of its own."""
    takes: type[BaseModel] | None = None
    """Its body, which may be left out."""
    asks: type[BaseModel] | None = None
    """Its query."""
    refusals: tuple[int, ...] = ()
    """Besides 400 and 403."""
    id_means: str = "Of a session."
    """What ``{id}`` in the path is."""

    @property
    def is_own(self) -> bool:
        """Whether it is everybody's, about themselves."""
        return self.path == "/me" or self.path.startswith("/me/")

    def route(self) -> web.RouteDef:
        """For the application."""
        return web.route(self.method, ROOT + self.path, self.handle)
