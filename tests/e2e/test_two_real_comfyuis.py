"""Moved with the page open between two real ComfyUI servers: the shared one, and the one of a pod.

Besides ``COMFYUI_URL`` and ``COMFYUI_DIR`` it needs ``COMFYUI_POD_URL``, the address of a second ComfyUI that may be
played with, and ``COMFYUI_POD_BASE``, the folder in which that one keeps output and input (``--base-directory``).
``GATEWAY_SCREENSHOTS`` names a folder for pictures of the page.
"""

import base64
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from playwright.async_api import Browser, ViewportSize

from simulators.comfyui.folders import Folders
from simulators.runpod import Borrowed, Delays, RunPodSimulator
from simulators.runpod import serve as serve_cloud
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import StartGateway
from tests.e2e.example_script import example_for, run_script
from tests.e2e.front_end import FrontEnd, Run, empty_to_save, load_to_save
from tests.e2e.test_real_comfyui import PREFIX, a_colour, as_colour, browser, comfyui, fresh_profile
from tests.e2e.world import Duty, Person, eventually

__all__ = ["browser", "comfyui"]

HIGH = ViewportSize(width=1400, height=2800)
"""Enough for all pictures: the panel draws only what can be seen."""

MANY_TIMES = """
import time
images, afterwards, started = {"6": []}, 0, time.monotonic()
while afterwards < 2 and time.monotonic() - started < 30:
    images["6"] += get_images(ws, prompt)["6"]
    prompt["3"]["inputs"]["color"] += 1
    status = urllib.request.urlopen("http://{}/system_stats?clientId={}".format(server_address, client_id))
    afterwards += status.headers["X-Comfy-Session-Ready"] == "1"
assert afterwards == 2
"""
pytestmark = [pytest.mark.comfyui, pytest.mark.chromium, pytest.mark.timeout(400)]


@pytest.fixture
async def real_pods(http: aiohttp.ClientSession) -> AsyncIterator[Cloud]:
    """A simulated RunPod whose pods show the second real server, with the real agent beside it."""
    url = os.environ.get("COMFYUI_POD_URL", "").rstrip("/")
    if not url:
        pytest.skip("COMFYUI_POD_URL names no second ComfyUI")
    async with http.get(f"{url}/system_stats") as answer:
        assert answer.status == 200
    base = Path(os.environ["COMFYUI_POD_BASE"])
    simulator = RunPodSimulator(
        api_key="test-key",
        delays=Delays(create_s=0.1, runtime_s=0.2, app_ready_s=0.6, agent_ready_s=0.4),
        borrowed=Borrowed(url, Folders.in_(base)),
        agent="real",
    )
    async with serve_cloud(simulator) as served:
        yield Cloud(simulator, served)


async def shoot(tab: FrontEnd, name: str) -> None:
    folder = os.environ.get("GATEWAY_SCREENSHOTS")
    if folder:
        await tab.page.set_viewport_size({"width": 1400, "height": 900})
        await tab.page.screenshot(path=Path(folder) / f"{name}.png")
        await tab.page.set_viewport_size(HIGH)


async def test_a_page_is_moved_and_comes_back_and_its_queue_and_gallery_stay_right(
    comfyui: str, real_pods: Cloud, browser: Browser, duty: Duty, start_gateway: StartGateway
) -> None:
    settings = real_pods.settings(duty, DUTY_POD_URL=comfyui, RUNPOD_TELEMETRY_IDLE_S="6")
    async with start_gateway(**settings) as gateway, fresh_profile(browser) as context:
        tab = FrontEnd(await context.new_page())
        await tab.page.set_viewport_size(HIGH)
        await tab.open(f"{gateway.url}/?user_id=alice")
        before = tab.watch.errors.copy()
        await tab.draw(empty_to_save(a_colour(), prefix=PREFIX))
        made: list[tuple[Run, int]] = []

        async def run_somewhere() -> str:
            """Press Run, see the picture below its node and in the panel; returns who has made it."""
            colour = a_colour()
            await tab.set_colour(colour)
            run = await tab.press_run()
            assert await tab.ending(run) == "execution_success"
            assert as_colour(await tab.picture_below_node(run)) == colour
            made.append((run, colour))
            return run.headers["x-comfy-session-source"]

        async def all_pictures_open() -> None:
            for run, colour in made:
                assert as_colour(await tab.picture_in_queue(run)) == colour

        for _ in range(5):
            assert await run_somewhere() == "duty"
        await all_pictures_open()
        await eventually(tab.is_ready, "the page is on its pod")
        for _ in range(2):
            assert await run_somewhere() == "private"
        await all_pictures_open()
        await shoot(tab, "page-on-its-pod")

        await gateway.wait_for_line("terminating -> shared", within_s=60)
        assert real_pods.sim.living() == []
        assert not await tab.is_ready()
        await all_pictures_open()
        assert await run_somewhere() == "duty"
        await all_pictures_open()
        await shoot(tab, "page-back-on-the-shared-server")
        assert tab.watch.loads == 1
        assert len(tab.watch.sockets) == 1
        assert tab.watch.errors - before == {}
        # A page that is loaded anew shows the same.
        await tab.reload()
        history = await tab.page.evaluate("async () => (await fetch('/api/history')).json()")
        assert {run.prompt_id for run, _ in made} <= set(history)
        numbers = [history[run.prompt_id]["prompt"][0] for run, _ in made]
        assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("isolation", ["actions", "full"])
async def test_an_upload_follows_its_user_to_the_pod_and_back(
    comfyui: str,
    real_pods: Cloud,
    duty: Duty,
    start_gateway: StartGateway,
    http: aiohttp.ClientSession,
    isolation: str,
) -> None:
    settings = real_pods.settings(
        duty, DUTY_POD_URL=comfyui, RUNPOD_TELEMETRY_IDLE_S="4", ISOLATION=isolation
    )
    async with start_gateway(**settings) as gateway:
        alice = Person(http, gateway.url, client_id="upload-tab")
        # A picture that duty has made becomes an input there, and is needed on the pod.
        async with alice.socket() as events:

            async def made(nodes: dict[str, object]) -> tuple[str, bytes]:
                answer = await alice.prompt(nodes)
                assert answer.status == 200, await answer.text()
                prompt_id = (await answer.json())["prompt_id"]
                assert await events.ended(prompt_id) == "execution_success"
                history = await (await alice.get(f"/history/{prompt_id}")).json()
                [image] = history[prompt_id]["outputs"]["9"]["images"]
                async with http.get(f"{gateway.url}/view", params=image, headers=alice.headers) as view:
                    assert view.status == 200, await view.text()
                    return answer.headers["X-Comfy-Session-Source"], await view.read()

            async def upload(content: bytes) -> str:
                form = aiohttp.FormData()
                form.add_field("image", content, filename=f"{PREFIX}.png", content_type="image/png")
                async with http.post(
                    f"{gateway.url}/upload/image", data=form, headers=alice.headers
                ) as answer:
                    assert answer.status == 200, await answer.text()
                    return str((await answer.json())["name"])

            first = a_colour()
            _, picture = await made(empty_to_save(first, prefix=PREFIX))
            name = await upload(picture)
            for _ in range(5):
                source, _ = await made(empty_to_save(a_colour(), prefix=PREFIX))
            await eventually(alice.is_ready, "alice is on her pod")
            source, loaded = await made(load_to_save(name, prefix=PREFIX))
            assert source == "private"
            assert as_colour(loaded) == first

            second = a_colour()
            _, picture = await made(empty_to_save(second, prefix=PREFIX))
            there = await upload(picture)
            info = await (await alice.get("/object_info/LoadImage")).json()
            assert {name, there} <= set(info["LoadImage"]["input"]["required"]["image"][0])
            await gateway.wait_for_line("terminating -> shared", within_s=60)
            source, loaded = await made(load_to_save(there, prefix=PREFIX))
            assert source == "duty"
            assert as_colour(loaded) == second


async def test_the_websocket_example_gets_its_pictures_on_one_socket_through_the_move(
    comfyui: str, real_pods: Cloud, duty: Duty, start_gateway: StartGateway
) -> None:
    """It asks for one picture after the other on the socket that it opened first, until one was made on the pod."""
    colour = a_colour() & 0xFFFF00
    settings = real_pods.settings(duty, DUTY_POD_URL=comfyui, REQUIRE_USER_ID="0")
    async with start_gateway(**settings) as gateway:
        once = example_for(urlsplit(gateway.url).netloc, colour=colour, prefix=PREFIX)
        script = once.replace("images = get_images(ws, prompt)", MANY_TIMES)
        assert script != once
        code, output, errors = await run_script(script)
        assert code == 0, errors
        pictures = json.loads(output)["6"]
        assert [as_colour(base64.b64decode(image), at=(32, 24)) for image in pictures] == [
            colour + count for count in range(len(pictures))
        ]
        [pod] = real_pods.sim.pods.values()
        assert "verifying -> ready" in gateway.log
        assert len(pictures) > 6, pod.name
