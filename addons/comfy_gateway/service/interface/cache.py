"""The front end of the shared server, kept so that a page load asks that server for next to nothing.

Each page load looks at the server first: its page, its list of extensions and the modules in that list. What a look
finds is a ``Version``; the page that a browser gets names it in the addresses of its modules. A page is never older
than FRESH_S. What the server does not answer, or answers so that it cannot be kept, is left to the server.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.interface import files as interface_files
from comfy_gateway.core.interface.files import EXTENSIONS, PAGE, InterfaceSource, Told, Version
from comfy_gateway.core.interface.versioned_page import versioned
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.requests.content_coding import entity_tag, is_known_to
from comfy_gateway.service.interface.single_flight import SingleFlight
from comfy_gateway.service.interface.store import InterfaceStore, Kept
from comfy_gateway.service.tasks import Tasks

logger = logging.getLogger(__name__)

FRESH_S: Final = 2.0
"""A look that began so long ago or less serves for the next page load too."""
SWEEP_S: Final = 600.0
"""Files of the front end are compared with the server's after so long, in case they changed and its page did not."""
AT_ONCE: Final = 8
"""Questions of one look that are open at a time."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A GET without query."""

    path: str
    """As it came."""
    accept_encoding: str = ""
    if_none_match: str = ""


@dataclass(frozen=True, slots=True)
class Served:
    """What the browser gets."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class _Look:
    """What was found at one moment."""

    version: Version
    page: Kept
    """As browsers get it."""
    began_s: float


class InterfaceCache:
    """Give it up by dropping it: its work belongs to ``tasks``."""

    def __init__(
        self,
        *,
        source: InterfaceSource,
        store: InterfaceStore,
        clock: Clock,
        tasks: Tasks,
        is_module: Callable[[str], bool] = lambda _path: True,
    ) -> None:
        """``is_module(path)``: whether a listed module is the shared server's to answer."""
        self._source = source
        self._store = store
        self._clock = clock
        self._tasks = tasks
        self._is_module = is_module
        self._look: _Look | None = None
        self._drift: dict[str, str] = {}
        """Validators of files of the front end that changed while its page did not."""
        self._swept_s = clock.monotonic()
        self._fetches: SingleFlight[str, Kept | None] = SingleFlight(tasks, "file of the front end")
        self._looks: SingleFlight[str, _Look | None] = SingleFlight(tasks, "look at the front end")
        self._page_again: asyncio.Lock = asyncio.Lock()
        self._page_asked_s = float("-inf")
        self._page_validator: str | None = None

    async def serve(self, asked: Asked) -> Served | None:
        """None: let the server answer it."""
        tag, path = interface_files.split(asked.path)
        if path != PAGE and not interface_files.is_file(path):
            return None
        try:
            look = self._look
            if tag is None or look is None or look.version.tag != tag:
                look = await self._looked()
            if look is None:
                return None
            if path == PAGE:
                return await self._served(look.page, asked, interface_files.ASK_AGAIN)
            kept = self._at_hand(path, look.version)
            if kept is None:
                kept = await self._fetches.do(path, lambda: self._brought(path))
        except BackendUnavailable as error:
            logger.warning("the front end is not kept: %s", error)
            return None
        if kept is None:
            return None
        is_settled = tag == look.version.tag and self._belongs(kept, look.version)
        return await self._served(kept, asked, interface_files.cache_control(path, is_settled=is_settled))

    async def _served(self, kept: Kept, asked: Asked, cache_control: str) -> Served:
        headers = {"Cache-Control": cache_control, "Vary": "Accept-Encoding"}
        if is_known_to(asked.if_none_match, kept.digest):
            return Served(304, {**headers, "ETag": entity_tag(kept.digest, "")})
        had = len(kept.coded)
        coding, body = await kept.coded_for(asked.accept_encoding)
        if len(kept.coded) != had:
            self._store.trim()
        headers |= {"Content-Type": kept.content_type, "ETag": entity_tag(kept.digest, coding)}
        if coding:
            headers["Content-Encoding"] = coding
        return Served(200, headers, body)

    def _belongs(self, kept: Kept, version: Version) -> bool:
        """Whether these are the bytes that the version means."""
        listed = version.modules.get(kept.path)
        if listed is not None:
            return kept.validator == listed
        return interface_files.is_of_front_end(kept.path) and kept.of_front_end == version.front_end

    def _at_hand(self, path: str, version: Version) -> Kept | None:
        kept = self._store.get(path)
        if kept is None:
            return None
        is_fresh = self._clock.monotonic() - kept.asked_s <= FRESH_S
        return kept if (is_fresh and not version.covers(path)) or self._belongs(kept, version) else None

    async def _brought(self, path: str) -> Kept | None:
        """The file as the server tells it now, and joined to the state of the front end if that is still the same."""
        look = self._look
        kept = await self._asked_again(path)
        if kept is not None and look is not None and interface_files.is_of_front_end(path):
            # A file that comes after an update belongs to the next state: it must not get an address of this one.
            began_s = self._clock.monotonic()
            if await self._page_since(began_s) == look.page.validator:
                kept.of_front_end = look.version.front_end
        return kept

    async def _asked_again(self, path: str) -> Kept | None:
        """Ask the server. None for what cannot be kept. Raises BackendUnavailable."""
        before = self._store.get(path)
        asked_s = self._clock.monotonic()
        told = await self._source.fetch(path, {} if before is None else before.known)
        if told.status == 304 and before is not None and "set-cookie" not in told.headers:
            before.asked_s = asked_s
            return before
        if not told.is_keepable:
            self._store.drop(path)
            return None
        kept = Kept.of(path, told, asked_s)
        if before is not None and before.digest == kept.digest:
            kept.coded = before.coded
        self._store.put(kept)
        return kept

    async def _page_since(self, began_s: float) -> str | None:
        """The page's validator as a question tells it that was put at ``began_s`` or later: one for all who wait."""
        async with self._page_again:
            if self._page_asked_s < began_s:
                asked_s = self._clock.monotonic()
                page = await self._asked_again(PAGE)
                self._page_validator = None if page is None else page.validator
                self._page_asked_s = asked_s
            return self._page_validator

    async def _looked(self) -> _Look | None:
        look = self._look
        if look is not None and self._clock.monotonic() - look.began_s <= FRESH_S:
            return look
        return await self._looks.do("now", self._look_again)

    async def _look_again(self) -> _Look | None:
        began_s = self._clock.monotonic()
        page, listed = await asyncio.gather(self._asked_again(PAGE), self._source.fetch(EXTENSIONS, {}))
        if page is None:
            self._look = None
            return None
        modules = await self._modules(listed)
        by_address = {interface_files.folder_of(path) for path, kept in modules.items() if not _is_free(kept)}
        apart = {
            path: kept for path, kept in modules.items() if interface_files.folder_of(path) not in by_address
        }
        version = Version.of(
            orjson.dumps([page.validator, sorted(self._drift.items())]).decode(),
            {path: kept.validator for path, kept in apart.items() if kept is not None},
            {interface_files.folder_of(path) for path in apart},
        )
        look = self._look
        if look is None or look.version.tag != version.tag:
            logger.info("the front end is at version %s", version.tag)
            text = versioned(page.body.decode("utf-8", "replace"), version)
            if text is None:
                logger.warning(
                    "the page of the front end is not made as we know it: its files are asked for again"
                )
            shown = _shown(page, text, began_s)
        else:
            shown = look.page
        self._look = _Look(version, shown, began_s)
        self._sweep_in_time()
        return self._look

    async def _modules(self, listed: Told) -> dict[str, Kept | None]:
        try:
            paths = interface_files.custom_modules(
                orjson.loads(listed.body) if listed.status == 200 else None
            )
        except orjson.JSONDecodeError:
            paths = []
        paths = [path for path in paths if self._is_module(path)]
        limit = asyncio.Semaphore(AT_ONCE)

        async def ask(path: str) -> Kept | None:
            async with limit:
                return await self._asked_again(path)

        return dict(zip(paths, await asyncio.gather(*(ask(path) for path in paths)), strict=True))

    def _sweep_in_time(self) -> None:
        now_s = self._clock.monotonic()
        if now_s - self._swept_s > SWEEP_S:
            self._swept_s = now_s
            self._tasks.start(self._sweep(), name="comparison of the front end's files")

    async def _sweep(self) -> None:
        """One after the other: nobody waits for it."""
        for kept in self._store.all():
            if not interface_files.is_of_front_end(kept.path) or not kept.of_front_end:
                continue
            before = kept.validator
            try:
                now = await self._asked_again(kept.path)
            except BackendUnavailable:
                return
            validator = "" if now is None else now.validator
            if validator != before:
                logger.info("%s has changed although the page has not", kept.path)
                self._drift[kept.path] = validator


def _shown(page: Kept, text: str | None, asked_s: float) -> Kept:
    """The page as browsers get it; as it is where there is no other text."""
    headers = {"etag": page.validator, "content-type": page.content_type}
    return Kept.of(PAGE, Told(200, headers, page.body if text is None else text.encode()), asked_s)


def _is_free(kept: Kept | None) -> bool:
    return kept is not None and not interface_files.minds_address(kept.body)
