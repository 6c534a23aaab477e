"""What kind of request this is, which decides who answers it (design: "Which backend answers what").

A path is judged in the form in which ComfyUI's own router reads it: percent escapes of ASCII characters
count as the character (``/%70rompt`` is ``/prompt`` there), except ``%2F`` and ``%25``, which stay. It is
*forwarded* as it came.

Paths that two servers on the way could read differently are refused by raising PathRefused:

* a dot segment, plain or encoded, after a plain or an encoded slash or backslash
  (``/assets/..%2f..%2fprompt``);
* an empty segment or a backslash, when the path without it would be more than OTHER (``//gateway/``,
  ``/api//prompt``). ComfyUI has no such route, but a server in front of a pod may merge slashes.
  ``/proxy/https://x`` stays OTHER;
* a path that does not begin with a slash.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Final
from urllib.parse import unquote

from comfy_gateway.core.interface.files import is_versioned_file


class RequestClass(StrEnum):
    """Who answers once a user has a private pod."""

    PROMPT = "prompt"
    """``POST /prompt``: read, counted, sent to the current backend."""
    COMPUTE = "compute"
    """What belongs to the machine that computes: the current backend."""
    EVENTS = "events"
    """The socket: the relay."""
    QUEUE = "queue"
    """Merged over the user's backends; an action goes to the owner of the prompt."""
    RESULTS = "results"
    """The backend that made it."""
    INPUTS = "inputs"
    """Uploads: the current backend."""
    HOME = "home"
    """The person's files and settings: always the first duty server."""
    INTERFACE = "interface"
    """Files of the front end: always the first duty server."""
    OTHER = "other"
    """Custom nodes and everything unknown: the current backend."""
    RESERVED = "reserved"
    """The gateway's own pages below ``/gateway/``."""


class PathRefused(ValueError):
    """The path can be read in two ways. The text is fit for a client (400)."""


ROUTABLE: Final = frozenset(
    {RequestClass.COMPUTE, RequestClass.INPUTS, RequestClass.HOME, RequestClass.INTERFACE, RequestClass.OTHER}
)
"""Classes that a pattern in the configuration may give, and whose paths it may take from one another."""


@dataclass(frozen=True, slots=True)
class RouteRules:
    """Patterns of the configuration; the first match counts.

    ``*`` also matches slashes, and paths are compared without ``/api``.
    """

    patterns: tuple[tuple[str, RequestClass], ...] = ()

    @classmethod
    def parse(cls, routes: Mapping[Any, Any]) -> "RouteRules":
        """Read ``{"/my_node/*": "home"}``. Raises ValueError naming the first entry that is wrong."""
        allowed = sorted(str(name) for name in ROUTABLE)
        patterns = []
        for pattern, name in routes.items():
            if not isinstance(pattern, str) or not pattern.startswith("/"):
                raise ValueError(f"the pattern {pattern!r} must begin with a slash")
            if name not in allowed:
                raise ValueError(f"the class {name!r} of {pattern!r} must be one of {', '.join(allowed)}")
            patterns.append((pattern, RequestClass(name)))
        return cls(tuple(patterns))


NO_RULES: Final = RouteRules()

_C = RequestClass

_EXACT: Final[Mapping[str, RequestClass]] = {
    "/prompt": _C.COMPUTE,  # all but POST
    "/system_stats": _C.COMPUTE,
    "/features": _C.COMPUTE,
    "/embeddings": _C.COMPUTE,
    "/free": _C.COMPUTE,
    "/ws": _C.EVENTS,
    "/queue": _C.QUEUE,
    "/interrupt": _C.QUEUE,
    "/view": _C.RESULTS,
    "/upload/image": _C.INPUTS,
    "/upload/mask": _C.INPUTS,
    "/users": _C.HOME,
    "/i18n": _C.HOME,
    "/v2/userdata": _C.HOME,
}

_TREES: Final[Mapping[str, RequestClass]] = {
    "object_info": _C.COMPUTE,
    "models": _C.COMPUTE,
    "experiment": _C.COMPUTE,
    "view_metadata": _C.COMPUTE,
    "jobs": _C.QUEUE,
    "history": _C.RESULTS,
    "userdata": _C.HOME,
    "settings": _C.HOME,
    "workflow_templates": _C.HOME,
}
"""First segments whose whole tree is of one class, the bare path included."""

_INTERFACE_TREES: Final = frozenset(
    {"assets", "extensions", "templates", "fonts", "scripts", "cursor", "docs", "lib"}
)
_INTERFACE_FILE: Final = re.compile(
    r"/(?:[^/]+\.(?:css|js|mjs|map|html|ico|png|svg|webmanifest)|manifest\.json)"
)
"""A file at the top of the front end's folder, such as ``/materialdesignicons.min.css``."""

_PAGES: Final = frozenset({"/", "/index.html"})
_OPEN_PATHS: Final = frozenset({"/gateway/healthz", "/gateway/readyz", "/gateway/metrics"})
_OPEN_TREE: Final = "/gateway/ui/"

_ESCAPE: Final = re.compile(r"%([2-6][0-9A-Fa-f]|7[0-9A-Ea-e])")
_KEPT_ESCAPES: Final = frozenset({"2F", "25"})
_SEPARATOR: Final = re.compile(r"/|\\|%2[Ff]|%5[Cc]")
_MERGED: Final = re.compile(r"[/\\]+")


def classify(method: str, path: str, rules: RouteRules = NO_RULES) -> RequestClass:
    """The class of a request. ``path`` is percent-encoded as it came; a query behind it is ignored.

    Raises PathRefused as the top of this file says.
    """
    plain = _plain(path)
    if any(segment in {".", ".."} for segment in _SEPARATOR.split(plain)):
        raise PathRefused("the path must not contain dot segments")
    merged = _MERGED.sub("/", plain)
    found = _classify(method.upper(), merged, rules)
    if merged != plain and found is not RequestClass.OTHER:
        raise PathRefused("the path must not contain empty segments or backslashes")
    return found


def needs_identity(request_class: RequestClass, path: str) -> bool:
    """Whether a request must say who it is from, once ``classify`` has let its path pass.

    Files of the front end, the panel's module and the gateway's probes need not; the page ``/`` itself must.
    """
    plain = _plain(path)
    if request_class is RequestClass.INTERFACE:
        return plain in _PAGES
    if request_class is RequestClass.RESERVED:
        return plain not in _OPEN_PATHS and not plain.startswith(_OPEN_TREE)
    return True


def prompt_id_of(path: str) -> str | None:
    """The prompt that ``/history/{id}``, ``/jobs/{id}`` or ``/jobs/{id}/cancel`` names, or None. Decoded."""
    segments = _without_api(_plain(path)).split("/")
    match segments:
        case ["", "history" | "jobs", prompt_id] | ["", "jobs", prompt_id, "cancel"] if prompt_id:
            return unquote(prompt_id)
    return None


def route_of(path: str) -> str:
    """The route as ComfyUI's router reads it: escapes of ASCII characters decoded, without ``/api`` and query."""
    return _without_api(_plain(path))


def is_under_api(path: str) -> bool:
    """Whether the path is that twin of a route which begins with ``/api``."""
    plain = _plain(path)
    return _without_api(plain) != plain


def _classify(method: str, plain: str, rules: RouteRules) -> RequestClass:
    if plain == "/gateway" or plain.startswith("/gateway/"):
        is_read = method in {"GET", "HEAD"}
        return RequestClass.INTERFACE if is_read and is_versioned_file(plain) else RequestClass.RESERVED
    bare = _without_api(plain)
    built_in = _built_in(method, plain, bare)
    if built_in in ROUTABLE:
        for pattern, request_class in rules.patterns:
            if fnmatchcase(bare, pattern):
                return request_class
    return built_in


def _built_in(method: str, plain: str, bare: str) -> RequestClass:
    if bare == "/prompt" and method == "POST":
        return RequestClass.PROMPT
    found = _EXACT.get(bare) or _TREES.get(bare.split("/", 2)[1])
    if found is not None:
        return found
    # Only the list of extensions exists under /api; /api/assets is a newer core's store of the user's files.
    if method in {"GET", "HEAD"} and (_is_interface(plain) or plain == "/api/extensions"):
        return RequestClass.INTERFACE
    return RequestClass.OTHER


def _is_interface(plain: str) -> bool:
    return (
        plain == "/"
        or plain.split("/", 2)[1] in _INTERFACE_TREES
        or _INTERFACE_FILE.fullmatch(plain) is not None
    )


def _plain(path: str) -> str:
    plain = path.partition("?")[0].partition("#")[0]
    if not plain.startswith("/"):
        raise PathRefused("the path must begin with a slash")
    return _ESCAPE.sub(_decode, plain) if "%" in plain else plain


def _decode(escape: re.Match[str]) -> str:
    digits = escape[1].upper()
    return escape[0] if digits in _KEPT_ESCAPES else chr(int(digits, 16))


def _without_api(plain: str) -> str:
    return plain[4:] if plain.startswith("/api/") else plain
