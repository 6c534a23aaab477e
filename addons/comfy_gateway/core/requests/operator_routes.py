"""Routes of the shared servers that change the machine for everybody, or show what everybody has.

A pattern is a path without ``/api``; ``*`` also matches slashes. Paths are compared in the form that the most generous
server could read: all percent escapes decoded, dot segments resolved, in lower case. What that refuses too much is no
route of ComfyUI's.

The usual list (routes of ComfyUI 0.3.64 and of ComfyUI-Manager 3 and 4, read from their sources):
"""

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import unquote

USUAL: Final = (
    "/free",
    "/internal/*",
    "/assets*",
    "/manager/*",
    "/v2/manager/*",
    "/customnode/*",
    "/v2/customnode/*",
    "/externalmodel/*",
    "/v2/externalmodel/*",
    "/snapshot/*",
    "/v2/snapshot/*",
    "/comfyui_manager/*",
    "/v2/comfyui_manager/*",
    "/userdata/comfyui-manager*",
    "/userdata/__manager*",
)
"""``/assets`` is a newer core's store of everybody's files below ``/api``, not the front end's own folder. The last two
hold ComfyUI-Manager's configuration: whoever writes there may lower its security level."""
MOST_ESCAPES: Final = 4


@dataclass(frozen=True, slots=True)
class OperatorRoutes:
    """The patterns."""

    patterns: tuple[str, ...] = ()

    @classmethod
    def usual(cls) -> "OperatorRoutes":
        """Where nothing else is set."""
        return cls(USUAL)

    @classmethod
    def parse(cls, patterns: Iterable[str]) -> "OperatorRoutes":
        """Raises ValueError for a pattern that begins with no slash."""
        found = tuple(pattern.lower() for pattern in patterns)
        if not all(pattern.startswith("/") for pattern in found):
            raise ValueError("paths that begin with a slash, * for anything, comma separated")
        return cls(found)

    def __contains__(self, route: object) -> bool:
        """Whether a route (``classify.route_of``) is one of them."""
        if not isinstance(route, str):
            return False
        plain = _most_generous(route)
        return any(fnmatchcase(plain, pattern) for pattern in self.patterns)


def _most_generous(route: str) -> str:
    for _ in range(MOST_ESCAPES):
        decoded = unquote(route)
        if decoded == route:
            break
        route = decoded
    return posixpath.normpath("/" + route.replace("\\", "/").lstrip("/")).lower()
