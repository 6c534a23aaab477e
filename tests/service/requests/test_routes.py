"""The route table."""

import pytest

from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.service.requests.routes import Routes
from tests.service.world import ALICE, BOB, duty

POD = Backend("comfy-gw-alice-a1", Source.PRIVATE, Upstream("https", "pod1.test", 443), "token")
HOME, OTHER = duty(0), duty(1)


@pytest.fixture
def told() -> list[UserId]:
    return []


@pytest.fixture
def routes(told: list[UserId]) -> Routes:
    made = Routes(HOME, lambda _user: HOME, (HOME, OTHER))
    made.watch(told.append)
    return made


def test_a_user_without_a_pod_is_on_duty(routes: Routes) -> None:
    assert routes.current(ALICE) is routes.duty(ALICE) is HOME
    assert routes.private(ALICE) is None
    assert routes.private(None) is None
    assert routes.current(None) is HOME


def test_a_pod_takes_its_users_traffic_and_nobody_elses(routes: Routes, told: list[UserId]) -> None:
    routes.set_private(ALICE, POD)
    assert routes.current(ALICE) is POD
    assert routes.current(BOB) is HOME
    assert dict(routes.privates()) == {ALICE: POD}
    assert told == [ALICE]


def test_clearing_puts_the_user_back_on_duty_and_tells_once(routes: Routes, told: list[UserId]) -> None:
    routes.set_private(ALICE, POD)
    routes.clear_private(ALICE)
    routes.clear_private(ALICE)
    assert routes.current(ALICE) is HOME
    assert routes.by_id(ALICE, POD.id) is None
    assert told == [ALICE, ALICE]


def test_a_retired_pod_gets_nothing_new_and_is_found_until_it_is_cleared(
    routes: Routes, told: list[UserId]
) -> None:
    routes.set_private(ALICE, POD)
    routes.retire_private(ALICE)
    assert routes.current(ALICE) is HOME
    assert routes.private(ALICE) is None
    assert not routes.privates()
    assert routes.by_id(ALICE, POD.id) is POD
    routes.clear_private(ALICE)
    assert routes.by_id(ALICE, POD.id) is None
    assert told == [ALICE] * 3


def test_retiring_what_is_not_there_tells_nobody(routes: Routes, told: list[UserId]) -> None:
    routes.retire_private(ALICE)
    assert told == []


def test_a_new_pod_replaces_one_that_was_retired(routes: Routes) -> None:
    newer = Backend("comfy-gw-alice-a2", Source.PRIVATE, Upstream("https", "pod2.test", 443))
    routes.set_private(ALICE, POD)
    routes.retire_private(ALICE)
    routes.set_private(ALICE, newer)
    assert routes.by_id(ALICE, POD.id) is None
    assert routes.by_id(ALICE, newer.id) is newer


def test_nobody_finds_the_pod_of_another(routes: Routes) -> None:
    routes.set_private(ALICE, POD)
    assert routes.by_id(BOB, POD.id) is None
    assert routes.by_id(None, POD.id) is None
    routes.retire_private(ALICE)
    assert routes.by_id(BOB, POD.id) is None
    assert routes.by_id(None, POD.id) is None


@pytest.mark.parametrize("user", [ALICE, None])
def test_work_on_a_duty_server_is_found_although_the_user_is_on_another(
    routes: Routes, user: UserId | None
) -> None:
    assert routes.by_id(user, OTHER.id) is OTHER
    assert routes.by_id(user, HOME.id) is HOME
    assert routes.by_id(user, "duty-9") is None


def test_watchers_hear_moves_of_the_pool_until_they_stop(routes: Routes, told: list[UserId]) -> None:
    more: list[UserId] = []
    stop = routes.watch(more.append)
    routes.duty_changed(BOB)
    stop()
    routes.duty_changed(BOB)
    assert told == [BOB, BOB]
    assert more == [BOB]


def test_a_watcher_may_stop_watching_while_it_is_told(routes: Routes) -> None:
    more: list[UserId] = []

    def once(user: UserId) -> None:
        more.append(user)
        stop()

    stop = routes.watch(once)
    routes.duty_changed(BOB)
    routes.duty_changed(BOB)
    assert more == [BOB]


def test_a_users_servers_are_duty_and_the_pod_also_while_it_drains(routes: Routes) -> None:
    assert routes.duty_servers() == (HOME, OTHER)
    assert routes.servers_of(ALICE) == (HOME,)
    routes.set_private(ALICE, POD)
    assert routes.servers_of(ALICE) == (HOME, POD)
    routes.retire_private(ALICE)
    assert routes.servers_of(ALICE) == (HOME, POD)
    assert routes.servers_of(BOB) == (HOME,)
    assert routes.servers_of(None) == (HOME, OTHER)
    routes.clear_private(ALICE)
    assert routes.servers_of(ALICE) == (HOME,)
    assert Routes(HOME, lambda _user: HOME).servers_of(None) == (HOME,)
