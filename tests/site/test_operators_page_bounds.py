"""What the operator's page may cost a browser with 200 sessions, and whether everybody can use it."""

import importlib.resources
import re
from typing import Any, Literal

import orjson
import pytest
from playwright.async_api import Page, expect

from tests.site.operators_scenery import busy_afternoon, crowd, new_world, person
from tests.site.operators_stand import Seen, operators_page

pytestmark = [pytest.mark.chromium, pytest.mark.long, pytest.mark.timeout(300)]

USERS = 200
FRAME_MS = 16.0


def at_work(seen: Seen, second: int) -> None:
    """Every pod is somewhere else than a second ago."""
    for number in range(USERS):
        mood = seen.world.servers.mood(seen.world.pod(person(f"user-{number:03d}")).id)
        mood.utilization_percent = float((number * 7 + second * 13) % 101)
        mood.queue = (number + second) % 9


def main_thread_ms(trace: bytes) -> list[float]:
    """Milliseconds of processor time of each task on the page's main thread.

    A frame is one task: animation callbacks, style, layout and paint. Processor time, since the machine has other work.
    """
    events: list[dict[str, Any]] = orjson.loads(trace)["traceEvents"]
    main = {
        (one["pid"], one["tid"])
        for one in events
        if one["name"] == "thread_name" and one["args"]["name"] == "CrRendererMain"
    }
    return [
        one["tdur"] / 1000
        for one in events
        if one["name"].endswith("RunTask") and (one["pid"], one["tid"]) in main and "tdur" in one
    ]


async def test_two_hundred_sessions_cost_less_than_a_frame_at_a_time() -> None:
    async with operators_page(new_world(USERS), crowd) as seen:
        await expect(seen.page.locator("#session-rows tr")).to_have_count(USERS)
        await expect(seen.page.locator("#link")).to_have_text("Live")
        # The lines of the last hour are there: the load is over.
        await expect(seen.row("user-199").locator("svg .line").first).to_have_attribute("d", re.compile("L"))
        browser = seen.context.browser
        assert browser is not None
        await browser.start_tracing(page=seen.page, categories=["toplevel", "devtools.timeline"])
        for second in range(90):
            at_work(seen, second)
            await seen.pass_time(1)
            await seen.page.evaluate("new Promise(requestAnimationFrame)")
        tasks = main_thread_ms(await browser.stop_tracing())
        assert len(tasks) > 90
        assert max(tasks) < FRAME_MS


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_axe_finds_no_serious_fault(scheme: Literal["dark", "light"]) -> None:
    async with operators_page(new_world(), busy_afternoon, color_scheme=scheme) as seen:
        page = seen.page
        await expect(page.locator("#panel-events tbody tr").first).to_be_visible()
        # Not by a script element, which the page's own policy refuses.
        await page.evaluate((importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text())
        assert await faults(page) == []
        await page.get_by_role("tab", name="Prompts").click()
        await expect(page.locator("#panel-prompts tbody tr").first).to_be_visible()
        assert await faults(page) == []
        await seen.row("amelie").get_by_role("button", name="Details").click()
        await expect(page.locator("#log")).to_contain_text("got prompt")
        assert await faults(page) == []
        await page.get_by_role("button", name="Terminate…").click()
        assert await faults(page) == []
        await page.keyboard.press("Escape")
        await page.keyboard.press("Escape")
        await page.set_viewport_size({"width": 390, "height": 844})
        assert await faults(page) == []


async def faults(page: Page) -> list[str]:
    """What axe-core calls serious or critical, with the first element of each."""
    found = await page.evaluate("axe.run()")
    assert len(found["passes"]) > 15
    return [
        f"{one['id']}: {one['nodes'][0]['html']}"
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
    ]
