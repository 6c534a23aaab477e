"""The gateway before a real ComfyUI: its front end in a real browser, and its example script.

Needs ``COMFYUI_URL``, the address of a ComfyUI that may be played with: the tests leave pictures whose names
begin with ``gateway-e2e`` in its output and input folders. The script is read from ``COMFYUI_DIR``, a checkout.
"""

import base64
import io
import json
import os
import random
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from PIL import Image
from playwright.async_api import Browser, BrowserContext, Response

from tests.e2e.browser import Watch, chromium
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import StartGateway
from tests.e2e.example_script import example_for, run_script
from tests.e2e.front_end import SLOW_MS, FrontEnd, empty_to_save, load_to_save
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.world import Duty, Person, eventually
from tests.programs import require_program

pytestmark = [pytest.mark.comfyui, pytest.mark.timeout(240)]

PREFIX = "gateway-e2e"


@pytest.fixture
async def comfyui(http: aiohttp.ClientSession) -> str:
    """Address of the real server, without a slash at its end."""
    url = os.environ.get("COMFYUI_URL", "").rstrip("/")
    if not url:
        pytest.skip("COMFYUI_URL names no ComfyUI")
    async with http.get(f"{url}/system_stats") as answer:
        assert answer.status == 200
        system = (await answer.json())["system"]
        assert "python_version" in system, f"{url} is no ComfyUI: {system}"
    return url


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium(require_program("chromium")) as browser:
        yield browser


@asynccontextmanager
async def fresh_profile(browser: Browser) -> AsyncIterator[BrowserContext]:
    """No cookies, no storage, nothing cached."""
    context = await browser.new_context(viewport={"width": 1400, "height": 900})
    try:
        yield context
    finally:
        await context.close()


def a_colour() -> int:
    """One that the server has not cached a picture for, most likely."""
    return random.randrange(1, 1 << 24)


def as_colour(picture: bytes, at: tuple[int, int] = (100, 60)) -> int:
    """The colour of one pixel of a PNG."""
    with Image.open(io.BytesIO(picture)) as image:
        pixel = image.convert("RGB").getpixel(at)
    assert isinstance(pixel, tuple)
    red, green, blue = (int(part) for part in pixel)
    return red << 16 | green << 8 | blue


async def load(browser: Browser, url: str) -> Watch:
    """One visit with an empty profile."""
    async with fresh_profile(browser) as context:
        tab = FrontEnd(await context.new_page())
        await tab.open(url)
        return tab.watch


@pytest.mark.chromium
@pytest.mark.parametrize(
    ("settings", "query"),
    [({}, "?user_id=alice"), ({"REQUIRE_USER_ID": "0"}, "")],
    ids=["named in the address", "unnamed"],
)
async def test_the_front_end_loads_without_a_failure_that_a_direct_load_does_not_have(
    comfyui: str, browser: Browser, start_gateway: StartGateway, settings: dict[str, str], query: str
) -> None:
    # Twice: on its first visit of a server ever the page asks for other things than later on.
    first, direct = await load(browser, comfyui), await load(browser, comfyui)
    async with start_gateway(DUTY_POD_URL=comfyui, **settings) as gateway:
        through = await load(browser, f"{gateway.url}/{query}")
        assert "ERROR" not in gateway.log
    assert sum(direct.requests.values()) > 100
    files = {request for request in direct.requests if request.startswith("GET /assets/")}
    asked = {re.sub("/gateway/files/[0-9a-f]{16}/", "/", request) for request in through.requests}
    assert files - asked == set()
    assert through.failures - (first.failures | direct.failures) == {}
    assert through.errors - (first.errors | direct.errors) == {}
    assert len(through.sockets) == len(direct.sockets) == 1


@pytest.mark.chromium
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_workflow_runs_from_its_button_and_its_picture_shows(
    comfyui: str, browser: Browser, start_gateway: StartGateway, tmp_path: Path, host: str
) -> None:
    colour = a_colour()
    async with start_gateway(DUTY_POD_URL=comfyui) as gateway, fresh_profile(browser) as context:
        tab = FrontEnd(await context.new_page())
        await tab.open(f"http://{host}:{urlsplit(gateway.url).port}/?user_id=alice")
        before = tab.watch.errors.copy()
        await tab.draw(empty_to_save(colour, prefix=PREFIX))
        run = await tab.press_run()
        assert run.headers["x-comfy-session-user"] == "alice"
        assert run.headers["x-comfy-prompt-id"] == run.prompt_id
        assert await tab.ending(run) == "execution_success"
        assert as_colour(await tab.picture_below_node(run)) == colour
        assert as_colour(await tab.picture_in_queue(run)) == colour
        await tab.page.screenshot(path=tmp_path / "picture.png")
        assert tab.watch.errors - before == {}


@pytest.mark.chromium
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_server_accepts_what_a_page_of_the_gateway_posts(
    comfyui: str, browser: Browser, start_gateway: StartGateway, host: str
) -> None:
    async with start_gateway(DUTY_POD_URL=comfyui) as gateway, fresh_profile(browser) as context:
        page = await context.new_page()
        port = urlsplit(gateway.url).port
        await page.goto(f"http://{host}:{port}/system_stats?user_id=alice")
        other = "localhost" if host == "127.0.0.1" else "127.0.0.1"

        async def post(url: str) -> Response:
            """A POST that changes nothing, by the page."""
            async with page.expect_response(url, timeout=SLOW_MS) as waited:
                await page.evaluate(
                    """url => fetch(url, {method: "POST", mode: "no-cors", body: '{"delete": []}'})
                      .then(() => 0)""",
                    url,
                )
            return await waited.value

        own = await post(f"http://{host}:{port}/api/queue")
        assert (await own.request.all_headers())["origin"] == f"http://{host}:{port}"
        assert own.status == 200
        # The same gateway by its other name is another site to a browser, and to ComfyUI.
        foreign = await post(f"http://{other}:{port}/api/queue")
        assert foreign.status == 403


@pytest.mark.chromium
async def test_each_tab_of_a_browser_hears_of_its_own_prompts_and_all_are_one_user(
    comfyui: str, browser: Browser, start_gateway: StartGateway
) -> None:
    async with (
        start_gateway(DUTY_POD_URL=comfyui, REQUIRE_USER_ID="0") as gateway,
        fresh_profile(browser) as context,
    ):
        tabs = []
        for _ in range(2):
            tab = FrontEnd(await context.new_page())
            await tab.open(gateway.url)
            tabs.append(tab)
        colours = [a_colour(), a_colour()]
        runs = []
        for tab, colour in zip(tabs, colours, strict=True):
            await tab.page.bring_to_front()
            await tab.draw(empty_to_save(colour, prefix=PREFIX))
            runs.append(await tab.press_run())
        for tab, run, colour in zip(tabs, runs, colours, strict=True):
            await tab.page.bring_to_front()
            assert await tab.ending(run) == "execution_success"
            assert as_colour(await tab.picture_below_node(run)) == colour
            assert await tab.starts() == [run.prompt_id]
        assert runs[0].client_id != runs[1].client_id
        assert len({run.headers["x-comfy-session-user"] for run in runs}) == 1


@pytest.mark.chromium
async def test_a_reloaded_page_comes_back_with_its_socket_id_and_goes_on(
    comfyui: str, browser: Browser, start_gateway: StartGateway
) -> None:
    async with start_gateway(DUTY_POD_URL=comfyui) as gateway, fresh_profile(browser) as context:
        tab = FrontEnd(await context.new_page())
        await tab.open(f"{gateway.url}/?user_id=alice")
        await tab.draw(empty_to_save(a_colour(), prefix=PREFIX))
        first = await tab.press_run()
        assert await tab.ending(first) == "execution_success"

        # Without the name in the address: the cookie knows it.
        await tab.open(gateway.url)
        await tab.reload()
        colour = a_colour()
        await tab.draw(empty_to_save(colour, prefix=PREFIX))
        second = await tab.press_run()
        assert await tab.ending(second) == "execution_success"
        assert as_colour(await tab.picture_below_node(second)) == colour
        assert second.client_id == first.client_id
        assert second.headers["x-comfy-session-user"] == "alice"
        assert [urlsplit(socket.url).query for socket in tab.watch.sockets] == [
            "", f"clientId={first.client_id}", f"clientId={first.client_id}",
        ]  # fmt: skip


@pytest.mark.chromium
async def test_an_image_that_the_page_uploads_can_be_loaded_by_its_workflow(
    comfyui: str, browser: Browser, start_gateway: StartGateway
) -> None:
    async with start_gateway(DUTY_POD_URL=comfyui) as gateway, fresh_profile(browser) as context:
        tab = FrontEnd(await context.new_page())
        await tab.open(f"{gateway.url}/?user_id=alice")
        colour = a_colour()
        stored = await tab.page.evaluate(
            """async ([colour, name]) => {
              const canvas = new OffscreenCanvas(200, 120);
              const context = canvas.getContext("2d");
              context.fillStyle = "#" + colour.toString(16).padStart(6, "0");
              context.fillRect(0, 0, 200, 120);
              const body = new FormData();
              body.append("image", new File([await canvas.convertToBlob()], name, {type: "image/png"}));
              const answer = await window.app.api.fetchApi("/upload/image", {method: "POST", body});
              if (!answer.ok) throw new Error(answer.status);
              const stored = await answer.json();
              await window.app.refreshComboInNodes();
              return stored;
            }""",
            [colour, f"{PREFIX} ä {uuid.uuid4().hex[:8]}.png"],
        )
        assert stored["type"] == "input"
        await tab.draw(load_to_save(stored["name"], prefix=PREFIX))
        run = await tab.press_run()
        assert await tab.ending(run) == "execution_success"
        assert as_colour(await tab.picture_below_node(run)) == colour


@pytest.mark.chromium
async def test_a_workflow_saved_from_the_page_lies_where_the_page_finds_it_again(
    comfyui: str, browser: Browser, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    name = f"{PREFIX} {uuid.uuid4().hex[:8]} ä+b"
    async with start_gateway(DUTY_POD_URL=comfyui) as gateway, fresh_profile(browser) as context:
        tab = FrontEnd(await context.new_page())
        await tab.open(f"{gateway.url}/?user_id=alice")
        await tab.draw(empty_to_save(a_colour(), prefix=PREFIX), name)

        def is_saved(response: Response) -> bool:
            return response.request.method == "POST" and "/api/userdata/" in response.url

        async with tab.page.expect_response(is_saved, timeout=SLOW_MS) as waited:
            await tab.page.keyboard.press("Control+s")
            await tab.page.get_by_role("dialog").get_by_role("textbox").fill(name)
            await tab.page.keyboard.press("Enter")
        saved = await waited.value
        assert saved.status == 200
        assert "/api/userdata/workflows%2F" in saved.url
        try:
            listed = json.loads(await tab.fetched("/api/userdata?dir=workflows"))
            assert f"{name}.json" in listed
            path = urlsplit(saved.url).path
            workflow = json.loads(await tab.fetched(path))
            assert sorted(node["type"] for node in workflow["nodes"]) == ["EmptyImage", "SaveImage"]
        finally:
            await tab.page.evaluate("path => window.app.api.deleteUserData(path)", f"workflows/{name}.json")


@pytest.mark.chromium
async def test_an_open_page_is_moved_to_a_pod_and_back_when_that_is_idle(
    comfyui: str,
    browser: Browser,
    cloud: Cloud,
    duty: Duty,
    start_gateway: StartGateway,
    tmp_path: Path,
) -> None:
    settings = cloud.settings(duty, DUTY_POD_URL=comfyui, RUNPOD_TELEMETRY_IDLE_S="8")
    async with start_gateway(**settings) as gateway, fresh_profile(browser) as context:
        tab = FrontEnd(await context.new_page())
        await tab.open(f"{gateway.url}/?user_id=alice")
        before = tab.watch.errors.copy()
        await tab.draw(empty_to_save(a_colour(), prefix=PREFIX))

        async def run_somewhere() -> str:
            """Press Run, see the picture; returns who has made it."""
            colour = a_colour()
            await tab.set_colour(colour)
            run = await tab.press_run()
            assert await tab.ending(run) == "execution_success"
            assert as_colour(await tab.picture_below_node(run)) == colour
            return run.headers["x-comfy-session-source"]

        for _ in range(5):
            assert cloud.sim.pods == {}
            assert await run_somewhere() == "duty"
        await eventually(tab.is_ready, "the page is on its pod")
        [pod] = cloud.sim.pods.values()
        assert await run_somewhere() == "private"
        assert len(pod.comfy.accepted) == 1
        await tab.page.screenshot(path=tmp_path / "on the pod.png")

        await gateway.wait_for_line("terminating -> shared", within_s=40)
        assert not await tab.is_ready()
        assert cloud.sim.living() == []
        assert await run_somewhere() == "duty"
        assert tab.watch.loads == 1
        assert len(tab.watch.sockets) == 1
        assert tab.watch.errors - before == {}
        # It was the real server all the time, not the one that came with the settings.
        assert duty.sim.accepted == []


@pytest.mark.chromium
async def test_a_moved_page_still_hears_of_what_runs_on_the_shared_server(
    comfyui: str, browser: Browser, cloud: Cloud, duty: Duty, start_gateway: StartGateway
) -> None:
    settings = cloud.settings(duty, DUTY_POD_URL=comfyui)
    async with start_gateway(**settings) as gateway, fresh_profile(browser) as context:
        tab = FrontEnd(await context.new_page())
        await tab.open(f"{gateway.url}/?user_id=alice")
        # A picture of this size takes a server about a second, a pod is there after 0.6 s.
        await tab.draw(empty_to_save(a_colour(), prefix=PREFIX, width=5000, height=5000))
        slow = []
        for _ in range(5):
            await tab.set_colour(a_colour())
            slow.append(await tab.press_run())
        await eventually(tab.is_ready, "the page is on its pod")
        await tab.draw(empty_to_save(a_colour(), prefix=PREFIX), "quick")
        quick = await tab.press_run()
        assert quick.headers["x-comfy-session-source"] == "private"
        assert await tab.ending(quick) == "execution_success"
        assert await tab.page.evaluate("Object.keys(window.heard.endings).length") < 6
        assert {await tab.ending(run) for run in slow} == {"execution_success"}
        assert sorted(await tab.starts()) == sorted(run.prompt_id for run in (*slow, quick))
        assert len(tab.watch.sockets) == 1


@pytest.mark.chromium
async def test_an_open_page_goes_on_after_the_gateway_was_restarted(
    comfyui: str, browser: Browser, start_gateway: StartGateway, free_port: int
) -> None:
    here = ("--listen-port", str(free_port))
    async with fresh_profile(browser) as context:
        tab = FrontEnd(await context.new_page())
        async with start_gateway(*here, DUTY_POD_URL=comfyui) as gateway:
            await tab.open(f"{gateway.url}/?user_id=alice")
            await tab.draw(empty_to_save(a_colour(), prefix=PREFIX))
            first = await tab.press_run()
            assert await tab.ending(first) == "execution_success"
        async with start_gateway(*here, DUTY_POD_URL=comfyui):
            await eventually(tab.has_socket, "the page has connected again")
            colour = a_colour()
            await tab.set_colour(colour)
            second = await tab.press_run()
            assert second.client_id == first.client_id
            assert second.headers["x-comfy-session-user"] == "alice"
            assert await tab.ending(second) == "execution_success"
            assert as_colour(await tab.picture_below_node(second)) == colour
        assert tab.watch.loads == 1


async def example_through(gateway: GatewayProcess, colour: int) -> tuple[int, str, str]:
    """Run ComfyUI's example script; returns exit code, output and errors."""
    return await run_script(example_for(urlsplit(gateway.url).netloc, colour=colour, prefix=PREFIX))


async def test_the_websocket_example_gets_its_picture(comfyui: str, start_gateway: StartGateway) -> None:
    colour = a_colour()
    async with start_gateway(DUTY_POD_URL=comfyui, REQUIRE_USER_ID="0") as gateway:
        code, output, errors = await example_through(gateway, colour)
    assert code == 0, errors
    [image] = json.loads(output)["6"]
    assert as_colour(base64.b64decode(image), at=(32, 24)) == colour


async def test_where_an_id_is_required_the_websocket_example_is_refused_when_it_asks_without_one(
    comfyui: str, start_gateway: StartGateway
) -> None:
    async with start_gateway(DUTY_POD_URL=comfyui) as gateway:
        code, _, errors = await example_through(gateway, a_colour())
    assert code == 1
    # Its socket and its prompt carry a client_id, its question for the result does not.
    assert "in get_history" in errors
    assert "HTTP Error 400" in errors


async def test_a_picture_holds_graph_and_workflow_and_no_key_of_extra_data(
    comfyui: str, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    """Pictures of pods are kept as they are: ``docs/vault.md`` says what that means for keys."""
    keys = {
        "api_key_comfy_org": "key-of-alice",
        "auth_token_comfy_org": "token-of-alice",
        "my_api_key": "own-key",
    }
    colour = a_colour()
    nodes = {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": colour},
        },
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": PREFIX}},
    }
    body = {"prompt": nodes, "extra_data": {**keys, "extra_pnginfo": {"workflow": {"version": 0.4}}}}
    async with start_gateway(DUTY_POD_URL=comfyui) as gateway:
        alice = Person(http, gateway.url)
        async with http.post(f"{gateway.url}/prompt", json=body, headers=alice.headers) as accepted:
            prompt_id = (await accepted.json())["prompt_id"]
        entry: dict[str, Any] = {}

        async def is_done() -> bool:
            entry.update(await (await alice.get(f"/history/{prompt_id}")).json())
            return prompt_id in entry

        await eventually(is_done, "the picture")
        [file] = entry[prompt_id]["outputs"]["9"]["images"]
        async with http.get(f"{gateway.url}/view", params=file, headers=alice.headers) as view:
            picture = await view.read()
    with Image.open(io.BytesIO(picture)) as image:
        written = dict(image.info)
    assert json.loads(written["prompt"])["1"]["inputs"]["color"] == colour
    assert json.loads(written["workflow"]) == {"version": 0.4}
    for key in keys.values():
        assert key.encode() not in picture
        assert key not in json.dumps(entry)
