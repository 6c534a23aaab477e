"""What follows from settings for parts that are put together."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from comfy_gateway.service.requests.routes import Routes
from comfy_gateway.settings import SettingsError, load
from comfy_gateway.wiring.base import open_base
from comfy_gateway.wiring.from_settings import alarm_senders, rules_of
from comfy_gateway.wiring.servers import open_servers

FIRST, SECOND = "http://first.test:8188/", "http://second.test:8188/"

type OpenRoutes = Callable[..., AbstractAsyncContextManager[Routes]]


@pytest.fixture
def routes_of(tmp_path: Path) -> OpenRoutes:
    """``routes_of(url, …)``: the routes of a gateway on the same state folder that is given these duty servers."""

    @asynccontextmanager
    async def start(*urls: str) -> AsyncIterator[Routes]:
        environ = {"DUTY_POD_URL": ",".join(urls), "GATEWAY_STATE_DIR": str(tmp_path)}
        settings = load(environ, root=tmp_path)
        async with AsyncExitStack() as stack:
            base = await open_base(settings, rules_of(settings), stack)
            yield (await open_servers(base)).routes

    return start


async def test_a_restart_with_another_list_of_servers_changes_no_servers_name(routes_of: OpenRoutes) -> None:
    async with routes_of(FIRST, SECOND) as routes:
        before = {server.upstream.host: (server.id, server.alias) for server in routes.duty_servers()}
        assert routes.plain() is routes.home
    async with routes_of(SECOND, FIRST) as routes:
        assert {server.upstream.host: (server.id, server.alias) for server in routes.duty_servers()} == before
        assert routes.home.upstream.host == "second.test"
        assert routes.plain() is routes.duty_servers()[1]
    async with routes_of(SECOND) as routes:
        [server] = routes.duty_servers()
        assert (server.id, server.alias) == before["second.test"]
        assert routes.plain() is None
        assert routes.by_id(None, before["first.test"][0]) is None


def test_an_alarm_address_that_apprise_does_not_know_stops_the_start_and_is_not_shown(tmp_path: Path) -> None:
    environ = {"DUTY_POD_URL": FIRST, "GATEWAY_ALARM_URLS": "json://localhost/x, nonsense://s3cr3t"}
    with pytest.raises(SettingsError) as caught:
        alarm_senders(load(environ, root=tmp_path))
    assert caught.value.faults == [
        "address 2 of GATEWAY_ALARM_URLS is no address that apprise knows, such as mailto://user:password@example.com"
    ]


def test_all_alarm_addresses_are_used(tmp_path: Path) -> None:
    environ = {"DUTY_POD_URL": FIRST, "GATEWAY_ALARM_URLS": "json://localhost/x, json://localhost/y"}
    senders = alarm_senders(load(environ, root=tmp_path))
    assert [sender.name for sender in senders] == [
        "address 1 of GATEWAY_ALARM_URLS",
        "address 2 of GATEWAY_ALARM_URLS",
    ]
    for sender in senders:
        sender.close()
