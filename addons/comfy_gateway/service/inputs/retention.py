"""Keeps what is remembered of input files, and the files themselves, within bounds."""

import asyncio
import logging
from datetime import timedelta
from typing import Final

from comfy_gateway.core.errors import StorageUnavailable
from comfy_gateway.core.inputs.ports import InputStore
from comfy_gateway.core.inputs.uploads import Kept, place_of
from comfy_gateway.core.ports import Clock
from comfy_gateway.service.inputs.book import InputBook
from comfy_gateway.service.inputs.inputs import Inputs
from comfy_gateway.service.requests.routes import Routes

logger = logging.getLogger(__name__)

LOOK_S: Final = 600.0
GONE_S: Final = 3600.0
"""A pod without a route for so long is gone; after a restart of the gateway its route comes after this."""
IN_USE_S: Final = 3600.0
"""What was used within this time may be on its way at this moment."""
AT_ONCE: Final = 1000
"""Names that are looked at before others get their turn."""
OLD_MEANINGS: Final = timedelta(days=2)
"""How long a prompt may wait and still mean what a name meant when it came."""


class InputRetention:
    """``most_bytes`` and ``most_age_s`` (since the last use) bound the store."""

    def __init__(
        self,
        *,
        inputs: Inputs,
        book: InputBook,
        store: InputStore,
        routes: Routes,
        clock: Clock,
        most_bytes: int,
        most_age_s: float,
    ) -> None:
        self._inputs = inputs
        self._book = book
        self._store = store
        self._routes = routes
        self._clock = clock
        self._most_bytes = most_bytes
        self._most_age_s = most_age_s
        self._gone_since_s: dict[str, float] = {}

    async def run(self) -> None:
        """Look every ten minutes, for ever."""
        while True:
            try:
                await self.look()
            except Exception:
                logger.exception("looking after kept input files failed once")
            await self._clock.sleep(LOOK_S)

    async def look(self) -> None:
        """Forget pods that are gone, remove what is too old or too much, and forget names of what is nowhere."""
        self._forget_places()
        try:
            await self._remove_contents()
        except StorageUnavailable as error:
            logger.warning("kept input files cannot be removed: %s", error)
        await self._forget_names()

    def _forget_places(self) -> None:
        now_s = self._clock.monotonic()
        alive = {place_of(server) for server in (*self._routes.duty_servers(), *self._routes.pods())}
        gone = [place for place in self._book.places() if place not in alive]
        self._gone_since_s = {place: self._gone_since_s.get(place, now_s) for place in gone}
        for place, since_s in self._gone_since_s.items():
            if now_s - since_s >= GONE_S:
                self._inputs.forget_place(place)

    async def _remove_contents(self) -> None:
        now_s = self._clock.now().timestamp()
        kept = [one for one in self._store.all() if now_s - one.used_at > IN_USE_S]
        excess_bytes = sum(one.content.size_bytes for one in self._store.all()) - self._most_bytes
        for one in sorted(kept, key=lambda one: (not self._is_shared(one), one.used_at)):
            is_old = now_s - one.used_at > self._most_age_s
            if not is_old and excess_bytes <= 0:
                continue
            await self._store.remove(one.content.sha256)
            excess_bytes -= one.content.size_bytes
            if not self._is_shared(one):
                logger.warning(
                    "removed an uploaded file of %d bytes that no shared server has: %s",
                    one.content.size_bytes,
                    "it was too old" if is_old else "there is no more room for uploads",
                )

    def _is_shared(self, kept: Kept) -> bool:
        """Whether a shared server has it too."""
        shared = {place_of(server) for server in self._routes.duty_servers()}
        return any(copy.place in shared for copy in self._book.copies_of(kept.content.sha256))

    async def _forget_names(self) -> None:
        before = self._clock.now() - OLD_MEANINGS
        for number, upload in enumerate(self._book.all_uploads()):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            sha256 = upload.content.sha256
            is_nowhere = self._store.find(sha256) is None and not self._book.copies_of(sha256)
            is_current = self._book.meaning((upload.owner_key,), upload.file) == upload
            if is_nowhere or (not is_current and upload.at < before):
                self._book.forget_upload(upload)
