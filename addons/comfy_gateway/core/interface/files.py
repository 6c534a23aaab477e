"""Which answers of the shared server are files of its front end, and for how long a browser may keep one.

Nothing personal is among them: only what a server tells anybody without cookie, credential or query.

A file is *covered* by a version of the front end when that version says which bytes it has: those of the front end
itself, which are installed with its page, and the modules that ``/extensions`` lists. Covered files have addresses with
the version in them and never change there. Others are asked for again each time.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import orjson

PREFIX: Final = "/gateway/files/"
"""A version follows, then the path that the file has on the server."""
PAGE: Final = "/"
EXTENSIONS: Final = "/extensions"
ASK_AGAIN: Final = "no-cache"
IMMUTABLE: Final = "private, max-age=31536000, immutable"
"""Private: the answer also carries a header and maybe a cookie of the user's own."""
MOST_MODULES: Final = 4000

_FORMAT: Final = 1
"""Changes with what we do to a page, so that no browser mixes two of our own versions."""
_VERSIONED: Final = re.compile(re.escape(PREFIX) + r"([0-9a-f]{16})(/.*)")
_CHARACTERS: Final = r"[A-Za-z0-9._~!$&'()*+,;=:@%-]+"
_ENDING: Final = r"\.(?:js|mjs|css|json|svg|wasm|ttf|otf|woff2?|ico)"
_FILE: Final = re.compile(
    rf"/(?:assets|scripts|extensions|fonts|cursor)/(?:{_CHARACTERS}/)*{_CHARACTERS}{_ENDING}"
    rf"|/(?!user\.css){_CHARACTERS}\.(?:css|js|mjs|ico|svg)"
)
_TREES: Final = ("/assets/", "/scripts/", "/extensions/", "/fonts/", "/cursor/")
_OF_FRONT_END: Final = ("/assets/", "/scripts/", "/extensions/core/")
_HASHED: Final = re.compile(
    r"/assets/[^/]+-(?=[^.]*[0-9])(?=[^.]*[a-z])(?=[^.]*[A-Z])[A-Za-z0-9_-]{8}\.[a-z0-9]+"
)
"""Without capitals and digits it may as well be a word: ``custom-node-map.json``."""
_EXTENSION: Final = re.compile(
    rf"(?!.*/\.\.?/)(/extensions/{_CHARACTERS}/)(?:{_CHARACTERS}/)*{_CHARACTERS}\.js"
)
_MINDS_ADDRESS: Final = re.compile(rb"""import\s*\.\s*meta|currentScript|['"]module['"]""")


@dataclass(frozen=True, slots=True)
class Told:
    """What a server answered to a request of ours without cookie, credential or query."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = field(default=b"", repr=False)

    @property
    def validator(self) -> str | None:
        """What says that the content is still the same, or None."""
        return self.headers.get("etag") or self.headers.get("last-modified")

    @property
    def is_keepable(self) -> bool:
        """Whether everybody may be shown the same bytes, and a change of them be noticed."""
        rules = self.headers.get("cache-control", "").lower()
        return (
            self.status == 200
            and self.validator is not None
            and "set-cookie" not in self.headers
            and "no-store" not in rules
            and "private" not in rules
            and self.headers.get("vary", "").lower() in {"", "accept-encoding"}
            and "content-encoding" not in self.headers
        )


class InterfaceSource(Protocol):
    """The server whose front end everybody sees."""

    async def fetch(self, path: str, known: Mapping[str, str]) -> Told:
        """GET it. ``known`` are the headers of an earlier answer: 304 says that it still holds.

        Raises BackendUnavailable.
        """
        ...


@dataclass(frozen=True, slots=True)
class Version:
    """One state of the front end and of the extensions that it loads."""

    tag: str
    front_end: str
    """What the files of the front end itself go by."""
    modules: Mapping[str, str]
    """Path and validator of each listed module that has a versioned address."""
    folders: tuple[str, ...]
    """Folders of modules that have; each ends with a slash."""

    @classmethod
    def of(cls, front_end: str, modules: Mapping[str, str], folders: Iterable[str]) -> "Version":
        """``front_end``: validator of the page, and of whatever else is known to have changed without it."""
        kept = tuple(sorted(folders))
        said = [_FORMAT, front_end, sorted(modules.items()), kept]
        return cls(hashlib.sha256(orjson.dumps(said)).hexdigest()[:16], front_end, modules, kept)

    def covers(self, path: str) -> bool:
        """Whether this version says which bytes the file has."""
        return path in self.modules or is_of_front_end(path)


def split(path: str) -> tuple[str | None, str]:
    """The version that an address names, or None, and the path of the file on the server."""
    found = _VERSIONED.fullmatch(path)
    return (None, path) if found is None else (found[1], found[2])


def is_versioned_file(path: str) -> bool:
    """Whether the address names a version, and a file that can have one."""
    tag, file = split(path)
    return tag is not None and file.startswith(_TREES)


def is_file(path: str) -> bool:
    """Whether a GET of this path, as it came and without query, may be a file of the front end."""
    return _FILE.fullmatch(path) is not None and not path.endswith(".map")


def is_of_front_end(path: str) -> bool:
    """Whether the file is installed together with the page."""
    return path.startswith(_OF_FRONT_END)


def custom_modules(listed: object) -> list[str]:
    """Those of the answer of ``/extensions`` that do not come with the front end."""
    if not isinstance(listed, list):
        return []
    paths = (path for path in listed if isinstance(path, str) and _EXTENSION.fullmatch(path))
    return [path for path in dict.fromkeys(paths) if not is_of_front_end(path)][:MOST_MODULES]


def folder_of(module: str) -> str:
    """The extension that a listed module belongs to, as its folder."""
    found = _EXTENSION.fullmatch(module)
    assert found is not None
    return found[1]


def minds_address(module: bytes) -> bool:
    """Whether a module may look at its own address, or load another but by ``import``.

    Such a module is left at the address that it expects.
    """
    return _MINDS_ADDRESS.search(module) is not None


def cache_control(path: str, *, is_settled: bool) -> str:
    """``is_settled``: the address says which version it is, and these are its bytes."""
    return IMMUTABLE if is_settled or _HASHED.fullmatch(path) else ASK_AGAIN
