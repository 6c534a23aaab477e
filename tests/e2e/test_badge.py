"""The badge in the real front end, from the shared GPU to a pod and back; pods are simulated and run real time."""

import os
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.e2e.cloud import Cloud
from tests.e2e.conftest import StartGateway
from tests.e2e.front_end import FrontEnd, empty_to_save
from tests.e2e.test_real_comfyui import browser, comfyui, fresh_profile
from tests.e2e.world import Duty

__all__ = ["browser", "comfyui"]

pytestmark = [pytest.mark.comfyui, pytest.mark.chromium, pytest.mark.timeout(180)]


async def shoot(tab: FrontEnd, name: str) -> None:
    folder = os.environ.get("GATEWAY_SCREENSHOTS")
    if folder:
        await tab.page.set_viewport_size({"width": 1400, "height": 900})
        await tab.page.screenshot(path=Path(folder) / f"{name}.png")


async def test_the_badge_tells_of_burst_move_and_return(
    comfyui: str, duty: Duty, cloud: Cloud, browser: Browser, start_gateway: StartGateway
) -> None:
    cloud.sim.delays = cloud.sim.delays.model_copy(update={"app_ready_s": 6.0, "agent_ready_s": 5.0})
    settings = cloud.settings(duty) | {"DUTY_POD_URL": comfyui}
    async with start_gateway(**settings) as gateway, fresh_profile(browser) as context:
        tab = FrontEnd(await context.new_page())
        await tab.open(f"{gateway.url}/?user_id=alice")
        words, note = tab.page.locator("#gateway-badge .words"), tab.page.locator("#gateway-badge .note")
        await expect(words).to_have_text("Shared GPU", timeout=20_000)
        before = tab.watch.errors.copy()
        await tab.draw(empty_to_save(1, prefix="gateway-badge"))
        for _ in range(2):
            await tab.press_run()
        await expect(note).to_have_text("2 of 5 prompts toward a private GPU", timeout=20_000)
        await shoot(tab, "badge-shared")
        for _ in range(3):
            await tab.press_run()
        await expect(words).to_have_text("Private GPU starting", timeout=20_000)
        await shoot(tab, "badge-starting")
        await expect(words).to_have_text("Private RTX 4090, idle in 10:00", timeout=40_000)
        await shoot(tab, "badge-private")
        assert tab.watch.errors - before == {}


async def test_without_it_the_page_is_as_comfyui_serves_it(
    comfyui: str, browser: Browser, start_gateway: StartGateway
) -> None:
    async with (
        start_gateway(DUTY_POD_URL=comfyui, UI_BADGE="off") as gateway,
        fresh_profile(browser) as context,
    ):
        tab = FrontEnd(await context.new_page())
        await tab.open(f"{gateway.url}/?user_id=alice")
        assert await tab.page.locator("#gateway-badge").count() == 0
