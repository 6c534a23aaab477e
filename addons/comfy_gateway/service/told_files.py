"""Which server's files a peer was last told of: the only key of a script that asks without any name."""

from collections import OrderedDict
from typing import Any, Final

from comfy_gateway.core.ports import Clock
from comfy_gateway.core.upstream import Backend
from comfy_gateway.core.users import UserId
from comfy_gateway.service.routes import Routes

MAX_TOLD: Final = 20_000
TOLD_FOR_S: Final = 3600.0

FileKey = tuple[str, str, str]
"""filename, subfolder and type, as ``/view`` names a file."""


def file_key(file: dict[str, Any]) -> FileKey:
    """Key of a file as an output or a query of ``/view`` names it; the defaults are ComfyUI's."""
    return (
        str(file["filename"]),
        str(file.get("subfolder") or ""),
        str(file.get("type") or "output"),
    )


class ToldFiles:
    """Which server's files a peer was last told of."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: OrderedDict[tuple[str, FileKey], tuple[str, str | None, float]] = OrderedDict()

    def note(self, peer: str, file: FileKey, backend_id: str, user_key: str | None) -> None:
        """The peer has just read this file's name in an answer of that server."""
        self._told[peer, file] = (backend_id, user_key, self._clock.monotonic())
        self._told.move_to_end((peer, file))
        while len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)

    def owner(self, peer: str, file: FileKey, routes: Routes) -> Backend | None:
        """The server that the peer means, or None when it was never told of the file or the server is gone."""
        told = self._told.get((peer, file))
        if told is None or self._clock.monotonic() - told[2] > TOLD_FOR_S:
            return None
        user = None if told[1] is None else UserId.from_key(told[1])
        return routes.by_id(user, told[0])
