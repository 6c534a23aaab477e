"""A hook that raises answers 503, and the request reaches no server."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from mitmproxy import http

from comfy_gateway.core.people.client_ids import ClientIds
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.fail_closed import fail_closed, fail_closed_async
from comfy_gateway.service.requests.routes import Routes
from tests.hooks.stand import DUTY, NOWHERE, Stand, ask, prompt, socket

SECRET = "the address of an inner server"


class LostIds(ClientIds):
    """Knows nobody any more."""

    def owner(self, client_id: str) -> UserId | None:
        raise LookupError(SECRET)


class LostRoutes(Routes):
    """Finds no server any more."""

    def current(self, user: UserId | None) -> Backend:
        raise LookupError(SECRET)


def _without_rules(stand: Stand) -> None:
    stand.change(route_rules=None)


def _without_ids(stand: Stand) -> None:
    stand.change(client_ids=LostIds())


def _without_routes(stand: Stand) -> None:
    lost = LostRoutes(DUTY, lambda _user: DUTY)
    stand.placement.routes = lost
    stand.change(routes=lost)


def _without_relay(stand: Stand) -> None:
    def lose() -> None:
        raise LookupError(SECRET)

    stand.relay.while_waiting = lose


def _without_site(stand: Stand) -> None:
    stand.change(site=None)


def _without_identity(stand: Stand) -> None:
    """As if the hook before had never run: what it should have noted is missing."""
    del stand.hooks[0]


BROKEN: dict[str, tuple[Callable[[Stand], None], Callable[[], http.HTTPFlow]]] = {
    "identity: classes": (_without_rules, lambda: ask("/system_stats")),
    "identity: client ids": (_without_ids, lambda: socket("/ws?clientId=tab")),
    "identity: refusal of a body": (_without_site, lambda: ask("/upload/image", method="POST", user=None, body=b"x")),
    "identity: does not run": (_without_identity, lambda: ask("/system_stats")),
    "prompts: head": (_without_site, lambda: ask("/prompt", method="POST", headers=[("Transfer-Encoding", "chunked")])),
    "prompts: body": (_without_relay, lambda: prompt(b'{"prompt": {}, "client_id": "tab"}')),
    "prompts: routes": (_without_routes, lambda: prompt(b'{"prompt": {}}')),
    "router: routes": (_without_routes, lambda: ask("/system_stats")),
    "router: relay": (_without_site, socket),
    "router: reserved": (_without_site, lambda: ask("/gateway/")),
}  # fmt: skip


@pytest.mark.parametrize(("break_it", "made"), BROKEN.values(), ids=BROKEN.keys())
async def test_a_hook_that_raises_answers_503_and_reaches_no_server(
    stand: Stand,
    caplog: pytest.LogCaptureFixture,
    break_it: Callable[[Stand], None],
    made: Callable[[], http.HTTPFlow],
) -> None:
    break_it(stand)
    flow = await stand.exchange(made())
    assert flow.response is not None
    assert flow.response.status_code == 503
    assert flow.response.headers["Retry-After"] == "5"
    assert flow.response.json()["error"]["type"] == "gateway_error"
    assert SECRET not in (flow.response.text or "")
    assert (flow.request.host, flow.request.port) == NOWHERE
    assert flow.request.stream is False, "mitmproxy crashes on an answer to a request that streams"
    assert flow.metadata[edge.SETTLED] is True
    assert edge.BACKEND not in flow.metadata
    failures = [record for record in caplog.records if "failed; the request is refused" in record.message]
    assert len(failures) == 1
    assert failures[0].exc_info is not None


async def test_a_hook_that_raises_after_it_has_aimed_is_a_503_too(stand: Stand) -> None:
    """The answer is what keeps mitmproxy from connecting to the place that the flow names by then."""
    stand.change(activity=None)
    flow = await stand.exchange(ask("/view?filename=a.png"))
    assert flow.response is not None
    assert flow.response.status_code == 503
    assert flow.request.stream is False


class Fragile:
    """Two hooks that raise once they have answered."""

    @fail_closed
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        flow.response = http.Response.make(418)
        raise RuntimeError(SECRET)

    @fail_closed_async
    async def request(self, flow: http.HTTPFlow) -> None:
        flow.response = http.Response.make(418)
        raise RuntimeError(SECRET)


async def test_an_answer_that_is_set_already_stays(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    first, second = ask(), ask()
    Fragile().requestheaders(first)
    await Fragile().request(second)
    for flow in (first, second):
        assert flow.response is not None
        assert flow.response.status_code == 418
    assert [record.args for record in caplog.records] == [
        ("Fragile.requestheaders",),
        ("Fragile.request",),
    ]


async def test_every_hook_that_decides_is_guarded(stand: Stand) -> None:
    """The list of hooks that may leave a flow on its way to a default upstream; a new one joins it guarded."""
    deciding = {
        f"{type(hook).__name__}.{name}"
        for hook in stand.hooks
        for name in ("requestheaders", "request")
        if _is_guarded(getattr(type(hook), name, None))
    }
    all_of_them = {
        f"{type(hook).__name__}.{name}"
        for hook in stand.hooks
        for name in ("requestheaders", "request")
        if hasattr(hook, name)
    }
    assert all_of_them - deciding == {"DeadlinesHook.request"}, "it only starts a timer"
    assert len(deciding) == 5


def _is_guarded(hook: Any) -> bool:
    return hasattr(hook, "__wrapped__")
