"""The vault over a simulated ComfyUI, the real agent, a real disk and SQLite."""

import asyncio
import hashlib
import logging
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from comfy_gateway.adapters.local_files import LocalFiles
from comfy_gateway.adapters.vault_disk import ThreadedDisk
from comfy_gateway.core.errors import StorageUnavailable, StoreUnavailable
from comfy_gateway.core.files.files import FileName, shown
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.core.vault.ports import VaultPart
from comfy_gateway.core.vault.vault import StoredFile
from simulators.comfyui.big_file import big_file_blocks, big_file_sha256
from tests.conditions import wait_for
from tests.fakes.clock import FakeClock
from tests.service.vault_stand import (
    ALIAS,
    ALICE,
    BOB,
    NAME,
    Stand,
    pod_stand,
    vault_of,
    vault_stand,
)

MIB = 1024 * 1024


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with vault_stand(tmp_path) as made:
        yield made


def record(prompt_id: str, ended_at: datetime | None = None) -> PromptRecord:
    return PromptRecord(prompt_id, ALICE, "sid", NAME, Outcome.DONE, ended_at=ended_at)


def entry(*files: FileName) -> dict[str, Any]:
    """As the ledger keeps it."""
    told = [
        {"filename": file.filename, "subfolder": shown(file, ALIAS).subfolder, "type": file.type}
        for file in files
    ]
    return {"prompt": [1, "p", {}, {}, []], "outputs": {"9": {"images": told}}, "status": {}}


def named_in(told: dict[str, Any]) -> list[str]:
    return [f"{file['subfolder']}/{file['filename']}" for file in told["outputs"]["9"]["images"]]


# -- copying


async def test_a_named_output_is_kept_where_people_find_it_and_nobody_else_looks(stand: Stand) -> None:
    file = stand.pod.make(data=b"alice's picture", subfolder="portraits")
    stand.name(file)
    await stand.stored()
    assert await stand.content(file) == b"alice's picture"
    assert stand.files() == [f"{ALIAS}/portraits/ComfyUI_00001_.png"]
    [path] = stand.root.rglob("*.png")
    assert path.relative_to(stand.root).parts[0].startswith("named-alice-")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_mtime_ns == (stand.pod.output / file.path).stat().st_mtime_ns
    stored = await stand.find(file)
    assert stored is not None
    assert stored.sha256 == hashlib.sha256(b"alice's picture").hexdigest()
    assert stored.prompt_id == "p1"


async def test_temporary_files_are_kept_beside_the_outputs(stand: Stand) -> None:
    output = stand.pod.make("a.png", b"output")
    temporary = stand.pod.make_temp("a.png", b"preview")
    stand.name(output)
    stand.name(temporary)
    await stand.stored(2)
    assert await stand.content(output) == b"output"
    assert await stand.content(temporary) == b"preview"


async def test_a_file_that_many_prompts_name_is_copied_once(stand: Stand) -> None:
    data = bytes(MIB)
    file = stand.pod.make(data=data)
    for number in range(20):
        stand.name(file, f"p{number}")
        if number % 5 == 0:
            await stand.stored()
    await stand.stored()
    assert stand.vault.stats.files_stored == 1
    assert stand.pod.comfyui.passed_bytes < 2 * len(data)
    assert len(stand.files()) == 1


async def test_the_ending_that_names_a_file_again_asks_nothing(stand: Stand) -> None:
    file = stand.pod.make()
    stand.name(file)
    await stand.stored()
    asked = stand.pod.views
    stand.name(file)
    assert stand.vault.stats.files_waiting == 0
    assert stand.pod.views == asked


async def test_what_other_servers_and_nobody_name_is_not_copied(stand: Stand) -> None:
    file = stand.pod.make()
    duty = Backend("duty-1", Source.DUTY, Upstream("http", "127.0.0.1", 9), alias="server-0a1b2c3d")
    stand.vault.note(ALICE, duty, "p1", file)
    stand.name(file, user_key=None)
    stand.name(FileName("uploaded.png", "", "input"))
    assert stand.vault.stats.files_waiting == 0


async def test_the_vault_of_another_user_cannot_be_reached(stand: Stand) -> None:
    file = stand.pod.make()
    stand.name(file)
    await stand.stored()
    name = shown(file, ALIAS)
    assert stand.vault.holds(ALICE, name)
    for other in (BOB, None):
        assert not stand.vault.holds(other, name)
        assert await stand.vault.find(other, name) is None
        [told] = await stand.vault.openable(other, [(replace(record("p1"), user_key=other), entry(file))])
        if other is not None:
            stand.places.serving.clear()
            [told] = await stand.vault.openable(other, [(record("p1"), entry(file))])
            assert named_in(told) == []


async def test_names_that_are_not_kept_are_not_found(stand: Stand) -> None:
    stand.name(stand.pod.make())
    await stand.stored()
    for name in (
        FileName("ComfyUI_00001_.png"),
        FileName("ComfyUI_00002_.png", ALIAS),
        FileName("ComfyUI_00001_.png", ALIAS, "temp"),
        FileName("ComfyUI_00001_.png", f"{ALIAS}@7"),
        FileName("ComfyUI_00001_.png", f"{ALIAS}/../{ALIAS}"),
        FileName("../ComfyUI_00001_.png", f"{ALIAS}/x"),
    ):
        assert await stand.vault.find(ALICE, name) is None


# -- a file that is written again


async def test_every_content_of_a_file_that_a_node_writes_again_keeps_an_address(stand: Stand) -> None:
    file = stand.pod.make("latest.png", b"first")
    stand.name(file, "p1")
    await stand.stored(1)
    stand.pod.make("latest.png", b"second!")
    stand.name(file, "p2")
    await stand.stored(2)
    assert await stand.content(file) == b"second!"
    assert await stand.content_of(FileName("latest.png", f"{ALIAS}@1")) == b"first"
    assert stand.vault.holds(ALICE, FileName("latest.png", f"{ALIAS}@1"))

    first, second = await stand.vault.openable(
        ALICE, [(record("p1"), entry(file)), (record("p2"), entry(file))]
    )
    assert named_in(first) == [f"{ALIAS}@1/latest.png"]
    assert named_in(second) == [f"{ALIAS}/latest.png"]


async def test_a_file_that_is_written_again_alike_is_no_new_content(stand: Stand) -> None:
    file = stand.pod.make(data=b"same")
    stand.name(file, "p1")
    await stand.stored()
    before = await stand.find(file)
    stand.pod.make(data=b"same")
    stand.name(file, "p2")
    await stand.stored()
    after = await stand.find(file)
    assert before is not None
    assert after is not None
    assert (after.version, after.path) == (before.version, before.path)
    assert after.etag != before.etag, "the next question is answered without the content"
    assert len(stand.files()) == 1


# -- connections that break, pods that die


async def test_a_copy_that_breaks_goes_on_where_it_broke(stand: Stand) -> None:
    data = b"".join(big_file_blocks("pod", 1, 8 * MIB))
    file = stand.pod.make("film.mp4", data)
    stand.pod.comfyui.cut_after_bytes = [3 * MIB]
    stand.pod.agent.cut_after_bytes = [3 * MIB]
    stand.name(file)
    await stand.stored()
    assert await stand.content(file) == data
    assert stand.pod.comfyui.passed_bytes + stand.pod.agent.passed_bytes < len(data) + 2 * MIB
    assert len(stand.files()) == 1


async def test_a_file_that_changes_while_it_is_copied_is_copied_as_it_is_then(stand: Stand) -> None:
    data = b"".join(big_file_blocks("pod", 1, 4 * MIB))
    file = stand.pod.make("film.mp4", data)
    stand.pod.comfyui.cut_after_bytes = [2 * MIB]
    stand.pod.agent.is_dead = True
    stand.name(file)
    await wait_for(lambda: stand.vault.stats.copies_failed, "the break")
    stand.pod.make("film.mp4", data[::-1])
    await stand.stored()
    assert await stand.content(file) == data[::-1]
    assert len(stand.files()) == 1


async def test_a_pod_that_dies_in_the_middle_leaves_nothing_half(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    whole = stand.pod.make("whole.png", b"whole")
    half = stand.pod.make("half.mp4", bytes(8 * MIB))
    stand.name(whole)
    await stand.stored()
    stand.pod.comfyui.cut_after_bytes = [MIB]
    doubted: list[UserId] = []
    stand.vault.on_failure(doubted.append)
    stand.name(half)
    await wait_for(lambda: stand.vault.stats.copies_failed, "the break")
    assert doubted[0] == UserId.from_key(ALICE), "the pod is looked at"
    stand.pod.die()
    report = await stand.vault.complete(NAME, 20, patience_s=0.5)
    assert not report.is_complete
    assert report.owed == 1
    assert "has not answered" in report.reason
    stand.end_pod()
    await wait_for(lambda: stand.files() == [f"{ALIAS}/whole.png"], "the half to go")
    assert stand.vault.stats.files_lost == 1
    assert stand.vault.stats.pods_incomplete == 1
    assert [line.message for line in caplog.records if line.levelno == logging.ERROR] == [
        f"pod {NAME} has ended, and 1 files that it made are lost"
    ]
    [told] = await stand.vault.openable(ALICE, [(record("p1"), entry(whole, half))])
    assert named_in(told) == [f"{ALIAS}/whole.png"]
    assert await stand.content(half) is None


async def test_outputs_are_saved_by_the_agent_when_comfyui_has_died(stand: Stand) -> None:
    file = stand.pod.make(data=b"saved")
    stand.pod.comfyui.is_dead = True
    stand.name(file)
    report = await stand.vault.complete(NAME, 20)
    assert report.is_complete
    assert await stand.content(file) == b"saved"


async def test_a_file_that_the_pod_does_not_have_is_given_up(stand: Stand) -> None:
    stand.name(FileName("never-was.png"))
    report = await stand.vault.complete(NAME, 20)
    assert report.is_complete
    assert stand.vault.stats.files_waiting == 0
    stand.end_pod()
    assert stand.vault.stats.files_lost == 1


@pytest.mark.parametrize(
    "file",
    [
        FileName("../../../../etc/passwd"),
        FileName("passwd", "/etc"),
        FileName("passwd", "a/../../etc"),
        FileName("a\0b.png"),
        FileName("x" * 5000),
        FileName("a\\b.png"),
    ],
)
async def test_a_hostile_name_is_told_once_and_never_asked_for(
    stand: Stand, file: FileName, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        stand.name(file, f"p{number}")
    assert stand.vault.stats.files_waiting == 0
    assert stand.vault.stats.names_refused == 1
    assert len(caplog.records) == 1
    assert len(caplog.records[0].getMessage()) < 250
    assert stand.pod.views == 0


async def test_names_that_differ_in_case_only_are_two_files(stand: Stand) -> None:
    files = [stand.pod.make("A.png", b"upper"), stand.pod.make("a.png", b"lower")]
    for file in files:
        stand.name(file)
    await stand.stored(2)
    assert [await stand.content(file) for file in files] == [b"upper", b"lower"]
    assert len({name.casefold() for name in stand.files()}) == 2


async def test_hundreds_of_files_are_copied_a_few_at_a_time(stand: Stand) -> None:
    files = [stand.pod.make(f"{number}.png", b"%d" % number) for number in range(300)]
    for file in files:
        stand.name(file)
    await stand.stored(300, deadline_s=30)
    assert [await stand.content(file) for file in files[::50]] == [
        b"%d" % number for number in range(0, 300, 50)
    ]
    assert stand.pod.comfyui.connections <= 4


async def test_a_file_larger_than_the_vault_is_not_begun(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with vault_stand(tmp_path, max_file_bytes=MIB) as stand:
        small, large = stand.pod.make("small", bytes(MIB)), stand.pod.make("large", bytes(MIB + 1))
        stand.name(small)
        stand.name(large)
        await stand.stored(1)
        await wait_for(lambda: not stand.vault.stats.files_waiting, "the large one to be given up")
        assert stand.files() == [f"{ALIAS}/small"]
        assert "larger than the vault" in caplog.text
        report = await stand.vault.complete(NAME, 20)
        assert report.is_complete


# -- a disk or a database that does not work


class FullDisk(ThreadedDisk):
    """A real disk that is full for as long as the test likes."""

    def __init__(self, root: Path) -> None:
        super().__init__(LocalFiles(root, reserve_bytes=0))
        self.is_full = True

    async def create(self, path: str, expected_bytes: int | None = None) -> Any:
        if self.is_full:
            raise StorageUnavailable("No space left on device")
        return await super().create(path, expected_bytes)


async def test_a_full_disk_is_said_once_and_keeps_the_pod_until_its_deadline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FullDisk(tmp_path / "state" / "vault")
    async with vault_stand(tmp_path, disk=disk) as stand:
        file = stand.pod.make(data=b"patient")
        for number in range(5):
            stand.name(stand.pod.make(f"{number}.png"))
        stand.name(file)
        report = await stand.vault.complete(NAME, 0.5)
        assert not report.is_complete
        assert report.reason == "the vault cannot be written: No space left on device"
        assert report.owed == 6
        assert stand.vault.stats.is_broken == 1
        assert len([line for line in caplog.records if line.levelno == logging.ERROR]) == 1
        disk.is_full = False
        await stand.stored(6)
        assert stand.vault.stats.is_broken == 0
        assert await stand.content(file) == b"patient"


async def test_a_second_wait_for_a_pod_does_not_begin_the_deadline_anew(tmp_path: Path) -> None:
    async with vault_stand(tmp_path, disk=FullDisk(tmp_path / "state" / "vault")) as stand:
        stand.name(stand.pod.make())
        await stand.vault.complete(NAME, 0.3)
        async with asyncio.timeout(2):
            assert not (await stand.vault.complete(NAME, 300)).is_complete


async def test_a_folder_that_cannot_be_written_is_said_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "vault").write_text("a file in its place")
    async with vault_stand(tmp_path) as stand:
        assert stand.vault.stats.is_broken == 1
        assert "The vault cannot be written" in caplog.text
        assert str(tmp_path) not in caplog.text


class Rows:
    """The real rows behind a database that does not answer for as long as the test likes."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self.is_down = True

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._rows, name)

        async def asked(*arguments: Any, **options: Any) -> Any:
            if self.is_down:
                raise StoreUnavailable("the database does not answer")
            return await call(*arguments, **options)

        return asked


async def test_a_file_waits_for_its_row(stand: Stand) -> None:
    rows = Rows(stand.rows)
    rows.is_down = False
    async with (
        pod_stand(stand.root.parent / "other") as pod,
        vault_of(stand.root.parent, pod, rows=rows) as other,
    ):
        first = other.pod.make("first.png")
        other.name(first)
        await other.stored()
        rows.is_down = True
        second = other.pod.make("second.png", b"second")
        other.name(second)
        await wait_for(lambda: f"{ALIAS}/second.png" in other.files(), "the file on the disk")
        assert other.vault.in_flight(NAME) == 1
        [told] = await other.vault.openable(ALICE, [(record("p1"), entry(first))])
        assert named_in(told) == [f"{ALIAS}/first.png"], "history is shown all the same"
        rows.is_down = False
        await other.stored(2)
        assert await other.content(second) == b"second"


# -- the end of a pod


async def test_what_no_prompt_named_is_found_by_the_sweep_and_told_safe(stand: Stand) -> None:
    named = stand.pod.make("named.png", b"named")
    unnamed = stand.pod.make("unnamed.latent", b"unnamed", subfolder="latents/deep")
    stand.name(named)
    await stand.stored()
    assert await stand.told_safe() == ["latents/deep/unnamed.latent", "named.png"]
    report = await stand.vault.complete(NAME, 20)
    assert report.is_complete
    assert report.copied == 2
    assert await stand.content(unnamed) == b"unnamed"
    assert await stand.told_safe() == []
    stored = await stand.find(unnamed)
    assert stored is not None
    assert stored.prompt_id is None


async def test_the_sweep_sees_that_a_named_file_was_written_again(stand: Stand) -> None:
    file = stand.pod.make("log.txt", b"one line")
    stand.name(file)
    await stand.stored()
    stand.pod.make("log.txt", b"one line and another")
    report = await stand.vault.complete(NAME, 20)
    assert report.is_complete
    assert await stand.content(file) == b"one line and another"
    [told] = await stand.vault.openable(ALICE, [(record("p1"), entry(file))])
    assert named_in(told) == [f"{ALIAS}@1/log.txt"]


async def test_a_pod_without_an_agent_is_complete_when_what_was_named_is_safe(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with vault_stand(tmp_path, has_agent=False) as stand:
        file = stand.pod.make()
        stand.name(file)
        report = await stand.vault.complete(NAME, 20, patience_s=0.5)
        assert report.is_complete
        assert report.reason.startswith("not swept")
        assert await stand.content(file) == b"picture"
        assert "not swept" in caplog.text


async def test_a_pod_that_never_made_anything_is_complete_at_once(stand: Stand) -> None:
    report = await stand.vault.complete(NAME, 20)
    assert report == await stand.vault.complete(NAME, 20) or report.is_complete
    assert report.copied == 0
    asked = len(stand.pod.simulator.requests)
    assert (await stand.vault.complete(NAME, 20)).is_complete
    assert len(stand.pod.simulator.requests) == asked
    stand.end_pod()
    assert (await stand.vault.complete(NAME, 20)).is_complete
    assert stand.vault.stats.files_lost == stand.vault.stats.pods_incomplete == 0


async def test_a_file_that_is_named_after_all_was_safe_is_waited_for_again(stand: Stand) -> None:
    assert (await stand.vault.complete(NAME, 20)).is_complete
    file = stand.pod.make("late.png", b"late")
    stand.name(file)
    assert (await stand.vault.complete(NAME, 20)).is_complete
    assert await stand.content(file) == b"late"


class Busy:
    """Implements ``service.vault.vault.Pending``."""

    def __init__(self) -> None:
        self.busy = {NAME}

    def is_busy(self, backend_id: str) -> bool:
        return backend_id in self.busy


async def test_the_history_of_a_pod_is_waited_for_too(stand: Stand) -> None:
    pending = Busy()
    stand.vault.wait_for(pending)
    completing = asyncio.ensure_future(stand.vault.complete(NAME, 20))
    report = await stand.vault.complete(NAME, 0.4, patience_s=0.2)
    assert report.is_complete, "a pod that is to go at once is not held by its history"
    pending.busy.clear()
    assert (await completing).is_complete


async def test_a_pod_whose_history_does_not_come_is_let_go_at_the_deadline(stand: Stand) -> None:
    stand.vault.wait_for(Busy())
    report = await stand.vault.complete(NAME, 0.4)
    assert not report.is_complete
    assert report.reason == "its history was not read in time"


async def test_files_of_a_pod_that_is_gone_are_not_wanted_any_more(stand: Stand) -> None:
    stand.end_pod()
    stand.name(stand.pod.make())
    assert stand.vault.stats.files_waiting == 0


# -- idle or not


async def test_a_pod_from_which_something_is_copied_is_not_idle_but_not_for_ever(tmp_path: Path) -> None:
    clock = FakeClock()
    async with vault_stand(tmp_path, clock=clock, hold_s=300) as stand:
        stand.pod.comfyui.held.clear()
        stand.name(stand.pod.make())
        assert stand.vault.in_flight(NAME) == 1
        assert stand.vault.in_flight("another-pod") == 0
        await clock.advance(59)
        assert stand.vault.in_flight(NAME) == 1
        await clock.advance(2)
        assert stand.vault.in_flight(NAME) == 0, "nothing has moved for a minute"
        stand.pod.comfyui.held.set()
        await wait_for(lambda: stand.vault.stats.files_stored, "the copy")
        assert stand.vault.in_flight(NAME) == 0


async def test_a_copy_that_crawls_does_not_hold_its_pod_beyond_the_deadline(tmp_path: Path) -> None:
    clock = FakeClock()
    async with vault_stand(tmp_path, clock=clock, hold_s=300) as stand:
        stand.pod.comfyui.held.clear()
        stand.name(stand.pod.make())
        copies = stand.vault._copies[NAME]
        for _ in range(29):
            await clock.advance(10)
            copies.moved(1)
            assert stand.vault.in_flight(NAME) == 1
        await clock.advance(11)
        copies.moved(1)
        assert stand.vault.in_flight(NAME) == 0


# -- ends and beginnings


async def test_a_gateway_that_stops_leaves_nothing_half_done_and_is_quick(stand: Stand) -> None:
    stand.pod.make("film.mp4", bytes(8 * MIB))
    stand.pod.comfyui.cut_after_bytes = [MIB] * 100
    stand.pod.agent.is_dead = True
    stand.name(FileName("film.mp4"))
    await wait_for(stand.files, "the part")
    async with asyncio.timeout(2):
        await stand.vault.aclose()
    assert stand.files() == []


class HangingDisk(ThreadedDisk):
    """Takes a content and never comes back with it."""

    async def create(self, path: str, expected_bytes: int | None = None) -> Any:
        part: VaultPart = await super().create(path, expected_bytes)

        class Hanging:
            size_bytes = 0

            async def write(self, chunk: bytes) -> None:
                await asyncio.sleep(3600)

            async def discard(self) -> None:
                await part.discard()
                await asyncio.sleep(3600)

        return Hanging()


async def test_a_disk_that_hangs_does_not_hold_a_gateway_that_stops(tmp_path: Path) -> None:
    disk = HangingDisk(LocalFiles(tmp_path / "state" / "vault", reserve_bytes=0))
    async with vault_stand(tmp_path, disk=disk) as stand:
        stand.name(stand.pod.make())
        await wait_for(lambda: stand.pod.views, "the copy to begin")
        async with asyncio.timeout(4):
            await stand.vault.aclose()


async def test_the_next_gateway_finds_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    async with pod_stand(tmp_path / "pod") as pod:
        safe, owed = pod.make("safe.png", b"safe"), pod.make("owed.png", b"owed")
        async with vault_of(tmp_path, pod) as first:
            first.name(safe)
            await first.stored()
        async with vault_of(tmp_path, pod) as second:
            assert second.vault.holds(ALICE, shown(safe, ALIAS))
            assert second.vault.stats.size_bytes == 4
            assert await second.content(safe) == b"safe"
            second.name(safe, "p1")  # as the kept entries do after a start
            assert (await second.vault.complete(NAME, 20)).is_complete
            assert second.vault.stats.files_stored == 1
            assert await second.content(owed) == b"owed"
            assert len(second.files()) == 2


async def test_a_version_that_an_earlier_gateway_kept_is_not_written_over(tmp_path: Path) -> None:
    async with pod_stand(tmp_path / "pod") as pod:
        file = pod.make("latest.png", b"first")
        async with vault_of(tmp_path, pod) as first:
            first.name(file, "p1")
            await first.stored()
        pod.make("latest.png", b"second!")
        async with vault_of(tmp_path, pod) as second:
            second.name(file, "p2")
            await second.stored()
            assert await second.content(file) == b"second!"
            assert await second.content_of(FileName("latest.png", f"{ALIAS}@1")) == b"first"


# -- what history shows


async def test_history_shows_what_opens(stand: Stand) -> None:
    here, waiting = stand.pod.make("here.png"), stand.pod.make("waiting.png")
    stand.name(here)
    await stand.stored()
    both = [(record("p1"), entry(here, waiting))]
    [told] = await stand.vault.openable(ALICE, both)
    assert named_in(told) == [f"{ALIAS}/here.png", f"{ALIAS}/waiting.png"], "the pod itself opens it"
    stand.places.serving.clear()
    [told] = await stand.vault.openable(ALICE, both)
    assert named_in(told) == [f"{ALIAS}/here.png"]


async def test_entries_without_files_of_pods_cost_no_question(stand: Stand) -> None:
    rows = Rows(stand.rows)
    stand.vault._rows = rows
    plain = entry()
    assert await stand.vault.openable(ALICE, [(record("p1"), plain)]) == [plain]
    assert await stand.vault.openable(None, [(record("p1"), plain)]) == [plain]


async def test_a_cached_output_means_what_was_there_when_its_prompt_ended(stand: Stand) -> None:
    now = datetime.now(UTC)
    file = FileName("latest.png")
    versions = [
        StoredFile(
            ALICE,
            NAME,
            ALIAS,
            file,
            number,
            f"x/{number}",
            "0",
            1,
            None,
            now + timedelta(hours=number),
            f"p{number}",
        )
        for number in (1, 2, 3)
    ]
    for version in versions:
        await stand.rows.add(version)
    told = await stand.vault.openable(
        ALICE,
        [(record("cached", now + timedelta(hours=hours)), entry(file)) for hours in (1.5, 2.5, 3.5)],
    )
    assert [named_in(one) for one in told] == [
        [f"{ALIAS}@1/latest.png"],
        [f"{ALIAS}@2/latest.png"],
        [f"{ALIAS}/latest.png"],
    ]


# -- large files


async def growth_mb(stand: Stand, size_bytes: int) -> float:
    """By how much this process grew at most while a file of that size was copied."""
    path = stand.pod.output / "film.mp4"
    with path.open("wb") as film:
        for block in big_file_blocks("pod", 7, size_bytes):
            film.write(block)
    process = psutil.Process()
    before = peak = process.memory_info().rss
    stand.name(FileName("film.mp4"))
    async with asyncio.timeout(600):
        while not stand.vault.stats.files_stored:
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.02)
    stored = await stand.find(FileName("film.mp4"))
    assert stored is not None
    assert stored.sha256 == big_file_sha256("pod", 7, size_bytes)
    return (peak - before) / MIB


async def test_a_hundred_megabytes_are_copied_in_little_memory(stand: Stand) -> None:
    assert await growth_mb(stand, 100 * MIB) < 50


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_two_gigabytes_are_copied_in_little_memory(stand: Stand) -> None:
    assert await growth_mb(stand, 2048 * MIB) < 50
