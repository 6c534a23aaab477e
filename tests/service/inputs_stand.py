"""Everything that carries input files, over real folders, sockets and simulated servers."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

from comfy_gateway.adapters.agent_inputs import HttpAgentInputs
from comfy_gateway.adapters.clock import SystemClock
from comfy_gateway.adapters.comfyui import HttpComfyServer
from comfy_gateway.adapters.comfyui_inputs import HttpInputServer
from comfy_gateway.adapters.input_store import DiskInputStore
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.ports import AgentPlace
from comfy_gateway.core.inputs.refs import read
from comfy_gateway.core.inputs.spaces import EVERYBODYS, InputSpaces
from comfy_gateway.core.inputs.uploads import Content
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.prompts.visibility import OPEN, Visibility
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.service.files.file_owners import FileOwners
from comfy_gateway.service.files.files import Files
from comfy_gateway.service.files.told_files import ToldFiles
from comfy_gateway.service.inputs.book import InputBook
from comfy_gateway.service.inputs.inputs import Inputs
from comfy_gateway.service.inputs.lists import InputLists
from comfy_gateway.service.inputs.retention import InputRetention
from comfy_gateway.service.inputs.transfers import POD_BODY_BYTES, InputTransfers
from comfy_gateway.service.inputs.uploads import InputUploads, Taken, UploadForm
from comfy_gateway.service.prompts.activity import Activity
from comfy_gateway.service.prompts.catalogues import Catalogues
from comfy_gateway.service.requests.routes import Routes
from comfy_gateway.service.tasks import Tasks
from simulators.comfyui import ComfySimulator, serve
from tests.fakes.ledger import ledger_in_memory
from tests.fakes.uploads import FakeUploadRows

ALICE = UserId(IdKind.NAMED, "alice")
BOB = UserId(IdKind.NAMED, "bob")
PEER = "10.1.2.3"
KEYS = Keys(b"k" * 32)


def png(number: int) -> bytes:
    """A picture that is no other's; all have the same size."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(buffer, format="PNG", compress_level=0)
    return buffer.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def load_image(*texts: str, prompt_id: str = "") -> dict[str, Any]:
    """The body of a prompt that loads and saves these pictures."""
    graph: dict[str, Any] = {}
    for number, text in enumerate(texts):
        graph[f"{number}"] = {"class_type": "LoadImage", "inputs": {"image": text}}
        graph[f"s{number}"] = {
            "class_type": "SaveImage",
            "inputs": {"images": [f"{number}", 0], "filename_prefix": "x"},
        }
    return {"prompt": graph, **({"prompt_id": prompt_id} if prompt_id else {})}


def texts_in(document: Mapping[str, Any]) -> list[str]:
    """What the LoadImage nodes name."""
    return [
        node["inputs"]["image"] for node in document["prompt"].values() if node["class_type"] == "LoadImage"
    ]


@dataclass
class Server:
    """A simulated ComfyUI and how the gateway knows it."""

    simulator: ComfySimulator
    backend: Backend
    stop: AsyncExitStack

    @property
    def inputs(self) -> Path:
        return self.simulator.folders.input

    def holds(self, text: str) -> bytes:
        """The content of the file that a prompt's text names there."""
        return self.simulator.folders.named(text).read_bytes()

    def uploads(self) -> int:
        """How many files it was sent."""
        return sum(seen.method == "POST" and "/upload/" in seen.path for seen in self.simulator.requests)

    def reads(self) -> int:
        """How many files it gave, wholly or not."""
        return sum(seen.method == "GET" and "/view" in seen.path for seen in self.simulator.requests)


@dataclass
class World:
    """The parts, one user who may be moved, and what tests do with them."""

    tmp_path: Path
    http: aiohttp.ClientSession
    duty: list[Server]
    pod: Server
    routes: Routes
    clock: SystemClock = field(default_factory=SystemClock)
    rows: FakeUploadRows = field(default_factory=FakeUploadRows)
    agents: dict[str, AgentPlace] = field(default_factory=dict)
    pod_body_bytes: int = POD_BODY_BYTES
    part_bytes: int = 1024 * 1024
    reserve_bytes: int = 0
    vault: Any = None
    visibility: Visibility = OPEN
    spaces: InputSpaces = EVERYBODYS

    async def build(self) -> None:
        """Put the parts together, as at a start; a second time: as after a restart."""
        self.tasks = Tasks("inputs")
        self.activity = Activity(self.clock)
        self.store = DiskInputStore(self.tmp_path / "inputs", reserve_bytes=self.reserve_bytes)
        await self.store.open()
        self.book = InputBook(self.rows, self.clock)
        await self.book.load()
        self.tasks.start(self.book.run(), name="uploads")
        self.ledger = ledger_in_memory(self.clock)
        self.server = HttpInputServer(self.http, timeout_s=5, silence_s=5)
        comfy = HttpComfyServer(self.http, 5)
        self.catalogues = Catalogues(comfy=comfy, servers=tuple, clock=self.clock, tasks=self.tasks)
        self.transfers = InputTransfers(
            book=self.book,
            store=self.store,
            server=self.server,
            agents=HttpAgentInputs(self.http, part_bytes=self.part_bytes, pause_s=0.01),
            agent_of=lambda backend: self.agents.get(backend.id),
            activity=self.activity,
            tasks=self.tasks,
            pod_body_bytes=self.pod_body_bytes,
        )
        if self.visibility.hides_others:
            self.spaces = InputSpaces(KEYS, "shared")
        owners = FileOwners(self.ledger, self.clock) if self.visibility.hides_others else None
        self.files = Files(routes=self.routes, told=ToldFiles(self.clock), vault=self.vault, owners=owners)
        self.inputs = Inputs(
            book=self.book,
            store=self.store,
            server=self.server,
            transfers=self.transfers,
            catalogues=self.catalogues,
            files=self.files,
            vault=self.vault,
            prompts=self.ledger,
            routes=self.routes,
            clock=self.clock,
            visibility=self.visibility,
            spaces=self.spaces,
        )
        self.uploads = InputUploads(
            inputs=self.inputs,
            book=self.book,
            store=self.store,
            server=self.server,
            transfers=self.transfers,
            routes=self.routes,
            pod_body_bytes=self.pod_body_bytes,
            visibility=self.visibility,
            spaces=self.spaces,
        )
        self.lists = InputLists(
            inputs=self.inputs,
            book=self.book,
            store=self.store,
            server=self.server,
            routes=self.routes,
            spaces=self.spaces,
        )

    def retention(self, clock: Any, *, most_bytes: int = 1 << 40, most_age_s: float = 1e9) -> InputRetention:
        return InputRetention(
            inputs=self.inputs,
            book=self.book,
            store=self.store,
            routes=self.routes,
            clock=clock,
            most_bytes=most_bytes,
            most_age_s=most_age_s,
        )

    @property
    def home(self) -> Server:
        return self.duty[0]

    def move(self) -> None:
        """Alice gets her pod."""
        self.routes.set_private(ALICE, self.pod.backend)

    def move_back(self) -> None:
        """Alice is on duty again, and the pod is gone."""
        self.routes.clear_private(ALICE)

    async def keep(self, data: bytes) -> Content:
        async with self.store.part(len(data)) as part:
            await part.write(data)
            return await part.finish()

    async def upload(
        self,
        name: str,
        data: bytes,
        *,
        user: UserId | None = ALICE,
        peer: str = PEER,
        kind: str = "image",
        **fields: str,
    ) -> Taken:
        """What the site does once the file is on the disk."""
        content = await self.keep(data)
        form = UploadForm(kind, tuple(fields.items()), name, "image/png", content)
        return await self.uploads.take(user, peer, form, {})

    async def uploaded(self, name: str, data: bytes, **options: Any) -> str:
        """The text that names the upload in a prompt."""
        stored = (await self.upload(name, data, **options)).answer.stored_as
        assert stored is not None
        return stored.path if stored.type == "input" else f"{stored.path} [{stored.type}]"

    async def carried(
        self,
        *texts: str,
        user: UserId | None = ALICE,
        backend: Backend | None = None,
        prompt_id: str = "",
        peer: str = PEER,
    ) -> list[str]:
        """What a prompt that names these pictures names on the server that it is sent to."""
        document = load_image(*texts, prompt_id=prompt_id)
        before = repr(document)
        sent = await self.inputs.carry(user, document, backend or self.routes.current(user), peer=peer)
        assert repr(document) == before
        return texts_in(sent)

    async def answer_to(self, *texts: str, user: UserId | None = ALICE) -> tuple[int, Any]:
        """What ComfyUI itself says to the prompt once its files were carried."""
        backend = self.routes.current(user)
        document = await self.inputs.carry(user, load_image(*texts), backend, peer=PEER)
        async with self.http.post(backend.upstream.url("/prompt"), json=document) as response:
            return response.status, await response.json()


def named(text: str) -> FileName:
    ref = read(text)
    assert ref is not None
    return ref.file


@asynccontextmanager
async def served(name: str, backend_of: Any, *, base_dir: Path | None = None) -> AsyncIterator[Server]:
    simulator = ComfySimulator(name, base_dir=base_dir)
    async with AsyncExitStack() as stop:
        running = await stop.enter_async_context(serve(simulator))
        yield Server(simulator, backend_of(Upstream.parse(running.url)), stop)


@asynccontextmanager
async def world(
    tmp_path: Path, *, duties: int = 1, plain: bool = True, **options: Any
) -> AsyncIterator[World]:
    """Some duty servers and a pod for Alice, who is on the last duty server; Bob is at home.

    ``plain``: files of the first server bear no alias.
    """
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        duty = [
            await stack.enter_async_context(
                served(
                    f"duty-{n}",
                    lambda upstream, n=n: Backend(
                        f"duty-{n}", Source.DUTY, upstream, alias="" if n == 0 and plain else f"server-{n}"
                    ),
                )
            )
            for n in range(duties)
        ]
        pod = await stack.enter_async_context(
            served(
                "pod", lambda upstream: Backend("gw-alice-k3", Source.PRIVATE, upstream, alias="private-k3")
            )
        )
        backends = [server.backend for server in duty]
        routes = Routes(backends[0], lambda user: backends[-1] if user == ALICE else backends[0], backends)
        made = World(tmp_path, http, duty, pod, routes, **options)
        await made.build()
        try:
            yield made
        finally:
            await asyncio.shield(made.tasks.aclose())
