"""Users are spread over the shared servers and leave a dead one."""

import logging
from collections import Counter

import pytest

from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.service.requests.duty_pool import DutyPool
from comfy_gateway.service.tasks import Tasks
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import FakeCloud
from tests.fakes.servers import FakeServers
from tests.service.world import ALICE, duty

HOST = ["duty0.test", "duty1.test", "duty2.test"]


@pytest.fixture
def servers(clock: FakeClock) -> FakeServers:
    return FakeServers(clock, FakeCloud(clock))


@pytest.fixture
def pool(servers: FakeServers, clock: FakeClock) -> DutyPool:
    return DutyPool([duty(number) for number in range(3)], servers, clock)


def users(count: int) -> list[UserId]:
    return [UserId(IdKind.NAMED, f"user{number}") for number in range(count)]


async def kill(pool: DutyPool, servers: FakeServers, *numbers: int) -> None:
    for number in numbers:
        servers.mood(HOST[number]).is_healthy = False
    await pool.probe_all()
    await pool.probe_all()


async def test_a_crowd_is_spread_before_any_probe(pool: DutyPool) -> None:
    assert Counter(pool.choose(user).id for user in users(30)) == {"duty-0": 10, "duty-1": 10, "duty-2": 10}


async def test_the_shortest_queue_wins_and_unknown_length_counts_as_none(
    pool: DutyPool, servers: FakeServers
) -> None:
    for host, queue in zip(HOST, [4, 2, 3], strict=True):
        servers.mood(host).queue = queue
    await pool.probe_all()
    assert pool.choose(None).id == "duty-1"
    servers.mood(HOST[2]).queue = None
    await pool.probe_all()
    assert pool.choose(None).id == "duty-2"


async def test_a_user_sticks_although_another_queue_is_shorter(pool: DutyPool, servers: FakeServers) -> None:
    chosen = pool.choose(ALICE)
    servers.mood(HOST[0]).queue = 50
    await pool.probe_all()
    assert pool.choose(ALICE) is chosen


async def test_nobody_in_particular_is_not_remembered(pool: DutyPool) -> None:
    assert [pool.choose(None).id for _ in range(3)] == ["duty-0"] * 3
    assert pool.choose(ALICE).id == "duty-0"


async def test_one_failure_moves_nobody_and_two_move_all(pool: DutyPool, servers: FakeServers) -> None:
    moved: list[UserId] = []
    pool.on_move(moved.append)
    crowd = users(30)
    before = {user: pool.choose(user).id for user in crowd}
    servers.mood(HOST[0]).is_healthy = False
    await pool.probe_all()
    assert not moved
    await pool.probe_all()
    assert moved == [user for user in crowd if before[user] == "duty-0"]
    assert "duty-0" not in {pool.choose(user).id for user in crowd}


async def test_those_who_leave_a_dead_server_are_spread(pool: DutyPool, servers: FakeServers) -> None:
    crowd = users(30)
    for user in crowd:
        pool.choose(user)
    await kill(pool, servers, 0)
    counts = Counter(pool.choose(user).id for user in crowd)
    assert set(counts) == {"duty-1", "duty-2"}
    assert max(counts.values()) - min(counts.values()) <= 2


async def test_users_do_not_go_back_by_themselves(pool: DutyPool, servers: FakeServers) -> None:
    pool.choose(ALICE)
    await kill(pool, servers, 0)
    moved_to = pool.choose(ALICE)
    servers.mood(HOST[0]).is_healthy = True
    await pool.probe_all()
    assert pool.choose(ALICE) is moved_to


async def test_with_none_alive_everybody_stays_and_leaves_with_the_first_that_returns(
    pool: DutyPool, servers: FakeServers
) -> None:
    moved: list[UserId] = []
    pool.on_move(moved.append)
    assert pool.choose(ALICE).id == "duty-0"
    await kill(pool, servers, 1, 2)
    await kill(pool, servers, 0)
    assert pool.choose(ALICE).id == "duty-0"
    assert not moved
    servers.mood(HOST[2]).is_healthy = True
    await pool.probe_all()
    assert moved == [ALICE]
    assert pool.choose(ALICE).id == "duty-2"


async def test_a_pool_of_one_is_never_left(servers: FakeServers, clock: FakeClock) -> None:
    pool = DutyPool([duty()], servers, clock)
    await kill(pool, servers, 0)
    assert pool.choose(ALICE) is pool.choose(None) is pool.home
    assert not pool.last_health["duty-0"].is_healthy


async def test_dying_and_returning_have_one_line_each(
    pool: DutyPool, servers: FakeServers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await pool.probe_all()
    await kill(pool, servers, 1)
    await pool.probe_all()
    servers.mood(HOST[1]).is_healthy = True
    await pool.probe_all()
    await pool.probe_all()
    assert [record.getMessage() for record in caplog.records] == [
        "duty server duty-1 does not answer: 502 Bad Gateway",
        "duty server duty-1 answers again",
    ]


async def test_a_single_failure_is_not_worth_a_line(
    pool: DutyPool, servers: FakeServers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    servers.mood(HOST[1]).is_healthy = False
    await pool.probe_all()
    servers.mood(HOST[1]).is_healthy = True
    await pool.probe_all()
    assert not caplog.records


async def test_probing_goes_on_at_the_interval_although_one_round_failed(
    pool: DutyPool, servers: FakeServers, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    def break_once(_user: UserId) -> None:
        pool.on_move(lambda _user: None)
        raise KeyError("a bug of a watcher")

    pool.on_move(break_once)
    pool.choose(ALICE)
    servers.mood(HOST[0]).is_healthy = False
    tasks = Tasks("test")
    tasks.start(pool.run(), name="duty pool")
    await clock.advance(31)
    assert servers.probes[HOST[0]] == 7
    assert "probing the duty servers failed once" in caplog.text
    await tasks.aclose()


async def test_users_who_were_not_seen_for_longest_are_forgotten_first(pool: DutyPool) -> None:
    small = DutyPool(pool.backends, pool._prober, pool._clock, max_users=2)
    one, two, three = users(3)
    for user in (one, two, one, three):
        small.choose(user)
    assert set(small._stuck) == {one, three}
