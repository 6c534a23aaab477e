"""A vault on a real disk and a real database, before a pod: a simulated ComfyUI and the real agent, behind wires that a
test can cut.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from comfy_gateway.adapters.clock import SystemClock
from comfy_gateway.adapters.local_files import PARTS, LocalFiles
from comfy_gateway.adapters.pod_files import HttpPodFiles
from comfy_gateway.adapters.sql import Database, SqlVaultRows, open_database
from comfy_gateway.adapters.vault_disk import ThreadedDisk
from comfy_gateway.core.files.files import FileName, shown
from comfy_gateway.core.life.session import Event, Pod, Session, State
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.core.vault.ports import PodPlace, VaultDisk, VaultRows
from comfy_gateway.core.vault.vault import StoredFile
from comfy_gateway.service.vault.vault import Vault
from simulators.comfyui import ComfySimulator, serve
from tests.agent.stand import TOKEN, agent_at
from tests.conditions import wait_for

ALICE = "named:alice"
BOB = "named:bob"
NAME = "comfy-gw-alice0a1b2c3d-a1"
ALIAS = "private-a1"


class Wire:
    """A loopback address before another one. What is cut is cut without a word, as by a dying machine."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.is_dead = False
        self.cut_after_bytes: list[int] = []
        """After so many more bytes of answers the connection that carries them is cut, then with the next number."""
        self.held = asyncio.Event()
        self.held.set()
        """While this is cleared nothing passes."""
        self.port = 0
        self.passed_bytes = 0
        self.connections = 0
        self._open: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def up(self) -> AsyncIterator["Wire"]:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in tuple(self._open):
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await server.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._between(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _between(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.is_dead:
            return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            upward = asyncio.ensure_future(self._pump(reader, there_writer))
            downward = asyncio.ensure_future(self._pump(there_reader, writer, is_answer=True))
            try:
                await asyncio.wait([upward, downward], return_when=asyncio.FIRST_COMPLETED)
            finally:
                upward.cancel()
                downward.cancel()
                await asyncio.gather(upward, downward, return_exceptions=True)
        finally:
            there_writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool = False
    ) -> None:
        while chunk := await reader.read(65536):
            await self.held.wait()
            if self.is_dead:
                return
            is_cut = False
            if is_answer and self.cut_after_bytes:
                chunk = chunk[: self.cut_after_bytes[0]]
                self.cut_after_bytes[0] -= len(chunk)
                is_cut = not self.cut_after_bytes[0]
            writer.write(chunk)
            self.passed_bytes += len(chunk)
            await writer.drain()
            if is_cut:
                self.cut_after_bytes.pop(0)
                return


@dataclass
class PodStand:
    """One pod."""

    simulator: ComfySimulator
    output: Path
    comfyui: Wire
    agent: Wire
    place: PodPlace

    def make(
        self, name: str = "ComfyUI_00001_.png", data: bytes = b"picture", subfolder: str = ""
    ) -> FileName:
        """A file in the output folder; returns its name there."""
        file = FileName(name, subfolder)
        path = self.output / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return file

    def make_temp(self, name: str, data: bytes) -> FileName:
        (self.simulator.folders.temp / name).write_bytes(data)
        return FileName(name, "", "temp")

    def die(self) -> None:
        """Neither ComfyUI nor agent will ever answer again."""
        self.comfyui.is_dead = self.agent.is_dead = True
        self.comfyui.held.set()
        self.agent.held.set()

    @property
    def views(self) -> int:
        """How often a file was asked for at ComfyUI."""
        return sum(seen.path.startswith("/view?") for seen in self.simulator.requests)


@dataclass
class Places:
    """Implements ``service.vault.vault.Pods``."""

    places: dict[str, PodPlace] = field(default_factory=dict)
    serving: set[str] = field(default_factory=set)

    def find(self, pod_name: str) -> PodPlace | None:
        return self.places.get(pod_name)

    def is_serving(self, alias: str) -> bool:
        return alias in self.serving


@dataclass
class Stand:
    """The vault and what stands around it."""

    vault: Vault
    rows: VaultRows
    disk: VaultDisk
    places: Places
    root: Path
    pod: PodStand

    def name(self, file: FileName, prompt_id: str = "p1", user_key: str | None = ALICE) -> None:
        """As an ``executed`` event of the pod does."""
        self.vault.note(user_key, self.pod.place.backend, prompt_id, file)

    def files(self) -> list[str]:
        """Everything in the vault's folder, without user and date, half done parts too."""
        found = [path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file()]
        return sorted("/".join(path.parts if path.parts[0] == PARTS else path.parts[2:]) for path in found)

    async def stored(self, count: int = 1, *, deadline_s: float = 10.0) -> None:
        """Wait until so many contents were stored and nothing waits."""
        stats = self.vault.stats
        await wait_for(
            lambda: stats.files_stored >= count and not stats.files_waiting,
            f"{count} files in the vault",
            deadline_s=deadline_s,
        )

    async def find(self, file: FileName, user_key: str | None = ALICE) -> StoredFile | None:
        """By the name under which the pod's file is shown."""
        return await self.vault.find(user_key, shown(file, ALIAS))

    async def content(self, file: FileName) -> bytes | None:
        """What the vault has under the name under which the pod's file is shown."""
        return await self.content_of(shown(file, ALIAS))

    async def content_of(self, name: FileName) -> bytes | None:
        stored = await self.vault.find(ALICE, name)
        if stored is None:
            return None
        return b"".join([chunk async for chunk in self.vault.chunks(stored)])

    async def told_safe(self) -> Sequence[str]:
        """What the agent still calls unfetched."""
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
            url = self.pod.place.agent_url.replace("/metrics", "/files/output?unfetched=1")
            async with client.get(url) as response:
                return [file["path"] for file in (await response.json())["files"]]

    def end_pod(self) -> None:
        """The cloud has confirmed that the pod is gone."""
        self.places.places.clear()
        self.places.serving.clear()
        user = UserId.from_key(ALICE)
        now = SystemClock().now()
        pod = Pod(NAME, "a1", now, "pod1")
        self.vault.session_moved(
            Session(user, State.TERMINATING, now, pod), Session(user, State.SHARED, now), Event.ENDED
        )


@asynccontextmanager
async def pod_stand(home: Path, *, has_agent: bool = True) -> AsyncIterator[PodStand]:
    output = home / "output"
    output.mkdir(parents=True)
    simulator = ComfySimulator("pod", output_dir=output)
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(serve(simulator))
        comfyui = await stack.enter_async_context(Wire(served.port).up())
        agent_port = 9
        if has_agent:
            agent = await stack.enter_async_context(agent_at(home))
            agent_port = int(agent.url.rpartition(":")[2])
        wire = await stack.enter_async_context(Wire(agent_port).up())
        backend = Backend(NAME, Source.PRIVATE, Upstream("http", "127.0.0.1", comfyui.port), "door", ALIAS)
        place = PodPlace(ALICE, backend, f"http://127.0.0.1:{wire.port}/metrics", TOKEN)
        yield PodStand(simulator, output, comfyui, wire, place)


@asynccontextmanager
async def vault_of(
    folder: Path,
    pod: PodStand,
    *,
    clock: Clock | None = None,
    disk: VaultDisk | None = None,
    rows: VaultRows | None = None,
    hold_s: float = 300.0,
    max_file_bytes: int | None = None,
    places: Places | None = None,
) -> AsyncIterator[Stand]:
    """One life of the gateway's vault; the folder has its disk and its database."""
    root = folder / "state" / "vault"
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        if rows is None:
            database = await opened_database(folder, stack)
            rows = SqlVaultRows(database)
        own_disk = disk or ThreadedDisk(LocalFiles(root, reserve_bytes=0))
        known = places or Places({NAME: pod.place}, {ALIAS})
        vault = Vault(
            pods=known,
            files=HttpPodFiles(http, timeout_s=5, silence_s=5, connect_timeout_s=5),
            disk=own_disk,
            rows=rows,
            clock=clock or SystemClock(),
            hold_s=hold_s,
            max_file_bytes=max_file_bytes,
        )
        stack.push_async_callback(vault.aclose)
        await vault.start()
        yield Stand(vault, rows, own_disk, known, root, pod)


async def opened_database(folder: Path, stack: AsyncExitStack) -> Database:
    database = await open_database(f"sqlite+aiosqlite:///{folder / 'state' / 'gateway.db'}")
    stack.push_async_callback(database.aclose)
    return database


@asynccontextmanager
async def vault_stand(folder: Path, *, has_agent: bool = True, **options: object) -> AsyncIterator[Stand]:
    """A pod and a vault."""
    async with (
        pod_stand(folder / "pod", has_agent=has_agent) as pod,
        vault_of(folder, pod, **options) as stand,  # type: ignore[arg-type]
    ):
        yield stand
