"""The operator's page in a real Chromium, before the real site over the fakes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from playwright.async_api import BrowserContext, Locator, Page

from comfy_gateway.core.people.roles import Role
from tests.e2e.browser import Watch, chromium
from tests.programs import require_program
from tests.service.world import World
from tests.site.api_stand import BOSS, Api, api


@dataclass
class Seen:
    """A page, and what is behind it."""

    ask: Api
    world: World
    context: BrowserContext
    page: Page
    watch: Watch

    async def pass_time(self, seconds: float = 2) -> None:
        await self.world.clock.advance(seconds)

    def row(self, user: str) -> Locator:
        return self.page.locator("#session-rows tr").filter(has=self.page.locator(f"b:text-is('{user}')"))


@asynccontextmanager
async def operators_page(
    world: World | None = None, scenery: Callable[[World], Awaitable[None]] | None = None, **looks: Any
) -> AsyncIterator[Seen]:
    """Opened by an operator after the scenery; ``looks`` are those of the browser."""
    async with api(world=world) as ask, chromium(require_program("chromium")) as browser:
        context = await browser.new_context(**({"viewport": {"width": 1400, "height": 900}} | looks))
        # The hooks' own headers: there is no mitmproxy between these two.
        await context.set_extra_http_headers(ask.headers(BOSS, Role.OPERATOR))
        if scenery is not None:
            await scenery(ask.world)
        page = await context.new_page()
        seen = Seen(ask, ask.world, context, page, Watch(page))
        await page.goto(f"{ask.url}/gateway/")
        yield seen
