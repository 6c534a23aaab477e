"""Prompts whose answer nobody heard are looked into until it is clear what became of them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.prompts.prompts import LedgerRow, Outcome, PromptRecord
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.service.prompts.doubts import GIVE_UP_S, SETTLE_S, Doubts
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.requests.routes import Routes
from comfy_gateway.service.tasks import Tasks
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import FakeLedgerStore, ledger_in_memory
from tests.fakes.servers import FakeComfyServer
from tests.service.world import ALICE

DUTY = Backend("duty-0", Source.DUTY, Upstream("http", "duty.test", 3000))
POD = Backend("pod", Source.PRIVATE, Upstream("https", "pod.test", 443), "token")
OVERDUE_S = 400.0


class Stand:
    """A ledger with doubts, and servers that know."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.store = FakeLedgerStore()
        self.ledger = ledger_in_memory(clock, self.store)
        self.comfy = FakeComfyServer()
        self.routes = Routes(DUTY, lambda _user: DUTY, (DUTY,))
        self.accepted: list[PromptRecord] = []
        self.rescued: list[tuple[str, str]] = []
        self.doubts = self.doubts_of(self.ledger)

    def doubts_of(self, ledger: Ledger) -> Doubts:
        return Doubts(
            ledger=ledger,
            routes=self.routes,
            comfy=self.comfy,
            rescuer=self,
            clock=self.clock,
            overdue_s=OVERDUE_S,
        )

    def forgotten(self, prompt_id: str, backend_id: str) -> None:
        """As the rescue of prompts."""
        self.rescued.append((prompt_id, backend_id))

    async def send(
        self, prompt_id: str = "p1", *, user: UserId | None = ALICE, backend: Backend = DUTY
    ) -> None:
        """A prompt is on its way."""
        record = PromptRecord(prompt_id, user.key if user else None, "tab", backend.id)
        self.ledger.reserve(record, self.accepted.append)
        await self.ledger.write_down(record, b"{}", stored_body=b"{}")

    async def doubt(self, prompt_id: str = "p1", **where: Any) -> None:
        """A prompt was sent, and its answer did not come."""
        await self.send(prompt_id, **where)
        self.ledger.doubt(prompt_id)

    def outcome(self, prompt_id: str = "p1") -> Outcome | None:
        record = self.ledger.find(prompt_id)
        return None if record is None else record.outcome

    @property
    def ids(self) -> list[str]:
        return [record.prompt_id for record in self.ledger.doubtful()]


@pytest.fixture
async def stand(clock: FakeClock) -> AsyncIterator[Stand]:
    made = Stand(clock)
    tasks = Tasks("test")
    tasks.start(made.doubts.run(), name="doubts")
    yield made
    await tasks.aclose()


@pytest.mark.parametrize("user", [ALICE, None], ids=str)
async def test_what_waits_on_its_server_was_accepted(stand: Stand, user: UserId | None) -> None:
    stand.comfy.queued["duty-0"] = {"p1"}
    await stand.doubt(user=user)
    await stand.clock.advance(1)
    assert stand.outcome() is Outcome.ACCEPTED
    assert [record.prompt_id for record in stand.accepted] == ["p1"]
    assert stand.ids == []


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.ERROR, Outcome.INTERRUPTED])
async def test_what_has_ended_there_was_accepted_and_has_ended(stand: Stand, outcome: Outcome) -> None:
    stand.comfy.endings["p1"] = outcome
    await stand.doubt()
    await stand.clock.advance(1)
    assert stand.outcome() is outcome


async def test_what_stays_missing_was_not_accepted_and_its_id_is_free(stand: Stand) -> None:
    await stand.doubt()
    await stand.clock.advance(SETTLE_S)
    assert stand.ids == ["p1"], "a server checks a prompt before it puts it into the queue"
    await stand.clock.advance(3)
    assert stand.ids == []
    assert stand.outcome() is None
    assert stand.accepted == []
    await stand.send()


async def test_what_appears_late_was_accepted(stand: Stand) -> None:
    await stand.doubt()
    await stand.clock.advance(SETTLE_S - 2)
    stand.comfy.queued["duty-0"] = {"p1"}
    await stand.clock.advance(2)
    assert stand.outcome() is Outcome.ACCEPTED


async def test_silence_is_no_absence(stand: Stand) -> None:
    await stand.doubt()
    await stand.clock.advance(SETTLE_S - 2)
    stand.comfy.down = {"duty-0"}
    await stand.clock.advance(SETTLE_S)
    stand.comfy.down = set()
    await stand.clock.advance(SETTLE_S - 2)
    assert stand.ids == ["p1"], "who restarts may be slow"
    await stand.clock.advance(5)
    assert stand.ids == []


async def test_a_server_that_stays_silent_is_given_up_at_last(stand: Stand) -> None:
    stand.comfy.down = {"duty-0"}
    await stand.doubt()
    await stand.clock.advance(GIVE_UP_S - 5)
    assert stand.ids == ["p1"]
    await stand.clock.advance(10)
    assert stand.ids == []


async def test_what_was_sent_to_a_pod_that_is_gone_was_not_accepted(stand: Stand) -> None:
    stand.routes.set_private(ALICE, POD)
    stand.comfy.down = {"pod"}
    await stand.doubt(backend=POD)
    await stand.clock.advance(5)
    assert stand.ids == ["p1"]
    stand.routes.retire_private(ALICE)
    await stand.clock.advance(5)
    assert stand.ids == ["p1"], "it is still there"
    stand.routes.clear_private(ALICE)
    await stand.clock.advance(1)
    assert stand.ids == []


async def test_each_server_is_asked_for_its_own(stand: Stand) -> None:
    stand.routes.set_private(ALICE, POD)
    stand.comfy.queued = {"pod": {"p1"}, "duty-0": {"p2"}}
    await stand.doubt("p1", backend=POD)
    await stand.doubt("p2")
    await stand.doubt("p3")
    await stand.clock.advance(1)
    assert stand.ids == ["p3"]
    assert sorted(stand.comfy.asked) == ["duty-0", "pod"]


async def test_an_answer_that_is_long_overdue_will_not_come(stand: Stand) -> None:
    stand.comfy.queued["duty-0"] = {"p1"}
    await stand.send()
    await stand.clock.advance(OVERDUE_S - 1)
    assert stand.outcome() is None
    await stand.clock.advance(2)
    assert stand.outcome() is Outcome.ACCEPTED


async def test_a_fault_ends_nothing(
    stand: Stand, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_backend: Backend, _ids: object) -> object:
        raise KeyError("a bug")

    await stand.doubt()
    with monkeypatch.context() as broken:
        broken.setattr(stand.comfy, "fates", fail)
        await stand.clock.advance(1)
    assert "could not be looked into once" in caplog.text
    stand.comfy.queued["duty-0"] = {"p1"}
    await stand.clock.advance(1)
    assert stand.outcome() is Outcome.ACCEPTED


async def test_an_event_settles_a_doubt_first(stand: Stand) -> None:
    await stand.doubt()
    ledger: Ledger = stand.ledger
    ledger.end("p1", Outcome.DONE)
    await stand.clock.advance(SETTLE_S + 5)
    assert stand.outcome() is Outcome.DONE
    assert len(stand.accepted) == 1


@pytest.mark.parametrize("backend_id", ["duty-0", "a pod that is gone"])
async def test_what_an_earlier_gateway_sent_counts_as_accepted_and_lost(
    clock: FakeClock, backend_id: str
) -> None:
    """Its client may have heard 200 just before that gateway was killed, and the server may have restarted since."""
    stand = Stand(clock)
    stand.store.rows["p1"] = LedgerRow(PromptRecord("p1", ALICE.key, "tab", backend_id), is_confirmed=False)
    await stand.ledger.load()
    assert stand.ids == ["p1"]
    for _ in range(int(SETTLE_S) + 3):
        await stand.doubts.look()
        await clock.advance(1)
    assert stand.ids == []
    assert stand.outcome() is Outcome.ACCEPTED
    assert stand.rescued == [("p1", backend_id)]
