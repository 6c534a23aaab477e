"""Entries of ended prompts, read from scripted servers on the fake clock."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.results.archive import Archive
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import ledger_in_memory
from tests.fakes.servers import FakeComfyServer

HOME = Backend("duty-0", Source.DUTY, Upstream("http", "duty0.test", 3000))
POD = Backend("comfy-gw-alice-a1", Source.PRIVATE, Upstream("http", "pod.test", 80), "t", "private-a1")
ALICE = "named:alice"
FILE = {"filename": "a.png", "subfolder": "", "type": "output"}


def raw_entry(prompt_id: str = "p1", **outputs: Any) -> dict[str, Any]:
    """As a server has it."""
    extra_data = {"client_id": "hashed", "api_key_comfy_org": "secret"}
    return {
        "prompt": [77, prompt_id, {"9": {}}, extra_data, ["9"]],
        "outputs": outputs or {"9": {"images": [FILE]}},
        "status": {"status_str": "success", "completed": True, "messages": []},
    }


@dataclass
class History(FakeComfyServer):
    """Answers with the very entries that a test writes down, after some looks in vain."""

    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    looks: list[str] = field(default_factory=list)
    empty_looks: int = 0

    async def entry(self, backend: Backend, prompt_id: str) -> dict[str, Any] | None:
        self.looks.append(prompt_id)
        self._check(backend)
        if self.empty_looks:
            self.empty_looks -= 1
            return None
        return self.entries.get(prompt_id)


@dataclass
class Stand:
    """An archive on the fake clock."""

    clock: FakeClock
    ledger: Ledger
    server: History
    archive: Archive
    backends: dict[str, Backend]
    named: list[tuple[str | None, str, str, FileName]]

    def find(self, record: PromptRecord) -> Backend | None:
        """Implements ``service.results.archive.Servers``."""
        return self.backends.get(record.backend_id)

    def note(self, user_key: str | None, backend: Backend, prompt_id: str, file: FileName) -> None:
        self.named.append((user_key, backend.id, prompt_id, file))

    def accept(self, prompt_id: str = "p1", backend: Backend = POD, *, begins: bool = True) -> None:
        self.ledger.accept(PromptRecord(prompt_id, ALICE, "alices-sid", backend.id, number=5))
        if begins:
            self.ledger.begin(prompt_id)

    def end(self, prompt_id: str = "p1", outcome: Outcome = Outcome.DONE) -> None:
        self.ledger.end(prompt_id, outcome)

    async def kept(self, prompt_id: str = "p1") -> dict[str, Any] | None:
        return await self.ledger.entry(prompt_id)


@pytest.fixture
async def stand(clock: FakeClock) -> AsyncIterator[Stand]:
    backends = {backend.id: backend for backend in (HOME, POD)}
    ledger, server = ledger_in_memory(clock), History(entries={"p1": raw_entry()})
    made = Stand(clock, ledger, server, None, backends, [])  # type: ignore[arg-type]
    made.archive = Archive(entries=ledger, comfy=server, servers=made, clock=clock, named=made.note)
    ledger.watch(made.archive.prompt_changed)
    yield made
    await made.archive.aclose()


@contextmanager
def down(stand: Stand, backend: Backend = POD) -> Iterator[None]:
    stand.server.down.add(backend.id)
    yield
    stand.server.down.discard(backend.id)


async def test_an_entry_is_kept_as_its_owner_is_to_see_it(stand: Stand) -> None:
    stand.accept()
    stand.end()
    assert stand.archive.is_busy(POD.id)
    await stand.clock.advance(1)
    assert not stand.archive.is_busy(POD.id)
    assert await stand.kept() == {
        "prompt": [5, "p1", {"9": {}}, {"client_id": "alices-sid"}, ["9"]],
        "outputs": {"9": {"images": [FILE | {"subfolder": "private-a1"}]}},
        "status": {"status_str": "success", "completed": True, "messages": []},
    }
    assert stand.server.looks == ["p1"]


async def test_the_files_of_an_entry_are_named_by_the_servers_own_names(stand: Stand) -> None:
    stand.accept()
    stand.end()
    await stand.clock.advance(1)
    assert stand.named == [(ALICE, POD.id, "p1", FileName("a.png"))]


async def test_the_entry_of_a_shared_server_is_kept_too(stand: Stand) -> None:
    stand.accept(backend=HOME)
    stand.end()
    await stand.clock.advance(1)
    kept = await stand.kept()
    assert kept is not None
    assert kept["outputs"] == {"9": {"images": [FILE]}}


async def test_an_entry_that_is_written_a_moment_later_is_waited_for(stand: Stand) -> None:
    stand.server.empty_looks = 3
    stand.accept()
    stand.end()
    await stand.clock.advance(10)
    assert await stand.kept() is not None
    assert len(stand.server.looks) == 4


async def test_a_server_that_does_not_answer_is_asked_until_it_does(stand: Stand) -> None:
    stand.accept()
    with down(stand):
        stand.end()
        await stand.clock.advance(500)
        assert await stand.kept() is None
        assert stand.archive.is_busy(POD.id)
        assert len(stand.server.looks) < 30
    await stand.clock.advance(31)
    assert await stand.kept() is not None


async def test_a_server_that_is_away_for_an_hour_is_not_asked_for_ever(stand: Stand) -> None:
    stand.accept(backend=HOME)
    with down(stand, HOME):
        stand.end()
        await stand.clock.advance(3700)
        assert not stand.archive.is_busy(HOME.id)
    kept = await stand.kept()
    assert kept is not None
    assert kept["status"]["status_str"] == "success"


async def test_an_entry_is_made_up_from_what_events_named_when_its_pod_is_gone(stand: Stand) -> None:
    stand.accept()
    other = replace(POD, id="another", alias="private-b2")
    stand.archive.file_named(ALICE, other, "p1", FileName("of-the-first-run.png"))
    stand.archive.file_named(ALICE, POD, "p1", FileName("a.png", "x"))
    stand.archive.file_named(ALICE, POD, "p1", FileName("a.png", "x"))
    del stand.backends[POD.id]
    await stand.clock.advance(5)
    stand.end()
    await stand.clock.advance(1)
    kept = await stand.kept()
    assert kept is not None
    assert kept["prompt"] == [5, "p1", {}, {"client_id": "alices-sid"}, []]
    assert kept["outputs"] == {
        "0": {"images": [{"filename": "a.png", "subfolder": "private-a1/x", "type": "output"}]}
    }
    assert [message[0] for message in kept["status"]["messages"]] == ["execution_start", "execution_success"]
    times = [message[1]["timestamp"] for message in kept["status"]["messages"]]
    assert times[1] - times[0] == 5000


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [(Outcome.ERROR, "execution_error"), (Outcome.INTERRUPTED, "execution_interrupted")],
)
async def test_a_made_up_entry_says_how_the_prompt_ended(
    stand: Stand, outcome: Outcome, verdict: str
) -> None:
    stand.accept()
    stand.server.entries.clear()
    stand.end(outcome=outcome)
    await stand.clock.advance(20)
    kept = await stand.kept()
    assert kept is not None
    assert kept["outputs"] == {}
    assert kept["status"]["status_str"] == "error"
    assert kept["status"]["messages"][-1][0] == verdict


async def test_a_prompt_that_was_taken_out_of_the_queue_has_no_entry(stand: Stand) -> None:
    stand.server.entries.clear()
    stand.accept(begins=False)
    stand.end(outcome=Outcome.INTERRUPTED)
    await stand.clock.advance(20)
    assert await stand.kept() is None


async def test_the_entry_of_a_lost_prompt_is_left_to_whoever_found_it_lost(stand: Stand) -> None:
    stand.accept()
    stand.archive.file_named(ALICE, POD, "p1", FileName("a.png"))
    stand.end(outcome=Outcome.LOST)
    await stand.clock.advance(20)
    assert stand.server.looks == []
    assert not stand.archive._outputs


async def test_outputs_of_prompts_without_end_are_forgotten_the_oldest_first(stand: Stand) -> None:
    for number in range(5_001):
        stand.archive.file_named(ALICE, POD, f"p{number}", FileName("a.png"))
    assert len(stand.archive._outputs) == 5_000
    assert "p0" not in stand.archive._outputs


async def test_after_a_restart_files_are_named_again_and_missing_entries_are_read(stand: Stand) -> None:
    stand.accept("p1")
    stand.end("p1")
    await stand.clock.advance(1)
    with down(stand):
        stand.server.entries |= {"p2": raw_entry("p2")}
        stand.accept("p2")
        stand.end("p2")
        await stand.archive.aclose()
    stand.accept("p3")
    stand.named.clear()
    await stand.clock.advance(5000)

    second = Archive(
        entries=stand.ledger, comfy=stand.server, servers=stand, clock=stand.clock, named=stand.note
    )
    await second.resume({POD.id: ALICE})
    await stand.clock.advance(1)
    assert await stand.kept("p2") is not None
    assert await stand.kept("p3") is None
    assert sorted(prompt_id for _, _, prompt_id, _ in stand.named) == ["p1", "p2"]
    assert {file for _, _, _, file in stand.named} == {FileName("a.png")}
    await second.aclose()


async def test_after_a_restart_recent_prompts_of_shared_servers_are_looked_at_too(stand: Stand) -> None:
    await stand.archive.aclose()
    stand.server.entries |= {"old": raw_entry("old"), "new": raw_entry("new")}
    second = Archive(
        entries=stand.ledger, comfy=stand.server, servers=stand, clock=stand.clock, named=stand.note
    )
    for prompt_id in ("old", "new"):
        stand.ledger.accept(
            PromptRecord(
                prompt_id,
                ALICE,
                "sid",
                HOME.id,
                Outcome.DONE,
                ended_at=stand.clock.now() - timedelta(seconds=5000 if prompt_id == "old" else 60),
            )
        )
    await second.resume({})
    await stand.clock.advance(1)
    assert await stand.kept("old") is None
    assert await stand.kept("new") is not None
    await second.aclose()
