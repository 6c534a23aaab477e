"""Alarms through the real apprise to a webhook on loopback."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from comfy_gateway.adapters.apprise_sender import AppriseSender
from comfy_gateway.core.errors import AlarmUnsent

SECRET = "s3cr3t-token"


class Hook:
    """A webhook that answers with ``status``."""

    def __init__(self) -> None:
        self.status = 200
        self.told: list[dict[str, Any]] = []

    async def take(self, request: web.Request) -> web.Response:
        """One alarm."""
        self.told.append(await request.json())
        return web.Response(status=self.status)


@pytest.fixture
def hook() -> Hook:
    return Hook()


@pytest.fixture
async def sender(hook: Hook) -> AsyncIterator[AppriseSender]:
    app = web.Application()
    app.router.add_post("/{rest:.*}", hook.take)
    async with TestServer(app) as server:
        made = AppriseSender(f"json://user:{SECRET}@localhost:{server.port}/hook", "address 1")
        yield made
        made.close()


async def test_an_alarm_arrives_with_title_and_text(hook: Hook, sender: AppriseSender) -> None:
    await sender.send("Comfy gateway: alarm (ending)", "pod x does not end")
    [told] = hook.told
    assert (told["title"], told["message"]) == ("Comfy gateway: alarm (ending)", "pod x does not end")


async def test_one_that_is_not_taken_is_an_error_without_the_address(
    hook: Hook, sender: AppriseSender, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hook.status = 500
    with pytest.raises(AlarmUnsent, match="it was not taken") as caught:
        await sender.send("title", "text")
    logged = [record.getMessage() for record in caplog.records if record.name != "aiohttp.access"]
    assert not any(SECRET in text or "/hook" in text for text in [repr(caught.value), *logged])


async def test_after_the_end_nothing_is_sent(hook: Hook, sender: AppriseSender) -> None:
    sender.close()
    with pytest.raises(AlarmUnsent, match="the gateway ends"):
        await sender.send("title", "text")
    assert hook.told == []


def test_an_address_that_apprise_does_not_know_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="address 2 is no address that apprise knows") as caught:
        AppriseSender(f"nonsense://{SECRET}", "address 2")
    assert SECRET not in str(caught.value)
