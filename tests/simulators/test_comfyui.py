"""The simulated ComfyUI as its users start it and spoil it: serving, moods, what it remembers of requests."""

import asyncio
import io
import json
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from simulators.comfyui import ComfySimulator, Mood, Served, serve
from simulators.comfyui import __main__ as program
from tests.simulators.comfy_client import (
    DEADLINE_S,
    Duty,
    saved,
    served_as,
    sleeping,
)


async def test_it_serves_below_a_prefix() -> None:
    sim = ComfySimulator()
    async with serve(sim, prefix="/pods/abc/") as served, aiohttp.ClientSession(served.url) as http:
        assert served.url == f"http://127.0.0.1:{served.port}/pods/abc/"
        duty = Duty(sim, served, http)
        assert (await duty.run(saved()))["status"]["completed"] is True
        async with duty.listen("me") as page:
            assert page.hello["type"] == "status"
        async with http.get(f"http://127.0.0.1:{served.port}/queue") as answer:
            assert answer.status == 404
        assert sim.requests[0].path == "/pods/abc/prompt"


async def test_below_another_application_its_own_body_limit_counts() -> None:
    sim = ComfySimulator()
    parent = web.Application()
    parent.add_subapp("/pod", sim.app())
    runner = web.AppRunner(parent)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        port = runner.addresses[0][1]
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}/pod/") as http:
            body = json.dumps({"prompt": saved(), "extra_data": {"padding": "x" * 3_000_000}})
            async with http.post("prompt", data=io.BytesIO(body.encode())) as answer:
                assert answer.status == 200
            assert sim.requests[0].body_bytes > 3_000_000
    finally:
        await runner.cleanup()


async def test_its_own_folder_goes_with_it_and_a_given_one_stays(tmp_path: Path) -> None:
    async for duty in served_as(ComfySimulator()):
        await duty.run(saved())
        own = duty.sim.folders
        assert (own.output / "ComfyUI_00001_.png").is_file()
    assert not own.output.exists()
    assert not own.input.exists()

    sim = ComfySimulator(output_dir=tmp_path)
    for _ in range(2):
        async for duty in served_as(sim):
            await duty.run(saved())
    assert {path.name for path in tmp_path.iterdir()} == {"ComfyUI_00001_.png", "ComfyUI_00002_.png"}


async def test_served_again_it_has_lost_its_memory_but_not_its_records() -> None:
    sim = ComfySimulator()
    async for duty in served_as(sim):
        await duty.prompt(sleeping(60), prompt_id="lost")
        port = duty.served.port
    async with serve(sim, port=port) as served, aiohttp.ClientSession(served.url) as http:
        duty = Duty(sim, served, http)
        assert await duty.get("queue") == {"queue_running": [], "queue_pending": []}
        assert [prompt["prompt_id"] for prompt in sim.accepted] == ["lost"]


async def test_alone_it_says_its_address_and_ends_on_sigterm(tmp_path: Path) -> None:
    arguments = ["-m", "simulators.comfyui", "--port", "0", "--name", "alone", "--output-dir", str(tmp_path)]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            url = (await process.stdout.readline()).decode().split()[-1]
            async with aiohttp.ClientSession(url) as http:
                duty = Duty(ComfySimulator(), Served(url, URL(url).port or 0), http)
                await duty.run(saved())
                async with duty.listen("me"):
                    process.send_signal(signal.SIGTERM)
                    assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (tmp_path / "ComfyUI_00001_.png").is_file()


def test_a_wrong_option_ends_with_2_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulators.comfyui", "--model", "x.safetensors"])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    assert "FOLDER/NAME is meant" in capsys.readouterr().err


async def test_step_s_is_the_time_that_a_node_takes(duty: Duty) -> None:
    duty.sim.mood.step_s = 60.0
    await duty.prompt(saved(), prompt_id="p")
    await duty.running("p")
    assert await duty.get("history") == {}
    duty.sim.mood.step_s = 0.0
    await duty.post("interrupt", {})
    assert (await duty.run(saved()))["status"]["completed"] is True


async def test_delay_s_holds_every_answer_back(duty: Duty) -> None:
    duty.sim.mood.delay_s = 60.0
    with pytest.raises(TimeoutError):
        async with duty.http.get("queue", timeout=aiohttp.ClientTimeout(total=0.2)):
            pytest.fail("answered")
    assert (await duty.get("_sim/mood"))["delay_s"] == 60.0


async def test_dead_by_502_answers_every_request_so(duty: Duty) -> None:
    duty.sim.mood.dead = True
    for path in ("queue", "api/history", "assets/lib/words.mjs", "unknown"):
        async with duty.http.get(path) as answer:
            assert (answer.status, answer.content_type) == (502, "text/html")
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await duty.http.ws_connect("ws")
    duty.sim.mood.dead = False
    assert await duty.get("queue")


async def test_dead_by_close_cuts_the_connection(duty: Duty) -> None:
    duty.sim.mood.change({"dead": True, "dead_by": "close"})
    with pytest.raises(aiohttp.ClientConnectionError):
        await duty.post("prompt", {"prompt": saved()})
    assert duty.sim.accepted == []


async def test_lying_answers_the_queue_with_rubbish(duty: Duty) -> None:
    duty.sim.mood.lying = True
    for path in ("queue", "api/queue"):
        assert "queue_running" not in await duty.get(path)
    assert await duty.post("queue", {"clear": True}) == 200


async def test_forget_loses_queue_history_and_the_running_prompt(duty: Duty) -> None:
    await duty.run(saved(), prompt_id="done")
    async with duty.listen("me") as page:
        await duty.prompt(sleeping(60), prompt_id="running", client_id="me")
        await duty.prompt(saved(), prompt_id="waiting", client_id="me")
        await page.until("executing", node="1")
        duty.sim.forget()
        assert await duty.get("queue") == {"queue_running": [], "queue_pending": []}
        assert await duty.get("history") == {}
        accepted = await duty.prompt(saved(), client_id="me")
        assert accepted["number"] == 0
        heard = await page.until("executing", node=None)
    assert {message["data"].get("prompt_id") for message in heard} == {None, accepted["prompt_id"]}
    entry = await duty.ended(accepted["prompt_id"])
    assert entry["outputs"]["2"]["images"][0]["filename"] == "ComfyUI_00002_.png"
    assert [prompt["prompt_id"] for prompt in duty.sim.accepted][:3] == ["done", "running", "waiting"]


async def test_dropped_sockets_end_without_a_closing_frame(duty: Duty) -> None:
    async with duty.listen("a") as a, duty.listen("b") as b:
        assert duty.sim.drop_sockets() == 2
        for page in (a, b):
            message = await page.socket.receive(timeout=DEADLINE_S)
            assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
            assert page.socket.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE
    async with duty.listen("a") as a:
        assert a.hello["type"] == "status"


async def test_moods_are_changed_from_another_process(duty: Duty) -> None:
    async with duty.listen("a") as page:
        async with duty.http.post(
            "_sim/mood", json={"dead": True, "step_s": 2, "drop_sockets": True}
        ) as answer:
            assert (await answer.json())["dead"] is True
        assert await page.next() is None
    assert duty.sim.mood == Mood(step_s=2.0, dead=True)
    assert await duty.get("_sim/mood") == {
        "step_s": 2.0,
        "delay_s": 0.0,
        "paused": False,
        "wedged": False,
        "mute": False,
        "dead": True,
        "dead_by": "502",
        "lying": False,
        "forgetful": False,
    }
    await duty.post("_sim/mood", {"dead": False, "step_s": 0, "forget": True})
    assert await duty.get("queue")


@pytest.mark.parametrize("wish", [{"deaf": True}, {"dead": "yes"}, {"step_s": -1}, {"dead_by": "fire"}])
async def test_an_unknown_mood_changes_nothing(duty: Duty, wish: dict[str, Any]) -> None:
    assert await duty.post("_sim/mood", {"lying": True, **wish}) == 400
    assert duty.sim.mood == Mood()


async def test_requests_are_kept_as_they_came(duty: Duty) -> None:
    url = URL(f"{duty.served.url}api/userdata/a%2F%41.json?overwrite=true&x=%20", encoded=True)
    async with duty.http.post(url, data=b"12345", headers=[("X-A", "1"), ("X-A", "2")]) as answer:
        assert answer.status == 200
    await duty.get("_sim/mood")
    (seen,) = await duty.get("_sim/requests")
    assert (seen["method"], seen["path"]) == ("POST", "/api/userdata/a%2F%41.json?overwrite=true&x=%20")
    assert (seen["headers"]["X-A"], seen["body_bytes"]) == ("1, 2", 5)
    assert duty.sim.requests[0].path == seen["path"]


async def test_only_the_last_500_requests_are_kept(duty: Duty) -> None:
    for number in range(501):
        async with duty.http.get(f"features?{number}"):
            pass
    assert len(duty.sim.requests) == 500
    assert duty.sim.requests[0].path == "/features?1"
