"""How the operator's page looks, dark and light, wide and narrow. GATEWAY_SCREENSHOTS names a folder for pictures."""

import os
import re
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import Page, expect

from tests.site.operators_scenery import busy_afternoon, new_world
from tests.site.operators_stand import operators_page

pytestmark = [pytest.mark.chromium, pytest.mark.long, pytest.mark.timeout(240)]

WIDE = {"width": 1400, "height": 980}


async def shoot(page: Page, name: str) -> None:
    folder = os.environ.get("GATEWAY_SCREENSHOTS")
    if folder:
        await page.screenshot(path=Path(folder) / f"{name}.png")


async def fits(page: Page) -> bool:
    return bool(await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_a_busy_afternoon_fits_on_a_screen_and_on_a_telephone(scheme: Literal["dark", "light"]) -> None:
    async with operators_page(new_world(), busy_afternoon, color_scheme=scheme, viewport=WIDE) as seen:
        page = seen.page
        await expect(page.locator("#link")).to_have_text("Live")
        await expect(page.locator("#session-rows tr")).to_have_count(6)
        await expect(seen.row("amelie").locator("svg .line").first).to_have_attribute(
            "d", re.compile("(L[^L]*){20}")
        )
        await expect(page.locator("#panel-events tbody tr").first).to_be_visible()
        assert await fits(page)
        await shoot(page, f"operators-{scheme}")
        await seen.row("amelie").get_by_role("button", name="Details").click()
        await expect(page.locator("#log")).to_contain_text("got prompt")
        await shoot(page, f"operators-detail-{scheme}")
        await page.get_by_role("button", name="Drain…").click()
        await shoot(page, f"operators-confirm-{scheme}")
        await page.keyboard.press("Escape")
        await page.keyboard.press("Escape")
        for name in ("Spend", "Prompts"):
            await page.get_by_role("tab", name=name).click()
            await expect(page.locator(f"#panel-{name.lower()} tbody tr").first).to_be_visible()
            await page.locator(f"#panel-{name.lower()}").scroll_into_view_if_needed()
            await shoot(page, f"operators-{name.lower()}-{scheme}")
        await page.set_viewport_size({"width": 390, "height": 844})
        await page.evaluate("scrollTo(0, 0)")
        await expect(seen.row("amelie").locator(".label").first).to_be_visible()
        assert await fits(page)
        await shoot(page, f"operators-telephone-{scheme}")
        await seen.row("amelie").get_by_role("button", name="Details").click()
        assert await fits(page)
        await shoot(page, f"operators-telephone-detail-{scheme}")
        assert seen.watch.errors == {}
