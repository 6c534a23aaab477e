"""One user's working day in a few seconds, step by step, and what must hold at its end."""

import asyncio
import contextlib
import io
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import aiohttp
from PIL import Image

from simulators.runpod import RunPodSimulator
from tests.e2e.world import Duty, eventually

VERDICTS = frozenset({"execution_success", "execution_error", "execution_interrupted"})
BUSY = frozenset({429, 502, 503, 504})
"""What a client repeats: nothing is promised of such a request."""


class Step(StrEnum):
    """What can happen next."""

    PROMPT = "a prompt"
    SLOW = "a prompt that takes a while"
    BURST = "five prompts at once"
    UPLOAD = "an upload under one of two names"
    LOAD = "a prompt that loads an upload"
    TAB = "one more tab"
    RECONNECT = "a tab loses its socket and comes back"
    LOOK = "history and all its pictures"
    PRIVATE = "wait for the private pod, if one is coming"
    LINGER = "wait until the pod is idle and gone"
    KILL_POD = "the pod vanishes"
    CRASH_POD = "ComfyUI in the pod is started again"
    RESTART_DUTY = "the shared server is started again"


@dataclass
class Tab:
    """A page, or a script: one socket id and everything that it has heard."""

    client_id: str
    events: list[dict[str, Any]] = field(default_factory=list)
    socket: aiohttp.ClientWebSocketResponse | None = None
    reading: asyncio.Task[None] | None = None
    is_leaving: bool = False
    was_cut: str = ""

    async def open(self, http: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> None:
        self.is_leaving = False
        self.socket = await http.ws_connect(f"{url}/ws?clientId={self.client_id}", headers=headers)
        self.reading = asyncio.get_running_loop().create_task(self._read(self.socket))

    async def close(self) -> None:
        self.is_leaving = True
        if self.socket is not None:
            await self.socket.close()
        if self.reading is not None:
            await self.reading

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                self.events.append(json.loads(message.data))
        if not self.is_leaving:
            self.was_cut = f"with {socket.close_code}"

    def verdicts(self, prompt_id: str) -> list[str]:
        return [
            event["type"]
            for event in self.events
            if event["type"] in VERDICTS and event["data"].get("prompt_id") == prompt_id
        ]


@dataclass(frozen=True)
class Reply:
    """An answer, read."""

    status: int
    ready: str | None
    """X-Comfy-Session-Ready."""
    body: bytes


@dataclass
class Promised:
    """A prompt that was accepted."""

    colour: int
    tab: Tab
    body: dict[str, Any]


@dataclass
class Stage:
    """What all users of one example share."""

    http: aiohttp.ClientSession
    url: str
    duty: Duty
    cloud: RunPodSimulator
    duty_restarts: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass
class Actor:
    """One user."""

    stage: Stage
    name: str
    tabs: list[Tab] = field(default_factory=list)
    promised: dict[str, Promised] = field(default_factory=dict)
    uploads: dict[str, int] = field(default_factory=dict)
    """Colour by the name to load."""
    pods_killed: int = 0
    _colours: int = 0

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Comfy-User": self.name}

    async def play(self, steps: list[Step]) -> None:
        """All steps, then everything that was promised."""
        async with self._at_work():
            for step in steps:
                await self._do(step)
            await self._all_ended()
            await self._look(is_end=True)
            for tab in self.tabs:
                assert not tab.was_cut, f"{self.name}: a socket that read was closed {tab.was_cut}"

    @asynccontextmanager
    async def _at_work(self) -> AsyncIterator[None]:
        await self._open_tab()
        try:
            yield
        finally:
            for tab in self.tabs:
                await tab.close()

    async def _do(self, step: Step) -> None:
        acts: dict[Step, Callable[[], Awaitable[None]]] = {
            Step.PROMPT: self._prompt,
            Step.SLOW: lambda: self._prompt(sleep_s=0.4),
            Step.BURST: self._burst,
            Step.UPLOAD: self._upload,
            Step.LOAD: self._load,
            Step.TAB: self._open_tab,
            Step.RECONNECT: self._reconnect,
            Step.LOOK: self._look,
            Step.PRIVATE: self._wait_for_pod,
            Step.LINGER: self._linger,
            Step.KILL_POD: self._kill_pod,
            Step.CRASH_POD: self._crash_pod,
            Step.RESTART_DUTY: self._restart_duty,
        }
        await acts[step]()

    # -- steps

    async def _prompt(self, *, sleep_s: float = 0.0) -> None:
        colour = self._new_colour()
        source = {
            "class_type": "EmptyImage",
            "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": colour},
        }
        await self._submit(source, colour, sleep_s)

    async def _burst(self) -> None:
        await asyncio.gather(*(self._prompt(sleep_s=0.1) for _ in range(5)))

    async def _upload(self) -> None:
        colour = self._new_colour()
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), (colour >> 16 & 255, colour >> 8 & 255, colour & 255)).save(buffer, "PNG")
        wanted = f"{self.name}-{colour % 2}.png"

        async def send() -> Reply:
            form = aiohttp.FormData()
            form.add_field("image", buffer.getvalue(), filename=wanted, content_type="image/png")
            return await self._ask("POST", "/upload/image", data=form)

        answer = await self._insist(send, "the upload")
        self.uploads[answer["name"]] = colour

    async def _load(self) -> None:
        for name, colour in list(self.uploads.items())[-1:]:
            await self._submit({"class_type": "LoadImage", "inputs": {"image": name}}, colour, 0.0)

    async def _open_tab(self) -> None:
        if len(self.tabs) < 3:
            tab = Tab(f"{self.name}-tab-{len(self.tabs)}")
            await self._connect(tab)
            self.tabs.append(tab)

    async def _reconnect(self) -> None:
        await self.tabs[-1].close()
        await self._connect(self.tabs[-1])

    async def _connect(self, tab: Tab) -> None:
        async def is_open() -> bool:
            with contextlib.suppress(aiohttp.WSServerHandshakeError):  # its server is just down
                await tab.open(self.stage.http, self.stage.url, self.headers)
                return True
            return False

        await eventually(is_open, f"{self.name} opens a socket")

    async def _wait_for_pod(self) -> None:
        """There is none to come where no burst was; a pod that was killed is not waited for either."""
        with contextlib.suppress(AssertionError):
            await eventually(self._is_private, f"{self.name} has a pod", within_s=3)

    async def _linger(self) -> None:
        await self._all_ended()
        await self._wait_for_duty()

    async def _wait_for_duty(self) -> None:
        async def is_on_duty() -> bool:
            return not await self._is_private()

        await eventually(is_on_duty, f"{self.name} is on duty again", within_s=30)

    async def _kill_pod(self) -> None:
        for pod in self.stage.cloud.living():
            if f"-{self.name}-" in pod.name.replace("comfy-gw-", "-", 1) or self.name in pod.name:
                self.pods_killed += 1
                self.stage.cloud.vanish(pod.id)

    async def _crash_pod(self) -> None:
        for pod in self.stage.cloud.living():
            if self.name in pod.name and pod.comfy.accepted:
                self.pods_killed += 1
                pod.comfy.restart()

    async def _restart_duty(self) -> None:
        self.stage.duty_restarts += 1
        self.stage.duty.sim.restart()

    # -- what must hold

    async def _all_ended(self) -> None:
        def open_ones() -> list[str]:
            return [id_ for id_, one in self.promised.items() if not one.tab.verdicts(id_)]

        try:
            await eventually(lambda: not open_ones(), "all prompts have ended", within_s=45)
        except AssertionError:
            told = {id_: self.promised[id_].tab.events[-5:] for id_ in open_ones()}
            raise AssertionError(f"{self.name}: without an ending: {told}") from None

    async def _look(self, *, is_end: bool = False) -> None:
        if not is_end:
            await self._check_history(may_be_gone=bool(self.pods_killed))
            return
        if self.pods_killed:
            await self._wait_until_known()
        await self._check_history()
        for prompt_id, one in self.promised.items():
            verdicts = one.tab.verdicts(prompt_id)
            assert len(verdicts) == 1, f"{self.name}: {prompt_id} ended as {verdicts}"
            if verdicts != ["execution_success"]:
                # Only who lost their server twice may hear of an error.
                assert self.pods_killed + self.stage.duty_restarts >= 2, verdicts
        done = [id_ for id_, one in self.promised.items() if one.tab.verdicts(id_) == ["execution_success"]]
        history = await self._history_with(done)
        for prompt_id in done:
            pictures = await self._check_pictures(prompt_id, history[prompt_id])
            # What a pod took with it when it was killed is not listed; else everything is.
            assert pictures == 1 or (pictures == 0 and self.pods_killed), f"{prompt_id} lists {pictures}"

    async def _wait_until_known(self) -> None:
        """Until the gateway knows that a pod is dead it lists what the pod had."""

        said = ""

        async def is_known() -> bool:
            nonlocal said
            try:
                await self._check_history()
            except AssertionError as error:
                said = str(error)
                return False
            return True

        try:
            await eventually(is_known, "a dead pod is known to be dead", within_s=20)
        except AssertionError:
            raise AssertionError(f"{self.name}: its dead pod is not known to be dead: {said}") from None

    async def _check_history(self, *, may_be_gone: bool = False) -> None:
        history = await self._insist(lambda: self._get("/history"), "the history")
        for prompt_id, entry in history.items():
            if prompt_id in self.promised:
                await self._check_pictures(prompt_id, entry, may_be_gone=may_be_gone)

    async def _history_with(self, prompt_ids: list[str]) -> dict[str, Any]:
        history: dict[str, Any] = {}

        async def has_all() -> bool:
            nonlocal history
            history = await self._insist(lambda: self._get("/history"), "the history")
            return set(prompt_ids) <= set(history)

        await eventually(has_all, f"{self.name}'s history lists {len(prompt_ids)} prompts that were done")
        numbers = [history[prompt_id]["prompt"][0] for prompt_id in prompt_ids]
        assert len(set(numbers)) == len(numbers), f"{self.name}: two prompts of one number: {sorted(numbers)}"
        return history

    async def _check_pictures(
        self, prompt_id: str, entry: dict[str, Any], *, may_be_gone: bool = False
    ) -> int:
        count = 0
        for output in entry["outputs"].values():
            for image in output.get("images", ()):
                count += 1
                query = {key: image[key] for key in ("filename", "subfolder", "type")}
                answer = await self._get("/view", **query)
                if answer.status in {404, 502} and may_be_gone:
                    continue
                assert answer.status == 200, (
                    f"{self.name}: {query} of {prompt_id} is {answer.status}: {answer.body[:500]!r}"
                )
                with Image.open(io.BytesIO(answer.body)) as picture:
                    pixel = picture.convert("RGB").getpixel((24, 24))
                assert isinstance(pixel, tuple)
                red, green, blue = (int(part) for part in pixel)
                found, wanted = red << 16 | green << 8 | blue, self.promised[prompt_id].colour
                assert found == wanted, (
                    f"{self.name}: {query} of {prompt_id} is {found:06x}, not {wanted:06x}"
                )
        return count

    # -- requests

    def _new_colour(self) -> int:
        """One that no other picture of any user has: an execution cache must not answer for another prompt."""
        self._colours += 1
        return int.from_bytes(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.name}/{self._colours}").bytes[:3])

    async def _submit(self, source: dict[str, Any], colour: int, sleep_s: float) -> None:
        tab = self.tabs[self._colours % len(self.tabs)]
        nodes: dict[str, Any] = {
            "1": source,
            "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "ComfyUI"}},
        }
        if sleep_s:
            nodes["2"] = {
                "class_type": "SimSleep",
                "inputs": {"image": ["1", 0], "seconds": sleep_s, "steps": 2},
            }
            nodes["9"]["inputs"]["images"] = ["2", 0]
        prompt_id = str(uuid.uuid4())
        body = {"prompt": nodes, "client_id": tab.client_id, "prompt_id": prompt_id}
        answer = await self._insist(
            lambda: self._ask("POST", "/prompt", json=body),
            f"prompt {prompt_id}",
        )
        assert answer["prompt_id"] == prompt_id
        self.promised[prompt_id] = Promised(colour, tab, body)

    async def _is_private(self) -> bool:
        answer = await self._get("/system_stats")
        return answer.ready == "1"

    async def _get(self, path: str, **query: str) -> Reply:
        return await self._ask("GET", path, params=query)

    async def _ask(self, method: str, path: str, **more: Any) -> Reply:
        url = f"{self.stage.url}{path}"
        async with self.stage.http.request(method, url, headers=self.headers, **more) as answer:
            return Reply(answer.status, answer.headers.get("X-Comfy-Session-Ready"), await answer.read())

    async def _insist(self, send: Callable[[], Awaitable[Reply]], what: str) -> Any:
        """Repeat a request for as long as its server is down, as a patient client does."""
        said: Any = None

        async def is_answered() -> bool:
            nonlocal said
            answer = await send()
            if answer.status in BUSY:
                return False
            assert answer.status == 200, f"{self.name}: {what}: {answer.status} {answer.body[:500]!r}"
            said = json.loads(answer.body)
            return True

        await eventually(is_answered, f"{self.name}: {what} is answered", within_s=30)
        return said
