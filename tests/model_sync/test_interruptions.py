"""Interrupted at any byte: continued, and never a broken file under its final name."""

import asyncio
import random
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.conditions import wait_for
from tests.model_sync.mean_server import MeanServer, Mood, content, file_of
from tests.model_sync.stand import (
    QUICK_ARGUMENTS,
    command,
    finish,
    leftovers,
    model,
    process,
    write_manifest,
)

MB = 1 << 20
PATH = "checkpoints/x.safetensors"
DATA = content(8 * MB)
KILLS = 5


def _has_come(started: asyncio.subprocess.Process, part: Path, target: Path, size_bytes: int) -> bool:
    if started.returncode is not None or target.exists():
        return True
    return part.exists() and part.stat().st_size >= size_bytes


@pytest.mark.parametrize("seed", [1])
async def test_killed_at_any_byte_it_goes_on_where_it_was(
    seed: int, server: MeanServer, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    served = server.files["/x"] = file_of(DATA)
    manifest = write_manifest(tmp_path / "m.json", model(PATH, server.url("/x"), data=DATA))
    base = tmp_path / "b"
    arguments = ("--base-dir", base, "--manifest", manifest, "--max-mbps", "200", *QUICK_ARGUMENTS)
    part, target = base / f"{PATH}.part", base / PATH
    killed_at = [0]
    for upto in sorted(chance.randrange(len(DATA)) for _ in range(KILLS)):
        async with process(*arguments) as started:
            await wait_for(partial(_has_come, started, part, target, max(upto - MB, 1)), f"{upto} bytes")
            # The last block is on its way: the kill falls anywhere within it.
            await asyncio.sleep(chance.random() * 0.03)
            if started.returncode is None:
                started.kill()
            await finish(started)
        if target.exists():
            break
        killed_at.append(part.stat().st_size)
        assert killed_at[-1] >= killed_at[-2], "bytes that had come were thrown away"
    finished = await command(*arguments)
    assert finished.code == 0
    assert target.read_bytes() == DATA
    assert leftovers(base) == [PATH]
    assert len(killed_at) > 2
    asked_from = [request.headers.get("Range", "bytes=0-") for request in served.requests]
    assert asked_from[-1] == f"bytes={killed_at[-1]}-" or not asked_from[-1].startswith("bytes=0-")


@pytest.mark.parametrize(
    ("number", "code", "checksum"),
    [(signal.SIGINT, 130, False), (signal.SIGTERM, 143, True)],
    ids=["Ctrl-C without a checksum", "SIGTERM with one"],
)
async def test_an_interrupted_run_ends_at_once_and_is_continued(
    number: signal.Signals, code: int, checksum: bool, server: MeanServer, tmp_path: Path
) -> None:
    served = server.files["/x"] = file_of(DATA)
    known = model(PATH, server.url("/x"), data=DATA)
    if not checksum:
        del known["sha256"]
    manifest = write_manifest(tmp_path / "m.json", known)
    base = tmp_path / "b"
    arguments = ("--base-dir", base, "--manifest", manifest)
    part = base / f"{PATH}.part"
    async with process(*arguments, "--max-mbps", "30") as started:
        await wait_for(lambda: part.exists() and part.stat().st_size >= 2 * MB, "some bytes")
        started.send_signal(number)
        finished = await asyncio.wait_for(finish(started), 5)
    assert finished.code == code
    assert "Traceback" not in finished.err
    size = part.stat().st_size
    assert (await command(*arguments)).code == 0
    assert (base / PATH).read_bytes() == DATA
    assert served.requests[-1].headers["Range"] == f"bytes={size}-"


async def test_two_processes_on_one_folder_fetch_each_file_once(server: MeanServer, tmp_path: Path) -> None:
    models = []
    for number in range(6):
        data = content(MB + number, seed=number)
        server.files[f"/{number}"] = file_of(data)
        models.append(model(f"a/{number}", server.url(f"/{number}"), data=data))
    manifest = write_manifest(tmp_path / "m.json", *models)
    arguments = ("--base-dir", tmp_path / "b", "--manifest", manifest, "--max-mbps", "60", "--parallel", "2")
    first, second = await asyncio.gather(command(*arguments), command(*arguments))
    assert (first.code, second.code) == (0, 0)
    assert leftovers(tmp_path / "b") == [f"a/{number}" for number in range(6)]
    assert {path: server.asked[path] for path in server.files} == {f"/{number}": 1 for number in range(6)}
    fetched = [event["path"] for finished in (first, second) for event in finished.named("fetched")]
    assert sorted(fetched) == [f"a/{number}" for number in range(6)]
    assert first.named("waiting") or second.named("waiting")


async def test_a_waiting_process_takes_over_from_one_that_is_killed(
    server: MeanServer, tmp_path: Path
) -> None:
    served = server.files["/x"] = file_of(DATA, Mood(cut_after_bytes=2 * MB), Mood(stall=True))
    manifest = write_manifest(tmp_path / "m.json", model(PATH, server.url("/x"), data=DATA))
    arguments = ("--base-dir", tmp_path / "b", "--manifest", manifest)
    async with process(*arguments) as first:
        await wait_for(lambda: len(served.requests) == 2, "the first to be under way")
        async with process(*arguments) as second:
            assert second.stdout is not None
            while b'"waiting"' not in (line := await asyncio.wait_for(second.stdout.readline(), 20)):
                assert line
            first.kill()
            assert (await finish(second)).code == 0
    assert (tmp_path / "b" / PATH).read_bytes() == DATA
    assert served.requests[-1].headers["Range"] == f"bytes={2 * MB}-"


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_a_process_that_sleeps_over_its_lease_cannot_spoil_the_file_of_its_successor(
    server: MeanServer, tmp_path: Path
) -> None:
    server.files["/x"] = file_of(DATA)
    manifest = write_manifest(tmp_path / "m.json", model(PATH, server.url("/x"), data=DATA))
    base = tmp_path / "b"
    arguments = ("--base-dir", base, "--manifest", manifest)
    part, target = base / f"{PATH}.part", base / PATH
    async with process(*arguments, "--max-mbps", "10") as sleeper:
        await wait_for(lambda: part.exists() and part.stat().st_size >= 2 * MB, "some bytes")
        sleeper.send_signal(signal.SIGSTOP)
        async with process(*arguments, "--max-mbps", "10") as successor:
            # The lease of a process that still lives runs out after 30 s.
            await wait_for(lambda: part.stat().st_size >= 4 * MB, "the successor to go on", deadline_s=60)
            sleeper.send_signal(signal.SIGCONT)
            assert (await finish(successor)).code == 0
        assert target.read_bytes() == DATA
        assert (await finish(sleeper)).code == 0
    assert target.read_bytes() == DATA
    assert leftovers(base) == [PATH]
