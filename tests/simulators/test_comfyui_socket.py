"""The socket of the simulated ComfyUI: who hears what, and the habits that a proxy must live with."""

import asyncio
import io
import json
import os
import socket
import struct
from typing import Any

import pytest
from PIL import Image

from tests.simulators.comfy_client import (
    Duty,
    empty,
    eventually,
    kinds,
    loading,
    opened,
    saved,
    sleeping,
)

STARVED_S = 0.5


async def test_a_socket_without_an_id_is_given_one(duty: Duty) -> None:
    async with duty.listen() as page:
        assert page.hello["type"] == "status"
        assert page.hello["data"]["status"] == {"exec_info": {"queue_remaining": 0}}
        assert len(page.hello["data"]["sid"]) == 32
        await duty.prompt(saved(), client_id=page.hello["data"]["sid"])
        assert kinds(await page.until("executed"))[-1] == "executed"
    async with duty.listen("mine") as script:
        assert script.hello["data"]["sid"] == "mine"


async def test_the_server_answers_feature_flags_in_the_first_message_only(duty: Duty) -> None:
    async with duty.listen("me") as page:
        await page.socket.send_json({"type": "feature_flags", "data": {}})
        await page.socket.send_json({"type": "feature_flags", "data": {}})
        assert (await page.until("feature_flags"))[-1]["data"]["supports_preview_metadata"] is True
        await duty.prompt(saved())
        assert "feature_flags" not in kinds(await page.until_idle())


async def test_the_owner_hears_of_a_prompt_in_order(duty: Duty) -> None:
    async with duty.listen("me") as page:
        prompt_id = (await duty.prompt(saved(), client_id="me"))["prompt_id"]
        heard = await page.until("executing", node=None, prompt_id=prompt_id)
    assert kinds(heard) == [
        *["status"] * 2,
        "execution_start",
        "execution_cached",
        *["progress_state", "executing", "progress_state"],
        *["progress_state", "executing", "executed", "progress_state"],
        "execution_success",
        "status",
        "executing",
    ]
    (executed,) = [message["data"] for message in heard if message["type"] == "executed"]
    assert executed == {
        "node": "2",
        "display_node": "2",
        "output": {"images": [{"filename": "ComfyUI_00001_.png", "subfolder": "", "type": "output"}]},
        "prompt_id": prompt_id,
    }
    assert heard[0]["data"] == {"status": {"exec_info": {"queue_remaining": 1}}}


async def test_others_hear_only_of_the_queue(duty: Duty) -> None:
    async with duty.listen("me") as mine, duty.listen("other") as other:
        await duty.prompt(sleeping(0, steps=2), extra_data={"client_id": "me"})
        assert "executed" not in kinds(await mine.until("execution_success"))
        assert set(kinds(await other.until_idle())) == {"status"}


async def test_without_a_client_id_everybody_hears_progress_and_previews(duty: Duty) -> None:
    async with duty.listen("a") as a, duty.listen("b") as b:
        await duty.prompt({**sleeping(0, steps=2), "2": saved()["2"]})
        for page in (a, b):
            assert set(kinds(await page.until_idle())) == {"status", "progress_state", "progress", "preview"}


async def test_previews_come_in_the_old_form_by_default(duty: Duty) -> None:
    async with duty.listen("me") as page:
        await duty.prompt(sleeping(0), client_id="me")
        heard = await page.until("execution_success")
    (frame,) = [message for message in heard if isinstance(message, bytes)]
    assert struct.unpack(">II", frame[:8]) == (1, 1)
    assert opened(frame[8:]).format == "JPEG"
    assert kinds(heard).index("progress") + 1 == kinds(heard).index("preview")


async def test_previews_come_with_metadata_to_a_client_that_asked_for_it(duty: Duty) -> None:
    async with duty.listen("me") as page:
        await page.socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        await page.until("feature_flags")
        await duty.prompt(sleeping(0), client_id="me", prompt_id="p")
        heard = await page.until("execution_success")
    (frame,) = [message for message in heard if isinstance(message, bytes)]
    event, length = struct.unpack(">II", frame[:8])
    metadata = json.loads(frame[8 : 8 + length])
    assert (event, metadata["prompt_id"], metadata["node_id"]) == (4, "p", "1")
    assert metadata["image_type"] == "image/jpeg"
    assert opened(frame[8 + length :]).format == "JPEG"


async def test_progress_names_step_node_and_prompt(duty: Duty) -> None:
    async with duty.listen("me") as page:
        await duty.prompt(sleeping(0, steps=3), client_id="me", prompt_id="p")
        heard = await page.until("execution_success")
    told = [
        message["data"] for message in heard if isinstance(message, dict) and message["type"] == "progress"
    ]
    assert told == [{"value": step, "max": 3, "prompt_id": "p", "node": "1"} for step in (1, 2, 3)]
    states = [
        message["data"]
        for message in heard
        if isinstance(message, dict) and message["type"] == "progress_state"
    ]
    assert states[-1]["nodes"]["1"]["state"] == "finished"
    assert states[1]["nodes"]["1"]["value"] == 1


async def test_an_unchanged_prompt_is_answered_with_the_earlier_file(duty: Duty) -> None:
    await duty.run(saved(), client_id="somebody")
    async with duty.listen("me") as page:
        prompt_id = (await duty.prompt(saved(), client_id="me"))["prompt_id"]
        heard = await page.until("executing", node=None)
    (cached,) = [message["data"]["nodes"] for message in heard if message["type"] == "execution_cached"]
    assert cached == ["1", "2"]
    (executed,) = [message["data"] for message in heard if message["type"] == "executed"]
    image = {"filename": "ComfyUI_00001_.png", "subfolder": "", "type": "output"}
    assert (executed["output"], executed["prompt_id"]) == ({"images": [image]}, prompt_id)
    assert (await duty.ended(prompt_id))["outputs"] == {"2": {"images": [image]}}
    assert await duty.get("internal/files/output") == ["ComfyUI_00001_.png"]


async def test_the_cache_knows_only_the_previous_prompt(duty: Duty) -> None:
    for color in (1, 2, 1):
        entry = await duty.run(saved(color))
    assert entry["outputs"]["2"]["images"][0]["filename"] == "ComfyUI_00003_.png"


async def test_a_changed_node_runs_again_and_those_before_it_do_not(duty: Duty) -> None:
    await duty.run(saved(prefix="a"))
    async with duty.listen("me") as page:
        await duty.prompt(saved(prefix="b"), client_id="me")
        heard = await page.until("executing", node=None)
    assert [message["data"]["node"] for message in heard if message["type"] == "executing"] == ["2", None]
    (cached,) = [message["data"]["nodes"] for message in heard if message["type"] == "execution_cached"]
    assert cached == ["1"]


async def test_an_output_runs_as_soon_as_it_can(duty: Duty) -> None:
    save = {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "ComfyUI"}}
    nodes = {"1": empty(1), "2": empty(2), "3": saved()["2"], "4": save}
    async with duty.listen("me") as page:
        await duty.prompt(nodes, client_id="me")
        heard = await page.until("executing", node=None)
    order = [message["data"]["node"] for message in heard if message["type"] == "executing"]
    assert order in (["1", "3", "2", "4", None], ["2", "4", "1", "3", None])


async def test_errors_and_interruptions_reach_the_owner(duty: Duty) -> None:
    async with duty.listen("me") as page:
        await duty.prompt({"1": {"class_type": "SimFail", "inputs": {"message": "boom"}}}, client_id="me")
        error = (await page.until("execution_error"))[-1]["data"]
        assert (error["node_id"], error["node_type"], error["exception_message"]) == (
            "1",
            "SimFail",
            "boom\n",
        )
        await page.until("executing", node=None)
        await duty.prompt(sleeping(60), client_id="me", prompt_id="p")
        await page.until("executing", node="1")
        await duty.post("interrupt")
        interrupted = (await page.until("execution_interrupted"))[-1]["data"]
        assert (interrupted["prompt_id"], interrupted["node_id"]) == ("p", "1")
        await page.until("executing", node=None)


async def test_an_interruption_without_a_client_id_reaches_everybody(duty: Duty) -> None:
    async with duty.listen("a") as a, duty.listen("b") as b:
        await duty.prompt(sleeping(60), prompt_id="p")
        await duty.running("p")
        await duty.post("interrupt")
        for page in (a, b):
            assert (await page.until("execution_interrupted"))[-1]["data"]["prompt_id"] == "p"


async def test_a_socket_that_comes_back_is_told_the_running_node(duty: Duty) -> None:
    duty.sim.mood.paused = True
    async with duty.listen("me") as page:
        await duty.prompt(saved(), client_id="me")
        await page.until("executing", node="1")
    async with duty.listen("other") as other, duty.listen("me") as page:
        assert await page.next() == {"type": "executing", "data": {"node": "1"}}
        duty.sim.mood.paused = False
        await page.until("execution_success")
        assert set(kinds(await other.until_idle())) == {"status"}


async def test_closing_the_older_of_two_sockets_with_one_id_silences_the_newer(duty: Duty) -> None:
    older = await duty.http.ws_connect("ws?clientId=me")
    async with duty.listen("me") as newer, duty.listen("other") as witness:
        await duty.prompt(saved(1), client_id="me", prompt_id="before")
        await newer.until("executing", node=None, prompt_id="before")
        await older.close()

        async def handler_ended() -> bool:
            return duty.sim.open_sockets == 2

        await eventually(handler_ended)
        await duty.run(saved(2), client_id="me")
        await witness.until_idle()
        await newer.socket.send_json({"type": "feature_flags", "data": {}})
        with pytest.raises(TimeoutError):
            await newer.next(within_s=STARVED_S)


async def test_a_socket_that_does_not_read_stalls_everybody(duty: Duty) -> None:
    await duty.upload("noise.png", noise())
    sleep = {"class_type": "SimSleep", "inputs": {"seconds": 0, "steps": 60}}
    deaf = await deaf_socket(duty.served.port)
    async with duty.listen("me") as page:
        accepted = await duty.prompt(loading("noise.png", sleep))
        await duty.ended(accepted["prompt_id"])
        heard: list[Any] = []
        with pytest.raises(TimeoutError):
            await page.hear_into(heard, STARVED_S)
        assert kinds(heard).count("preview") < 60
        deaf.close()
        assert (await page.until("progress", value=60))[-1]["data"]["max"] == 60


def noise() -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (512, 512), os.urandom(512 * 512 * 3)).save(buffer, format="PNG")
    return buffer.getvalue()


async def deaf_socket(port: int) -> socket.socket:
    """Opens /ws and never reads what comes after the handshake."""
    loop = asyncio.get_running_loop()
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.setblocking(False)
    await loop.sock_connect(deaf, ("127.0.0.1", port))
    handshake = (
        f"GET /ws?clientId=deaf HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    await loop.sock_sendall(deaf, handshake.encode())
    assert (await loop.sock_recv(deaf, 12)) == b"HTTP/1.1 101"
    return deaf
