"""How a simulated ComfyUI dies, hangs, forgets and comes back, and what its folders keep."""

import asyncio
import contextlib
import socket
import threading
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from simulators.comfyui import ComfySimulator, big_file_blocks, big_file_sha256, serve
from tests.simulators.comfy_client import (
    DEADLINE_S,
    Duty,
    empty,
    eventually,
    loading,
    png,
    saved,
    served_as,
    sleeping,
)

PREVIEW = {"1": empty(), "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}


async def test_served_again_on_its_folders_it_has_the_files_and_not_the_history(tmp_path: Path) -> None:
    """main.py:178 of 0.3.64 empties temp at the start; queue and history were in memory."""
    sim = ComfySimulator(base_dir=tmp_path / "comfy")
    async for duty in served_as(sim):
        await duty.upload("a.png", png("red"))
        await duty.run(loading("a.png"))
        (temporary,) = (await duty.run(PREVIEW))["outputs"]["2"]["images"]
        assert await duty.post("settings", {"kept": 1}) == 200
    async for duty in served_as(sim):
        assert await duty.get("history") == {}
        assert await duty.picture(filename="ComfyUI_00001_.png")
        assert await duty.picture(filename="a.png", type="input")
        assert await duty.get("settings") == {"kept": 1}
        async with duty.http.get("view", params=temporary) as answer:
            assert answer.status == 404
        entry = await duty.run(loading("a.png"))
        assert entry["outputs"]["9"]["images"][0]["filename"] == "ComfyUI_00002_.png"
    assert {path.name for path in (tmp_path / "comfy").iterdir()} == {"output", "input", "temp", "user"}


async def test_a_killed_server_cuts_everything_and_comes_back_empty(duty: Duty) -> None:
    done = (await duty.run(saved()))["prompt"][1]
    (temporary,) = (await duty.run(PREVIEW))["outputs"]["2"]["images"]
    async with duty.listen("me") as page:
        await duty.prompt(sleeping(60), client_id="me", prompt_id="lost")
        await page.until("executing", node="1")
        duty.sim.mood.delay_s = 60.0
        request = asyncio.get_running_loop().create_task(duty.get("history"))
        await eventually_seen(duty, "/history")
        duty.sim.kill()
        with pytest.raises(aiohttp.ClientConnectionError):
            await request
        assert await page.next() is None
        assert page.socket.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE
    duty.sim.mood.delay_s = 0.0
    with pytest.raises(aiohttp.ClientConnectionError):
        await duty.get("queue")
    duty.sim.revive()
    assert await duty.get("queue") == {"queue_running": [], "queue_pending": []}
    assert await duty.get(f"history/{done}") == {}
    assert await duty.picture(filename="ComfyUI_00001_.png")
    async with duty.http.get("view", params=temporary) as answer:
        assert answer.status == 404


async def eventually_seen(duty: Duty, path: str) -> None:
    async def seen() -> bool:
        return any(request.path == path for request in duty.sim.requests)

    await eventually(seen)


async def test_a_restart_is_a_death_and_a_life(duty: Duty) -> None:
    await duty.run(saved())
    async with duty.listen("me") as page:
        assert await duty.post("_sim/mood", {"restart": True}) == 200
        assert await page.next() is None
    assert await duty.get("history") == {}
    assert duty.sim.mood.dead is False


async def test_a_wedged_node_cannot_be_interrupted(duty: Duty) -> None:
    duty.sim.mood.wedged = True
    # Events of a prompt without a client are told to everybody, also to the page that opens next.
    async with duty.listen("elsewhere") as page:
        await duty.prompt(saved(), prompt_id="stuck", client_id="elsewhere")
        # It stands in the queue as running before its first node does, and can still be interrupted in between.
        await page.until("executing")
    await duty.prompt(saved(1), prompt_id="behind", client_id="elsewhere")
    assert await duty.post("interrupt", {}) == 200
    async with duty.listen("me") as page:
        heard: list[Any] = []
        with pytest.raises(TimeoutError):
            await page.hear_into(heard, 0.2)
    assert heard == []
    await duty.running("stuck")
    duty.sim.mood.wedged = False
    assert (await duty.ended("stuck"))["status"]["messages"][-1][0] == "execution_interrupted"
    assert (await duty.ended("behind"))["status"]["completed"] is True


async def test_a_wedged_prompt_ends_with_the_server(duty: Duty) -> None:
    duty.sim.mood.wedged = True
    await duty.prompt(saved(), prompt_id="stuck")
    await duty.running("stuck")
    duty.sim.restart()
    duty.sim.mood.wedged = False
    assert (await duty.run(saved()))["status"]["completed"] is True
    assert list(await duty.get("history/stuck")) == []


async def test_a_mute_server_takes_connections_and_says_nothing(duty: Duty) -> None:
    async with duty.listen("me") as page:
        duty.sim.mood.paused = True
        await duty.prompt(saved(), prompt_id="p", client_id="me")
        await page.until("executing", node="1")
        duty.sim.mood.change({"mute": True, "paused": False})
        await page.socket.ping()
        with pytest.raises(TimeoutError):
            async with duty.http.get("queue", timeout=aiohttp.ClientTimeout(total=0.2)):
                pytest.fail("answered")
        heard: list[Any] = []
        with pytest.raises(TimeoutError):
            await page.hear_into(heard, 0.2)
        assert heard == []
        duty.sim.mood.mute = False
        await page.until("execution_success", prompt_id="p")


async def test_a_socket_is_ponged_unless_the_server_is_mute(duty: Duty) -> None:
    async with duty.http.ws_connect("ws", autoping=False) as socket:
        await socket.receive(timeout=DEADLINE_S)
        await socket.ping(b"1")
        assert (await socket.receive(timeout=DEADLINE_S)).type is aiohttp.WSMsgType.PONG
        duty.sim.mood.mute = True
        await socket.ping(b"2")
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=0.2)
        duty.sim.mood.mute = False
        # the one that the wait above left half read may have swallowed the pong: ask again
        await socket.ping(b"3")
        assert (await socket.receive(timeout=DEADLINE_S)).type is aiohttp.WSMsgType.PONG


@pytest.mark.parametrize(
    "path", ["queue", "api/history", "history/p", "object_info", "api/object_info/LoadImage", "prompt"]
)
async def test_a_lying_server_answers_what_nobody_asked(duty: Duty, path: str) -> None:
    duty.sim.mood.lying = True
    assert await duty.get(path) == {"status": "ok", "queue": None}


async def test_a_forgetful_server_accepts_and_never_runs(duty: Duty) -> None:
    duty.sim.mood.forgetful = True
    await duty.prompt(saved(), prompt_id="gone")
    duty.sim.mood.forgetful = False
    await duty.run(saved())
    assert await duty.get("history/gone") == {}
    assert [prompt["prompt_id"] for prompt in duty.sim.accepted][:1] == ["gone"]


async def test_one_prompt_is_forgotten_in_every_state(duty: Duty) -> None:
    await duty.run(saved(), prompt_id="done")
    async with duty.listen("me") as page:
        await duty.prompt(sleeping(60), prompt_id="running", client_id="me")
        await page.until("executing", node="1")
        await duty.prompt(saved(1), prompt_id="waiting", client_id="me")
        await duty.prompt(saved(2), prompt_id="kept", client_id="me")
        duty.sim.forget_prompt("waiting")
        duty.sim.forget_prompt("done")
        assert await duty.post("_sim/mood", {"forget_prompt": "running"}) == 200
        heard = await page.until("execution_success")
    assert list(await duty.get("history")) == ["kept"]
    ids = {message["data"].get("prompt_id") for message in heard if isinstance(message, dict)}
    assert ids <= {None, "kept"}


def big(size_bytes: int, seed: int = 0, prefix: str = "video/big") -> dict[str, Any]:
    inputs = {"size_bytes": size_bytes, "seed": seed, "filename_prefix": prefix}
    return {"1": {"class_type": "SimSaveBytes", "inputs": inputs}}


async def test_a_big_file_has_the_bytes_that_its_name_promises(duty: Duty) -> None:
    size_bytes = 3 * 1024 * 1024 + 17
    entry = await duty.run(big(size_bytes, seed=4))
    shown = entry["outputs"]["1"]
    assert shown == {
        "images": [{"filename": "big_00001_.mp4", "subfolder": "video", "type": "output"}],
        "animated": [True],
    }
    body = await duty.picture(**shown["images"][0])
    assert body == b"".join(big_file_blocks("duty", 4, size_bytes))
    async with duty.http.get("simpack/viewfile", params=shown["images"][0]) as answer:
        assert await answer.read() == body
    assert big_file_sha256("duty", 4, size_bytes) != big_file_sha256("private", 4, size_bytes)


async def test_a_big_file_can_be_interrupted_while_it_grows(duty: Duty) -> None:
    duty.sim.mood.step_s = 0.05
    await duty.prompt(big(2**40), prompt_id="big")
    folder = duty.sim.folders.output / "video"

    async def grows() -> bool:
        return any(path.stat().st_size for path in folder.glob("*")) if folder.is_dir() else False

    await eventually(grows)
    assert await duty.post("interrupt", {}) == 200
    assert (await duty.ended("big"))["status"]["messages"][-1][0] == "execution_interrupted"


async def test_its_own_folder_goes_only_when_no_thread_writes_there_any_more() -> None:
    """A cancelled upload or node leaves its thread running, which a test cannot make slow enough by itself."""
    sim, began, may_write = ComfySimulator(), threading.Event(), threading.Event()

    def write(path: Path) -> None:
        began.set()
        may_write.wait(DEADLINE_S)
        path.write_bytes(b"late")

    async with serve(sim):
        output = sim.folders.output
        writer = asyncio.ensure_future(sim.folders.write(write, output / "late.png"))
        await asyncio.to_thread(began.wait, DEADLINE_S)
        writer.cancel()
        asyncio.get_running_loop().call_later(0.2, may_write.set)
    assert may_write.is_set()
    assert not output.parent.exists()


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_accepted_while_it_stops_is_closed_too(turns: int) -> None:
    """By turns of the loop between the connection and the end; tasks begin a turn later than in other tests."""
    loop = asyncio.get_running_loop()
    factory = loop.get_task_factory()
    loop.set_task_factory(None)
    try:
        async with serve(ComfySimulator()) as served:
            client = socket.create_connection(("127.0.0.1", served.port))
            for _ in range(turns):
                await asyncio.sleep(0)
        client.settimeout(DEADLINE_S)
        with client, contextlib.suppress(ConnectionResetError):
            assert await asyncio.to_thread(client.recv, 1) == b""
    finally:
        loop.set_task_factory(factory)
