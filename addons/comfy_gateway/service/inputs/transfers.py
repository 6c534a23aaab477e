"""Moves contents of input files: from a server into the store, and from the store to a server.

The same work asked for twice at once is done once, and goes on when whoever asked for it has gone.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any, Final

from comfy_gateway.core.errors import (
    AgentUnavailable,
    BackendUnavailable,
    PromptRefused,
    StorageUnavailable,
)
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.ports import (
    AgentInputs,
    AgentPlace,
    FileBody,
    FormFile,
    InputServer,
    InputStore,
    Unchanged,
)
from comfy_gateway.core.inputs.refs import numbered
from comfy_gateway.core.inputs.refusals import DISK_FULL, input_too_large, input_unavailable
from comfy_gateway.core.inputs.uploads import Content, Copy, best_name, carried_file, place_of
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.service.inputs.book import InputBook
from comfy_gateway.service.prompts.activity import Activity
from comfy_gateway.service.tasks import Tasks

logger = logging.getLogger(__name__)

POD_BODY_BYTES: Final = 90 * 1024 * 1024
"""Larger files go to a pod by its agent: the proxy in front of it refuses bodies over 100 MB, and so does ComfyUI."""
MOST_AT_ONCE: Final = 8
MOST_NAMES: Final = 20
"""Names that are tried in a clash before one is taken that cannot clash."""


class ContentGone(Exception):
    """Neither the gateway nor any server that may be asked has the content any more."""


class InputTransfers:
    """``agent_of`` answers with the agent of a pod, or None where there is none."""

    def __init__(
        self,
        *,
        book: InputBook,
        store: InputStore,
        server: InputServer,
        agents: AgentInputs,
        agent_of: Callable[[Backend], AgentPlace | None],
        activity: Activity,
        tasks: Tasks,
        pod_body_bytes: int = POD_BODY_BYTES,
    ) -> None:
        self._book = book
        self._store = store
        self._server = server
        self._agents = agents
        self._agent_of = agent_of
        self._activity = activity
        self._tasks = tasks
        self._pod_body_bytes = pod_body_bytes
        self._running: dict[object, asyncio.Future[Any]] = {}
        self._turn = asyncio.Semaphore(MOST_AT_ONCE)

    async def identify(self, backend: Backend, file: FileName) -> Content | None:
        """Which content that server has under that name; None when there is no such file.

        It is read only where it is not the one that is known already; then the store has it too. Raises
        BackendUnavailable and StorageUnavailable.
        """
        return await self._once(
            ("identify", place_of(backend), file), partial(self._read, backend, file, may_be_known=True)
        )

    async def keep(self, content: Content, sources: Iterable[Backend]) -> None:
        """Have the content in the store, read from one of these servers where it has to be.

        Raises ContentGone, BackendUnavailable and StorageUnavailable.
        """
        if self._store.find(content.sha256) is not None:
            await self._store.used(content.sha256)
            return
        places = {place_of(backend): backend for backend in sources}
        failure: BackendUnavailable | None = None
        for copy in self._book.copies_of(content.sha256):
            if (backend := places.get(copy.place)) is None:
                continue
            try:
                found = await self._once(
                    ("read", copy.place, copy.file),
                    partial(self._read, backend, copy.file, may_be_known=False),
                )
            except BackendUnavailable as error:
                failure = error
                continue
            if found == content:
                return
        raise failure or ContentGone

    async def place(
        self,
        content: Content,
        wanted: FileName,
        backend: Backend,
        sources: Iterable[Backend],
    ) -> FileName:
        """Have the content on that server; returns its name there, which is ``wanted`` unless others have that.

        Nothing there is ever overwritten: prompts that wait keep the files they mean. Raises ContentGone, and
        PromptRefused when the file cannot be brought.
        """
        known = self._known_name(content, wanted, backend)
        if known is not None:
            return known
        try:
            return await self._once(
                ("place", place_of(backend), content.sha256, wanted),
                partial(self._bring, content, wanted, backend, tuple(sources)),
            )
        except StorageUnavailable as error:
            logger.error("an input file cannot be carried: %s", error)  # noqa: TRY400 - the text says all
            raise PromptRefused(DISK_FULL) from error
        except BackendUnavailable as error:
            logger.warning("an input file cannot be carried to %s: %s", backend.id, error)
            raise PromptRefused(
                input_unavailable(wanted.path, "A server did not give or take it.")
            ) from error

    def _known_name(self, content: Content, wanted: FileName, backend: Backend) -> FileName | None:
        place = place_of(backend)
        return best_name((c for c in self._book.copies_of(content.sha256) if c.place == place), wanted)

    async def _read(self, backend: Backend, file: FileName, *, may_be_known: bool) -> Content | None:
        place = place_of(backend)
        known = self._book.copy_at(place, file)
        etag = known.etag if known is not None and may_be_known else ""
        async with self._turn, self._server.read(backend, file, etag=etag) as found:
            if found is None:
                self._book.forget_copy(place, file)
                return None
            if isinstance(found, Unchanged):
                assert known is not None
                return known.content
            content = await self._spool(found)
        is_carried = known is not None and known.is_carried and known.content == content
        self._book.note_copy(Copy(place, file, content, is_carried, found.etag))
        return content

    async def _spool(self, body: FileBody) -> Content:
        async with self._store.part(body.size_bytes) as part:
            async for chunk in body.chunks:
                await part.write(chunk)
            return await part.finish()

    async def _bring(
        self, content: Content, wanted: FileName, backend: Backend, sources: tuple[Backend, ...]
    ) -> FileName:
        await self.keep(content, sources)
        self._activity.begin(backend.id)
        try:
            async with self._turn:
                stored = await self._put(content, wanted, backend)
        except FileNotFoundError:
            # Somebody cleared the folder of the store.
            await self._store.remove(content.sha256)
            raise BackendUnavailable("the kept file has vanished") from None
        finally:
            self._activity.end(backend.id)
        self._book.note_copy(Copy(place_of(backend), stored, content, is_carried=True))
        logger.info("carried an input file of %d bytes to %s", content.size_bytes, backend.id)
        return stored

    async def _put(self, content: Content, wanted: FileName, backend: Backend) -> FileName:
        if backend.source is Source.PRIVATE and content.size_bytes > self._pod_body_bytes:
            return await self._put_by_agent(content, wanted, backend)
        file = FormFile(self._store.path(content.sha256), content.size_bytes, wanted.filename)
        fields = [("type", wanted.type), ("subfolder", wanted.subfolder)]
        answer = await self._server.post_form(backend, "image", fields, file)
        if answer.status == 413:
            why = f"It has {content.size_bytes} bytes, and ComfyUI's --max-upload-size is smaller."
            raise PromptRefused(input_too_large(wanted.path, why))
        stored = answer.stored_as
        if stored is None:
            raise BackendUnavailable(f"upload: answered {answer.status}")
        return stored

    async def _put_by_agent(self, content: Content, wanted: FileName, backend: Backend) -> FileName:
        stored = await self.send_by_agent(content, wanted, backend, replace=False)
        if stored is None:
            why = f"It has {content.size_bytes} bytes, and the pod has no agent that takes it in parts."
            raise PromptRefused(input_too_large(wanted.path, why))
        return stored

    async def send_by_agent(
        self, content: Content, wanted: FileName, backend: Backend, *, replace: bool
    ) -> FileName | None:
        """Send a content of the store to a pod in parts; None where no agent is known.

        The name is made as ComfyUI makes it: another file of the name keeps it unless it is to be replaced. Raises
        BackendUnavailable and FileNotFoundError.
        """
        agent = self._agent_of(backend)
        if agent is None:
            return None
        source = self._store.path(content.sha256)
        names = list(islice(numbered(wanted), MOST_NAMES)) if _is_for_agent(wanted) else []
        names.append(carried_file(content, "file" + _ending(wanted.filename)))
        try:
            for file in names:
                if await self._agents.put_input(agent, file, source, content, replace=replace):
                    return file
        except AgentUnavailable as error:
            raise BackendUnavailable(str(error)) from None
        raise BackendUnavailable("the agent takes no name for it")

    async def _once[T](self, key: object, work: Callable[[], Awaitable[T]]) -> T:
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.get_running_loop().create_future()
            self._tasks.start(self._settle(key, running, work), name="input file")
        result: T = await asyncio.shield(running)
        return result

    async def _settle[T](
        self, key: object, running: "asyncio.Future[T]", work: Callable[[], Awaitable[T]]
    ) -> None:
        try:
            result = await work()
        except asyncio.CancelledError:
            running.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - carried over to whoever waits
            running.set_exception(error)
            running.exception()  # nobody may be waiting any more
        else:
            running.set_result(result)
        finally:
            del self._running[key]


def _is_for_agent(file: FileName) -> bool:
    """Whether the agent takes a file of that name (docs/agent.md): an input, nothing hidden, nothing unprintable."""
    parts = file.path.split("/")
    return file.type == "input" and all(part.isprintable() and not part.startswith(".") for part in parts)


def _ending(filename: str) -> str:
    ending = filename.rpartition(".")[2]
    return f".{ending}" if "." in filename and ending.isascii() and ending.isalnum() else ""
