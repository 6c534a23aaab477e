"""A client of the simulated ComfyUI, and the workflows that its tests send."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from PIL import Image

from simulators.comfyui import ComfySimulator, Served, serve

DEADLINE_S = 10


@dataclass
class Duty:
    sim: ComfySimulator
    served: Served
    http: aiohttp.ClientSession

    async def get(self, path: str) -> Any:
        async with self.http.get(path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json(content_type=None)

    async def post(self, path: str, body: Any = None) -> int:
        async with self.http.post(path, json=body) as answer:
            return answer.status

    async def prompt(self, nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
        async with self.http.post("prompt", json={"prompt": nodes, **more}) as answer:
            assert answer.status == 200, await answer.text()
            accepted: dict[str, Any] = await answer.json()
            return accepted

    async def refused(self, body: Any) -> dict[str, Any]:
        async with self.http.post("prompt", json=body) as answer:
            assert answer.status == 400
            fault: dict[str, Any] = await answer.json()
            return fault

    async def ended(self, prompt_id: str) -> dict[str, Any]:
        """The prompt's entry in the history, once it has one."""
        history: dict[str, Any] = {}

        async def told() -> bool:
            history.update(await self.get(f"history/{prompt_id}"))
            return bool(history)

        await eventually(told)
        entry: dict[str, Any] = history[prompt_id]
        return entry

    async def run(self, nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
        accepted = await self.prompt(nodes, **more)
        return await self.ended(accepted["prompt_id"])

    async def running(self, prompt_id: str) -> None:
        async def runs() -> bool:
            return bool([item for item in (await self.get("queue"))["queue_running"] if item[1] == prompt_id])

        await eventually(runs)

    async def picture(self, **query: str) -> bytes:
        async with self.http.get("view", params=query) as answer:
            assert answer.status == 200
            return await answer.read()

    def listen(self, client_id: str = "") -> "Listening":
        return Listening(self.http.ws_connect(f"ws?clientId={client_id}" if client_id else "ws"))

    async def upload(self, name: str, body: bytes, route: str = "upload/image", **fields: str) -> Any:
        form = aiohttp.FormData(fields)
        form.add_field("image", body, filename=name, content_type="image/png")
        async with self.http.post(route, data=form) as answer:
            return await answer.json() if answer.status == 200 else answer.status


class Listening:
    """A socket that has its first message already."""

    def __init__(self, connecting: Any) -> None:
        self._connecting = connecting

    async def __aenter__(self) -> "Listening":
        self.socket: aiohttp.ClientWebSocketResponse = await self._connecting
        self.hello = await self.next()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.socket.close()

    async def next(self, within_s: float = DEADLINE_S) -> Any:
        """The next message: JSON, or bytes. None when the socket was closed."""
        message = await self.socket.receive(timeout=within_s)
        if message.type is aiohttp.WSMsgType.TEXT:
            return json.loads(message.data)
        return message.data if message.type is aiohttp.WSMsgType.BINARY else None

    async def until(self, kind: str, **wanted: Any) -> list[Any]:
        """Everything up to the first message of this type with this data, that one included."""
        seen = []
        while True:
            message = await self.next()
            assert message is not None, f"closed before {kind}"
            seen.append(message)
            if (
                isinstance(message, dict)
                and message["type"] == kind
                and wanted.items() <= message["data"].items()
            ):
                return seen

    async def hear_into(self, heard: list[Any], within_s: float) -> None:
        """Adds message after message. Raises TimeoutError when none came for so long."""
        while True:
            heard.append(await self.next(within_s))

    async def until_idle(self) -> list[Any]:
        return await self.until("status", status={"exec_info": {"queue_remaining": 0}})


def kinds(messages: list[Any]) -> list[str]:
    return [message["type"] if isinstance(message, dict) else "preview" for message in messages]


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Returns once the condition holds; raises TimeoutError when it does not within the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 - the server tells no one
            await asyncio.sleep(0.01)


def empty(color: int = 0, **inputs: Any) -> dict[str, Any]:
    return {
        "class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": color, **inputs},
    }


def saved(color: int = 0, prefix: str = "ComfyUI", **inputs: Any) -> dict[str, Any]:
    save = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}}
    return {"1": empty(color, **inputs), "2": save}


def sleeping(seconds: float, steps: int = 1, **inputs: Any) -> dict[str, Any]:
    return {"1": {"class_type": "SimSleep", "inputs": {"seconds": seconds, "steps": steps, **inputs}}}


def loading(name: str, *through: dict[str, Any]) -> dict[str, Any]:
    nodes = {"1": {"class_type": "LoadImage", "inputs": {"image": name}}}
    for node in through:
        last = str(len(nodes))
        nodes[str(len(nodes) + 1)] = {**node, "inputs": {**node["inputs"], "image": [last, 0]}}
    save = {
        "class_type": "SaveImage",
        "inputs": {"images": [str(len(nodes)), 0], "filename_prefix": "ComfyUI"},
    }
    return {**nodes, "9": save}


def png(color: str, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, color).save(buffer, format="PNG")
    return buffer.getvalue()


def opened(body: bytes) -> Image.Image:
    return Image.open(io.BytesIO(body))


async def served_as(sim: ComfySimulator) -> AsyncIterator[Duty]:
    async with serve(sim) as served, aiohttp.ClientSession(served.url) as http:
        yield Duty(sim, served, http)
