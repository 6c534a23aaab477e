"""What is done to a ComfyUI while it is recorded: calls of its API, one socket, one page load."""

import asyncio
import io
import json
import struct
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
from yarl import URL

from tests.e2e.browser import chromium

USER: Final = "recorder"
SID: Final = "c0ffee00c0ffee00c0ffee00c0ffee00"
FOLDER: Final = "gateway-recording"
"""Where pictures and notes of a recording lie in that ComfyUI."""
RUN_WITHIN_S: Final = 120.0


def graph(colour: int) -> dict[str, Any]:
    """EmptyImage -> SaveImage."""
    size = {"width": 8, "height": 8, "batch_size": 1}
    prefix = f"{FOLDER}/picture"
    return {
        "1": {"class_type": "EmptyImage", "inputs": {**size, "color": colour}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def _png() -> bytes:
    """One black pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixel = zlib.compress(b"\0\0")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


class Client:
    """Somebody with a name who talks to ComfyUI through the gateway."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def call(self, path: str, method: str = "GET", **more: Any) -> bytes:
        """One request; any status is fine."""
        url = URL(self._url + path, encoded=True)
        async with self._http.request(method, url, headers={"X-Comfy-User": USER}, **more) as response:
            return await response.read()

    async def prompt(self, colour: int, **more: Any) -> str:
        """Submit a picture; returns the prompt's id."""
        answer = await self.call("/prompt", "POST", json={"prompt": graph(colour), **more})
        prompt_id: str = json.loads(answer)["prompt_id"]
        return prompt_id

    async def outputs(self, prompt_id: str) -> dict[str, Any]:
        """What the prompt made, once it is done."""
        async with asyncio.timeout(RUN_WITHIN_S):
            while not (found := json.loads(await self.call(f"/history/{prompt_id}"))):  # noqa: ASYNC110 - as scripts do
                await asyncio.sleep(0.2)
        outputs: dict[str, Any] = found[prompt_id]["outputs"]
        return outputs

    def socket(self) -> Any:
        """The events of our prompts."""
        return self._http.ws_connect(f"{self._url}/ws?clientId={SID}", headers={"X-Comfy-User": USER})


async def api(client: Client, _url: str, _chromium: Path) -> None:
    """Calls of each kind. What they leave on the server they take away again, but for one picture."""
    for path in ("/system_stats", "/api/queue", "/prompt", "/object_info/EmptyImage", "/api/embeddings"):
        await client.call(path)
    for path in ("/models", "/api/users", "/settings", "/extensions"):
        await client.call(path)

    form = aiohttp.FormData(quote_fields=False)
    form.add_field("image", io.BytesIO(_png()), filename="gateway recording.png", content_type="image/png")
    form.add_field("subfolder", FOLDER)
    form.add_field("overwrite", "true")
    await client.call("/upload/image", "POST", data=form)
    await client.call(f"/view?filename=gateway%20recording.png&type=input&subfolder={FOLDER}")

    note = f"/api/userdata/{FOLDER}%2Fa%20note%2B1.json"
    await client.call(f"{note}?overwrite=true&full_info=true", "POST", data=b'{"note": 1}')
    await client.call(note)
    await client.call(f"/userdata?dir={FOLDER}&recurse=true")
    await client.call(note, "DELETE")

    secrets = {"api_key_comfy_org": "never-to-be-kept", "auth_token_comfy_org": "never-to-be-kept"}
    prompt_id = await client.prompt(_colour(), client_id=SID, extra_data=secrets)
    for files in (await client.outputs(prompt_id)).values():
        for file in files["images"]:
            await client.call(str(URL("/view").with_query(file)))
    await client.call("/prompt", "POST", json={"prompt": {"1": {"class_type": "NoSuchNode", "inputs": {}}}})
    await client.call("/interrupt", "POST", json={})
    await client.call("/queue", "POST", json={"delete": [prompt_id]})
    await client.call("/history", "POST", json={"delete": [prompt_id]})
    await client.call("/free", "POST", json={})


async def socket(client: Client, _url: str, _chromium: Path) -> None:
    """One conversation: feature flags, a picture, and the same picture again, which is cached."""
    async with client.socket() as events:
        await events.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        colour = _colour()
        for _ in range(2):
            prompt_id = await client.prompt(colour, client_id=SID)
            async with asyncio.timeout(RUN_WITHIN_S):
                while not _is_end(await events.receive(), prompt_id):
                    pass


async def page(_client: Client, url: str, program: Path) -> None:
    """The front end, loaded by a browser that has never seen it, until its socket is open and it rests."""
    async with chromium(program) as browser:
        context = await browser.new_context()
        opened = await context.new_page()
        is_connected = asyncio.Event()
        opened.on("websocket", lambda _socket: is_connected.set())
        await opened.goto(f"{url}/?user_id={USER}", wait_until="load", timeout=120_000)
        await opened.wait_for_function("() => window.app?.graph !== undefined", timeout=120_000)
        async with asyncio.timeout(60):
            await is_connected.wait()
        await opened.wait_for_load_state("networkidle", timeout=60_000)
        await context.close()


SCENES: Final[dict[str, Callable[[Client, str, Path], Awaitable[None]]]] = {
    "api": api,
    "socket": socket,
    "page": page,
}


def _colour() -> int:
    """Another one each time: a picture that ComfyUI has made before is not made again."""
    return time.time_ns() % 0xFFFFFF


def _is_end(message: aiohttp.WSMessage, prompt_id: str) -> bool:
    if message.type is not aiohttp.WSMsgType.TEXT:
        assert message.type is aiohttp.WSMsgType.BINARY, f"the socket ended: {message.type.name}"
        return False
    event = json.loads(message.data)
    return (
        event["type"] == "executing"
        and event["data"].get("node") is None
        and event["data"].get("prompt_id") == prompt_id
    )
