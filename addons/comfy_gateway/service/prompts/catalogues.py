"""What each ComfyUI server can run, as far as it is known: read from its ``/object_info`` and read again in time."""

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.ports import Clock, ComfyServer
from comfy_gateway.core.prompts.catalogue import Catalogue
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.service.tasks import Tasks

logger = logging.getLogger(__name__)

READ_AGAIN_S: Final = 600.0
"""Models and nodes are installed while a server runs, and nobody tells us."""
TRY_AGAIN_S: Final = 30.0
"""Between two tries while there is no usable answer, and between two readings at somebody's wish."""
LOOK_S: Final = 10.0
LARGE_BYTES: Final = 100_000
"""What is smaller is read in less time than a thread takes."""
MOST_KEPT: Final = 64


@dataclass(frozen=True, slots=True)
class Reading:
    """One successful look at a server."""

    catalogue: Catalogue
    digest: bytes
    """SHA-256 of the answer."""
    at_s: float
    """Monotonic."""


class Catalogues:
    """Reads and keeps the catalogue of each server.

    ``servers`` answers with those that have to be known: the duty servers and the private pods that serve. The
    catalogue of another is kept for ``READ_AGAIN_S`` after it was read.
    """

    def __init__(
        self,
        *,
        comfy: ComfyServer,
        servers: Callable[[], Iterable[Backend]],
        clock: Clock,
        tasks: Tasks,
    ) -> None:
        self._comfy = comfy
        self._servers = servers
        self._clock = clock
        self._tasks = tasks
        self._readings: dict[str, Reading] = {}
        """By backend id, those read last at the end."""
        self._tried_s: dict[str, float] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._counts: Counter[str] = Counter()
        self._unread: set[str] = set()
        """Ids of those that are known to give no usable answer, so that it is said once."""
        self._parsing = asyncio.Lock()

    def of(self, backend: Backend) -> Catalogue | None:
        """What the server can run, by the last reading; None while there was none."""
        return self.by_id(backend.id)

    def by_id(self, backend_id: str) -> Catalogue | None:
        """As ``of``, also for a pod that has just lost its route."""
        reading = self._readings.get(backend_id)
        return None if reading is None else reading.catalogue

    async def fetch(self, backend: Backend) -> Catalogue:
        """Read the server's catalogue now; who comes while it is being read gets that one.

        What was known stays known where this fails. Raises BackendUnavailable.
        """
        count = self._counts[backend.id]
        async with self._turns.setdefault(backend.id, asyncio.Lock()):
            known = self._readings.get(backend.id)
            if known is not None and self._counts[backend.id] != count:
                return known.catalogue
            self._tried_s[backend.id] = self._clock.monotonic()
            body = await self._comfy.object_info(backend)
            reading = await self._read(body)
            self._readings.pop(backend.id, None)
            self._readings[backend.id] = reading
            self._counts[backend.id] += 1
            self._unread.discard(backend.id)
        while len(self._readings) > MOST_KEPT:
            self._forget(next(iter(self._readings)))
        return reading.catalogue

    def refresh(self, backend: Backend) -> None:
        """Have the server read again soon, for what is known of it seems to be wrong. Often called, seldom done."""
        tried_s = self._tried_s.get(backend.id)
        if tried_s is None or self._clock.monotonic() - tried_s >= TRY_AGAIN_S:
            self._tried_s[backend.id] = self._clock.monotonic()
            self._tasks.start(self._try(backend), name=f"catalogue of {backend.id}")

    async def run(self) -> None:
        """Read what is due, for ever."""
        while True:
            try:
                await self.look()
            except Exception:
                logger.exception("reading catalogues failed once")
            await self._clock.sleep(LOOK_S)

    async def look(self) -> None:
        """Read the servers that are due, one after the other, and forget those that are gone."""
        servers = {backend.id: backend for backend in self._servers()}
        for backend in servers.values():
            if self._is_due(backend):
                await self._try(backend)
        now_s = self._clock.monotonic()
        for id_, reading in tuple(self._readings.items()):
            if id_ not in servers and now_s - reading.at_s >= READ_AGAIN_S:
                self._forget(id_)

    def _is_due(self, backend: Backend) -> bool:
        now_s = self._clock.monotonic()
        reading, tried_s = self._readings.get(backend.id), self._tried_s.get(backend.id)
        is_known = reading is not None and now_s - reading.at_s < READ_AGAIN_S
        return not is_known and (tried_s is None or now_s - tried_s >= TRY_AGAIN_S)

    async def _try(self, backend: Backend) -> None:
        try:
            await self.fetch(backend)
        except BackendUnavailable as error:
            if backend.id not in self._unread:
                self._unread.add(backend.id)
                logger.warning("what %s can run is not known: %s", backend.id, error)

    async def _read(self, body: bytes) -> Reading:
        """One at a time: what is held meanwhile is several times as large as the answer."""
        async with self._parsing:
            known = tuple(self._readings.values())
            try:
                if len(body) < LARGE_BYTES:
                    catalogue, digest = _read(body, known)
                else:
                    catalogue, digest = await asyncio.to_thread(_read, body, known)
            except ValueError as error:
                raise BackendUnavailable(f"object_info: {error}") from None
        return Reading(catalogue, digest, self._clock.monotonic())

    def _forget(self, id_: str) -> None:
        self._readings.pop(id_, None)
        self._tried_s.pop(id_, None)
        self._turns.pop(id_, None)
        self._counts.pop(id_, None)
        self._unread.discard(id_)


def _read(body: bytes, known: Iterable[Reading]) -> tuple[Catalogue, bytes]:
    """The catalogue and the body's digest. Pods of one image have one catalogue: an equal one is not kept twice."""
    digest = hashlib.sha256(body).digest()
    for reading in known:
        if reading.digest == digest:
            return reading.catalogue, digest
    catalogue = Catalogue.read(body)
    for reading in known:
        if reading.catalogue.classes == catalogue.classes:
            return reading.catalogue, digest
    return catalogue, digest
