"""Sessions of browsers: begun, found, prolonged, ended for good."""

import pytest

from comfy_gateway.core.errors import StoreUnavailable
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.session_cookie import SessionCookies, SignedIn
from comfy_gateway.service.people.signed_in import LOOK_EVERY_S, SignedInSessions
from comfy_gateway.service.tasks import Tasks
from tests.fakes.clock import FakeClock
from tests.fakes.sign_outs import FakeSignOuts

KEYS = Keys(bytes(range(32)))
LIFE_S = 1000.0


class Stand:
    """One gateway's sessions."""

    def __init__(self, clock: FakeClock, store: FakeSignOuts) -> None:
        self.sessions = SignedInSessions(
            cookies=SessionCookies(KEYS.session_key(), "tokens"), store=store, clock=clock, life_s=LIFE_S
        )

    def cookie(self, session: SignedIn) -> str:
        """What the browser sends back."""
        return self.sessions.cookie(session, secure=False).partition(";")[0].partition("=")[2]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> FakeSignOuts:
    return FakeSignOuts()


@pytest.fixture
def stand(clock: FakeClock, store: FakeSignOuts) -> Stand:
    return Stand(clock, store)


async def test_a_session_is_found_by_its_cookie_until_its_time_is_over(
    stand: Stand, clock: FakeClock
) -> None:
    session = stand.sessions.begin("alice", "seal")
    cookie = stand.cookie(session)
    assert stand.sessions.find(["rubbish", cookie]) == session
    assert stand.sessions.find([]) is None
    await clock.advance(LIFE_S - 1)
    assert stand.sessions.find([cookie]) == session
    await clock.advance(1)
    assert stand.sessions.find([cookie]) is None


async def test_a_session_that_is_used_is_prolonged_from_its_half_on(stand: Stand, clock: FakeClock) -> None:
    session = stand.sessions.begin("alice", "seal")
    await clock.advance(LIFE_S / 2 - 1)
    assert stand.sessions.prolonged(session) is None
    await clock.advance(1)
    longer = stand.sessions.prolonged(session)
    assert longer is not None
    assert longer.session_id == session.session_id
    assert longer.ends_at_s == session.ends_at_s + LIFE_S / 2


async def test_a_copied_cookie_is_worthless_after_signing_out_also_a_prolonged_one(
    stand: Stand, clock: FakeClock
) -> None:
    told: list[str] = []
    stand.sessions.on_end(told.append)
    session = stand.sessions.begin("alice", "seal")
    other = stand.sessions.begin("alice", "seal")
    await clock.advance(LIFE_S / 2)
    longer = stand.sessions.prolonged(session)
    assert longer is not None
    await stand.sessions.end(session.session_id, "alice")
    assert told == ["alice"]
    assert stand.sessions.find([stand.cookie(session), stand.cookie(longer)]) is None
    assert stand.sessions.find([stand.cookie(other)]) == other, "another browser stays signed in"
    await clock.advance(LIFE_S / 2 + 1)
    await stand.sessions.load()
    assert stand.sessions.find([stand.cookie(longer)]) is None


async def test_a_sign_out_outlives_a_restart_and_reaches_other_gateways(
    stand: Stand, clock: FakeClock, store: FakeSignOuts
) -> None:
    other, tasks = Stand(clock, store), Tasks("test")
    tasks.start(other.sessions.run(), name="sessions")
    session = stand.sessions.begin("alice", "seal")
    assert other.sessions.find([stand.cookie(session)]) == session
    await stand.sessions.end(session.session_id, "alice")
    await clock.advance(LOOK_EVERY_S)
    assert other.sessions.find([stand.cookie(session)]) is None
    restarted = Stand(clock, store)
    await restarted.sessions.load()
    assert restarted.sessions.find([stand.cookie(session)]) is None
    await tasks.aclose()


async def test_a_database_that_is_down_keeps_nobody_from_signing_out(
    stand: Stand, clock: FakeClock, store: FakeSignOuts, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = Tasks("test")
    tasks.start(stand.sessions.run(), name="sessions")
    session = stand.sessions.begin("alice", "seal")
    store.is_down = True
    await stand.sessions.end(session.session_id, "alice")
    assert "will not outlive this gateway" in caplog.text
    await clock.advance(LOOK_EVERY_S)
    assert stand.sessions.find([stand.cookie(session)]) is None
    with pytest.raises(StoreUnavailable):
        await stand.sessions.load()
    store.is_down = False
    await clock.advance(LOOK_EVERY_S)
    assert stand.sessions.find([stand.cookie(session)]) is None
    await tasks.aclose()


async def test_what_would_have_ended_by_itself_is_forgotten(stand: Stand, clock: FakeClock) -> None:
    session = stand.sessions.begin("alice", "seal")
    await stand.sessions.end(session.session_id, "alice")
    await clock.advance(LIFE_S + 1)
    await stand.sessions.load()
    assert not stand.sessions._ended
