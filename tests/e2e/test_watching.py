"""mitmweb in front of a shared server: what people who look at the traffic see."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.conditions import wait_for
from tests.e2e.gateway_process import GatewayProcess, mitmdump, running_gateway
from tests.e2e.world import Duty, Person, picture

PASSWORD = "w" * 20


@asynccontextmanager
async def watching(
    duty: Duty, tmp_path: Path, confdir: Path, port: int, **settings: str
) -> AsyncIterator[GatewayProcess]:
    """A gateway in mitmweb, whose pages are on ``port``."""
    command = mitmdump(
        "--set", "web_open_browser=false", "--set", f"web_port={port}", "--set", f"web_password={PASSWORD}",
        confdir=confdir,
    )  # fmt: skip
    command[0] = str(Path(sys.executable).with_name("mitmweb"))
    of_mitmdump = command.index("flow_detail=0")
    del command[of_mitmdump - 1 : of_mitmdump + 1]
    async with running_gateway(
        {"DUTY_POD_URL": duty.url, **settings}, state_dir=tmp_path, confdir=confdir, command=command
    ) as gateway:
        yield gateway


class Watcher:
    """Somebody who looks."""

    def __init__(self, http: aiohttp.ClientSession, port: int) -> None:
        self._http, self._url = http, f"http://127.0.0.1:{port}"

    async def get(self, path: str) -> Any:
        """JSON of mitmweb's own pages."""
        headers = {"Authorization": f"Bearer {PASSWORD}"}
        async with self._http.get(f"{self._url}{path}", headers=headers) as answer:
            assert answer.status == 200, (path, answer.status)
            return json.loads(await answer.read())

    async def flow(self, path: str) -> dict[str, Any]:
        """The flow whose path ends so, when it has an answer."""

        async def found() -> dict[str, Any]:
            flows = await self.get("/flows")
            return next(
                (one for one in flows if one["request"]["path"].endswith(path) and one.get("response")), {}
            )

        return await wait_for(found, f"the flow of {path}")

    async def text(self, flow: dict[str, Any], message: str) -> tuple[str, str]:
        """The view that mitmweb chooses, and its text."""
        told = await self.get(f"/flows/{flow['id']}/{message}/content/auto")
        return told["view_name"], told["text"]


async def test_each_flow_says_who_and_where_and_is_shown_in_words(
    duty: Duty, http: aiohttp.ClientSession, tmp_path: Path, confdir: Path, free_port: int
) -> None:
    async with watching(duty, tmp_path, confdir, free_port) as gateway:
        watcher, alice = Watcher(http, free_port), Person(http, gateway.url, "alice", client_id="tab")
        async with alice.socket() as events:
            answer = await alice.prompt(picture())
            prompt_id = (await answer.json())["prompt_id"]
            assert await events.ended(prompt_id) == "execution_success"
            flow = await watcher.flow("/prompt")
            assert flow["comment"].startswith("named:alice -> duty")
            assert flow["marked"] == "\N{HOUSE BUILDING}"
            name, text = await watcher.text(flow, "request")
            assert name == "ComfyUI prompt"
            assert "sizes: 32x32" in text.splitlines()
            assert "9 SaveImage  filename_prefix=ComfyUI" in text.splitlines()
            await alice.get("/history")
            name, text = await watcher.text(await watcher.flow("/history"), "response")
            assert name == "ComfyUI list"
            assert prompt_id in text
            socket = next(one for one in await watcher.get("/flows") if one.get("websocket"))
            frames = await watcher.get(f"/flows/{socket['id']}/messages/content/auto")
            assert {one["view_name"] for one in frames} == {"ComfyUI frame"}
            assert any(one["text"].startswith("execution_success") for one in frames)
        async with http.get(f"http://127.0.0.1:{free_port}/flows") as stranger:
            assert stranger.status == 403


async def test_old_flows_go_when_there_are_too_many(
    duty: Duty, http: aiohttp.ClientSession, tmp_path: Path, confdir: Path, free_port: int
) -> None:
    async with watching(duty, tmp_path, confdir, free_port, GATEWAY_WATCH_MB="1") as gateway:
        watcher, alice = Watcher(http, free_port), Person(http, gateway.url, "alice")
        for number in range(150):
            await alice.get(f"/system_stats?number={number}")
        await watcher.flow("/system_stats?number=149")
        paths = [one["request"]["path"] for one in await watcher.get("/flows")]
        # 1 MB, and about 10 KB each: some hundred.
        assert 60 < len(paths) < 110
        assert paths == [f"/system_stats?number={number}" for number in range(150 - len(paths), 150)]
        assert "Removed" not in gateway.log
