"""What end-to-end tests meet: servers, and a user who works with them through the gateway."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from simulators.comfyui import ComfySimulator


@dataclass
class Duty:
    """A simulated ComfyUI and its address (with a slash at its end)."""

    sim: ComfySimulator
    url: str


async def eventually(
    condition: Callable[[], Awaitable[bool] | bool], what: str, *, within_s: float = 20.0
) -> None:
    """Return once the condition holds; fail with ``what`` when it does not in time."""
    deadline_s = time.monotonic() + within_s
    while True:
        held = condition()
        if not isinstance(held, bool):
            held = await held
        if held:
            return
        assert time.monotonic() < deadline_s, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.02)


def picture(seed: int = 0, *, sleep_s: float = 0.0, steps: int = 4) -> dict[str, Any]:
    """A workflow that makes one picture, after so many seconds when asked."""
    nodes: dict[str, Any] = {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": seed},
        },
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "ComfyUI"}},
    }
    if sleep_s:
        nodes["2"] = {
            "class_type": "SimSleep",
            "inputs": {"image": ["1", 0], "seconds": sleep_s, "steps": steps},
        }
        nodes["9"]["inputs"]["images"] = ["2", 0]
    return nodes


@dataclass
class Person:
    """One user of the gateway, known by header unless told otherwise."""

    http: aiohttp.ClientSession
    url: str
    name: str | None = "alice"
    client_id: str | None = None
    answers: list[aiohttp.ClientResponse] = field(default_factory=list)

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.name is None else {"X-Comfy-User": self.name}

    async def prompt(self, nodes: dict[str, Any] | None = None) -> aiohttp.ClientResponse:
        """Submit a workflow; the answer is read."""
        body: dict[str, Any] = {"prompt": nodes or picture(len(self.answers))}
        if self.client_id is not None:
            body["client_id"] = self.client_id
        async with self.http.post(f"{self.url}/prompt", json=body, headers=self.headers) as answer:
            await answer.read()
            self.answers.append(answer)
            return answer

    async def get(self, path: str, **headers: str) -> aiohttp.ClientResponse:
        """GET, with the body read."""
        async with self.http.get(f"{self.url}{path}", headers=self.headers | headers) as answer:
            await answer.read()
            return answer

    async def is_ready(self) -> bool:
        """Whether the gateway says that the session is on a private pod."""
        return (await self.get("/system_stats")).headers["X-Comfy-Session-Ready"] == "1"

    @asynccontextmanager
    async def socket(self) -> AsyncIterator["Events"]:
        """The person's open WebSocket."""
        query = "" if self.client_id is None else f"?clientId={self.client_id}"
        async with self.http.ws_connect(f"{self.url}/ws{query}", headers=self.headers) as socket:
            yield Events(socket)


@dataclass
class Events:
    """Messages of one socket, kept in order."""

    socket: aiohttp.ClientWebSocketResponse
    seen: list[dict[str, Any]] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)

    async def until(
        self, condition: Callable[[dict[str, Any]], bool], what: str, *, within_s: float = 20.0
    ) -> dict[str, Any]:
        """Read on to the first message that fits."""
        try:
            async with asyncio.timeout(within_s):
                while True:
                    message = await self.socket.receive()
                    if message.type is aiohttp.WSMsgType.TEXT:
                        event: dict[str, Any] = json.loads(message.data)
                        self.seen.append(event)
                        if condition(event):
                            return event
                    elif message.type is aiohttp.WSMsgType.BINARY:
                        self.previews.append(message.data)
                    else:
                        raise AssertionError(f"the socket ended ({message.type.name}) before: {what}")
        except TimeoutError:
            kinds = [event["type"] for event in self.seen]
            raise AssertionError(f"not within {within_s} s: {what}; seen {kinds}") from None

    def told(self, prompt_id: str) -> list[tuple[str, Any]]:
        """Kind and node, or value, of what was said about a prompt, in order; without ``progress_state``, which says
        the same as the others.
        """
        about = [event for event in self.seen if event["data"].get("prompt_id") == prompt_id]
        return [
            (event["type"], event["data"].get("value", event["data"].get("node")))
            for event in about
            if event["type"] != "progress_state"
        ]

    async def ended(self, prompt_id: str, *, within_s: float = 20.0) -> str:
        """Wait for the ending of a prompt; returns its type."""
        endings = {"execution_success", "execution_error", "execution_interrupted"}
        event = await self.until(
            lambda event: event["type"] in endings and event["data"].get("prompt_id") == prompt_id,
            f"the ending of {prompt_id}",
            within_s=within_s,
        )
        return str(event["type"])
