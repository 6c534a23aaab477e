"""The program as people and start scripts run it: arguments, exit codes, what it prints and the status file."""

import asyncio
import json
import os
import pty
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

from model_sync.command_line import main
from tests.conditions import wait_for
from tests.model_sync.mean_server import MeanServer, Mood, content, file_of
from tests.model_sync.stand import (
    PROJECT,
    QUICK_ARGUMENTS,
    Finished,
    command,
    environment,
    finish,
    leftovers,
    model,
    process,
    sha256,
    write_manifest,
)

DATA = content(700_000)


class Here(Protocol):
    """`command` within this process, for what needs no server."""

    def __call__(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Finished: ...


class Within(Protocol):
    """`command` in a thread of this process: the server of the test runs on, and no interpreter has to start."""

    async def __call__(self, *arguments: str | Path) -> Finished: ...


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Here:
    def run(*arguments: str | Path, env: Mapping[str, str] | None = None) -> Finished:
        try:
            code = main([str(argument) for argument in arguments], env or {})
        except SystemExit as ended:  # argparse
            assert isinstance(ended.code, int)
            code = ended.code
        return Finished(code, *capsys.readouterr())

    return run


PATH = "checkpoints/x.safetensors"


@pytest.fixture
def within(here: Here) -> Within:
    async def run(*arguments: str | Path) -> Finished:
        return await asyncio.to_thread(here, *arguments)

    return run


async def test_the_models_of_the_manifest_are_fetched_and_a_second_run_has_nothing_to_do(
    server: MeanServer, tmp_path: Path
) -> None:
    server.files["/x"] = file_of(DATA, Mood(cut_after_bytes=300_000))
    manifest = write_manifest(
        tmp_path / "m.json",
        model(PATH, server.url("/x"), data=DATA),
        {
            "name": "as in ComfyUI-Manager",
            "type": "VAE",
            "base": "SD1.5",
            "save_path": "default",
            "filename": "y.pt",
            "url": server.url("/x"),
            "size": "0.7MB",
        },
    )
    status = tmp_path / "status.json"
    arguments = (
        "--base-dir",
        tmp_path / "models",
        "--manifest",
        manifest,
        "--status-file",
        status,
        *QUICK_ARGUMENTS,
    )
    first = await command(*arguments)
    assert first.code == 0, first
    assert (tmp_path / "models" / PATH).read_bytes() == (tmp_path / "models/vae/y.pt").read_bytes() == DATA
    assert json.loads(status.read_text()) == {
        "state": "idle",
        "done_bytes": 2 * len(DATA),
        "total_bytes": 2 * len(DATA),
    }
    asked = server.asked["/x"]
    second = await command("download", *arguments)
    assert second.code == 0
    assert sorted(event["path"] for event in second.named("present")) == [PATH, "vae/y.pt"]
    assert server.asked["/x"] == asked


async def test_what_is_missing_is_listed_and_the_exit_code_says_so(
    server: MeanServer, tmp_path: Path, within: Within
) -> None:
    server.files["/x"] = file_of(DATA)
    manifest = write_manifest(
        tmp_path / "m.json",
        model(PATH, server.url("/x"), data=DATA),
        model("a/required", server.url("/no?token=geheim")),
        model("a/optional", server.url("/no"), optional=True),
    )
    status = tmp_path / "status.json"
    arguments = (
        "--base-dir",
        tmp_path / "b",
        "--manifest",
        manifest,
        "--status-file",
        status,
        *QUICK_ARGUMENTS,
    )
    finished = await within(*arguments, "--optional")
    assert finished.code == 1
    (done,) = finished.named("done")
    assert (done["missing"], done["missing_optional"]) == (["a/required"], ["a/optional"])
    assert "404" in str(finished.named("missing"))
    assert "geheim" not in finished.out + finished.err
    assert json.loads(status.read_text())["state"] == "failed"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--manifest", "nowhere.json"),
        ("--parallel", "0"),
        ("--max-mbps", "-1"),
        ("--max-mbps", "nan"),
        ("--group", "unheard-of"),
        ("frobnicate",),
        ("add", "file:///etc/passwd", "--path", "a/x"),
        ("add", "https://example.org/x", "--sha256", "abc"),
        ("--status-file", "/nowhere/status.json"),
        ("--base-dir", "/dev/null/models"),
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_told_on_stderr_with_exit_code_2(
    arguments: tuple[str, ...], tmp_path: Path, here: Here
) -> None:
    manifest = write_manifest(tmp_path / "m.json", model("a/x", "http://127.0.0.1:9/x"))
    finished = here("--base-dir", tmp_path / "b", "--manifest", manifest, *arguments)
    assert finished.code == 2
    assert finished.err
    assert "Traceback" not in finished.err


def test_a_bad_manifest_is_told_line_by_line_with_exit_code_2(tmp_path: Path, here: Here) -> None:
    manifest = write_manifest(tmp_path / "m.json", model("../x", "https://h/x"), model("a/x", "gopher://h/x"))
    finished = here("--base-dir", tmp_path / "b", "--manifest", manifest)
    assert finished.code == 2
    assert "$.models[1].urls[0]" in finished.err
    assert not (tmp_path / "b").exists()


def test_a_token_file_that_is_missing_stops_the_start(tmp_path: Path, here: Here) -> None:
    finished = here("list", env={"HF_TOKEN_FILE": str(tmp_path / "no")})
    assert finished.code == 2
    assert "HF_TOKEN_FILE" in finished.err


async def test_a_disk_too_small_is_exit_code_3_before_anything_is_asked(
    server: MeanServer, tmp_path: Path, within: Within
) -> None:
    manifest = write_manifest(tmp_path / "m.json", model(PATH, server.url("/x"), size_bytes=1 << 60))
    status = tmp_path / "status.json"
    finished = await within("--base-dir", tmp_path / "b", "--manifest", manifest, "--status-file", status)
    assert finished.code == 3
    assert "are free" in finished.err
    assert server.asked["/x"] == 0
    assert json.loads(status.read_text())["state"] == "failed"


async def test_a_disk_that_fills_up_on_the_way_is_exit_code_3_and_what_came_stays(
    server: MeanServer, tmp_path: Path
) -> None:
    data = content(3 << 20)
    server.files["/x"] = file_of(data)
    manifest = write_manifest(tmp_path / "m.json", model(PATH, server.url("/x"), data=data))
    arguments = ("--base-dir", tmp_path / "b", "--manifest", manifest)
    async with process(*arguments, env={}) as started:
        # The same errno family as a file system that takes no larger file; nothing else makes a disk small here.
        resource.prlimit(started.pid, resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))
        finished = await finish(started)
    assert finished.code == 3, finished
    assert leftovers(tmp_path / "b") == [f"{PATH}.part", f"{PATH}.part.json"]
    again = await command(*arguments)
    assert again.code == 0
    assert (tmp_path / "b" / PATH).read_bytes() == data


async def test_a_part_that_cannot_be_copied_for_want_of_room_is_begun_anew(
    server: MeanServer, tmp_path: Path
) -> None:
    data = content(3 << 20)
    server.files["/x"] = file_of(data)
    base = tmp_path / "b"
    (base / "a").mkdir(parents=True)
    (base / "a/x.part").write_bytes(data[: 2 << 20])
    # Of a machine that may still write.
    (base / "a/x.part.json").write_text(json.dumps({"source": "s", "writer": "another-pod 1"}))
    manifest = write_manifest(tmp_path / "m.json", model("a/x", server.url("/x"), data=data))
    async with process("--base-dir", base, "--manifest", manifest) as started:
        resource.prlimit(started.pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        assert (await finish(started)).code == 3
    assert (base / "a/x.part").stat().st_size == 1 << 20
    assert (await command("--base-dir", base, "--manifest", manifest)).code == 0
    assert (base / "a/x").read_bytes() == data
    assert leftovers(base) == ["a/x"]


async def test_groups_and_optional_choose_what_is_fetched(
    server: MeanServer, tmp_path: Path, within: Within
) -> None:
    server.files["/x"] = file_of(DATA)
    manifest = write_manifest(
        tmp_path / "m.json",
        model("a/base", server.url("/x"), data=DATA),
        model("a/extra", server.url("/x"), data=DATA, group="extra"),
        model("a/optional", server.url("/x"), data=DATA, optional=True),
    )

    async def fetched(name: str, *arguments: str) -> list[str]:
        base = tmp_path / name
        finished = await within("--base-dir", base, "--manifest", manifest, *arguments)
        assert finished.code == 0
        return leftovers(base)

    assert await fetched("1") == ["a/base"]
    assert await fetched("2", "--group", "extra") == ["a/extra"]
    assert await fetched("3", "--all", "--optional") == ["a/base", "a/extra", "a/optional"]


def test_an_argument_before_the_command_counts_as_after_it(tmp_path: Path, here: Here) -> None:
    manifest = write_manifest(tmp_path / "m.json", model("a/x", "https://h/x", group="g"))
    before = here("--manifest", manifest, "--base-dir", tmp_path, "--group", "g", "list")
    after = here("list", "--manifest", manifest, "--base-dir", tmp_path, "--group", "g")
    assert before == after
    assert before.events[0]["path"] == "a/x"


def test_list_tells_the_state_of_every_entry_without_a_connection(tmp_path: Path, here: Here) -> None:
    manifest = write_manifest(
        tmp_path / "m.json",
        model("a/there", "https://h/x", data=b"there"),
        model("a/wrong", "https://h/x", data=b"wrong"),
        model("a/half", "https://h/x", data=b"half"),
        model("a/missing", "https://h/x", data=b"missing", group="extra"),
    )
    (tmp_path / "a").mkdir()
    (tmp_path / "a/there").write_bytes(b"there")
    (tmp_path / "a/wrong").write_bytes(b"wrong and longer")
    (tmp_path / "a/half.part").write_bytes(b"ha")
    finished = here("list", "--manifest", manifest, "--base-dir", tmp_path)
    assert finished.code == 0
    assert {event["path"]: event["event"] for event in finished.events} == {
        "a/there": "unknown",
        "a/wrong": "wrong",
        "a/half": "partial",
        "a/missing": "missing",
    }


async def test_verify_reads_every_file_again(server: MeanServer, tmp_path: Path, within: Within) -> None:
    server.files["/x"] = file_of(DATA)
    base = tmp_path / "b"
    manifest = write_manifest(
        tmp_path / "m.json",
        model("a/known", server.url("/x"), data=DATA),
        model("a/unknown", server.url("/x")),
    )
    arguments = ("--base-dir", base, "--manifest", manifest)
    assert (await within(*arguments)).code == 0
    for name in ("known", "unknown"):
        # Rot: other bytes, the same size and date.
        file = base / "a" / name
        state = file.stat()
        file.write_bytes(DATA[:-1] + b"!")
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (await within("verify", "--quick", *arguments)).code == 0
    finished = await within("verify", *arguments)
    assert finished.code == 1
    assert [event["path"] for event in finished.named("wrong")] == ["a/known", "a/unknown"]


async def test_prune_takes_away_what_it_fetched_and_nobody_changed(
    server: MeanServer, tmp_path: Path, within: Within
) -> None:
    server.files["/x"] = file_of(DATA)
    base = tmp_path / "b"
    url = server.url("/x")
    all_ = write_manifest(tmp_path / "3.json", model("a/1", url), model("a/2", url), model("a/3", url))
    one = write_manifest(tmp_path / "1.json", model("a/1", server.url("/x")))
    assert (await within("--base-dir", base, "--manifest", all_)).code == 0
    (base / "a/mine").write_bytes(b"copied here by hand")
    (base / "a/3").write_bytes(b"changed by hand")
    dry = await within("prune", "--dry-run", "--base-dir", base, "--manifest", one)
    assert [event["path"] for event in dry.named("would_remove")] == ["a/2"]
    assert leftovers(base) == ["a/1", "a/2", "a/3", "a/mine"]
    wet = await within("prune", "--base-dir", base, "--manifest", one)
    assert [event["path"] for event in wet.named("removed")] == ["a/2"]
    assert leftovers(base) == ["a/1", "a/3", "a/mine"]


async def test_add_writes_what_the_head_of_the_file_says(
    server: MeanServer, tmp_path: Path, within: Within
) -> None:
    disposition = (("Content-Disposition", 'attachment; filename="detail.safetensors"'),)
    served = server.files["/download/7"] = file_of(DATA, manner=Mood(headers=disposition))
    manifest = tmp_path / "new/m.json"
    url = server.url("/download/7")
    added = await within("add", url, "--folder", "loras", "--manifest", manifest, "--group", "extra")
    assert added.code == 0, added
    assert json.loads(manifest.read_text()) == {
        "version": 1,
        "models": [
            {
                "name": "detail",
                "path": "loras/detail.safetensors",
                "urls": [url],
                "size_bytes": len(DATA),
                "group": "extra",
                "optional": False,
            }
        ],
    }
    assert served.served_bytes < len(DATA) or len(DATA) < 1 << 20
    again = await within(
        "add",
        url,
        "--path",
        "loras/detail.safetensors",
        "--sha256",
        sha256(DATA).upper(),
        "--manifest",
        manifest,
    )
    assert again.named("replaced")
    (model_,) = json.loads(manifest.read_text())["models"]
    assert model_["sha256"] == sha256(DATA)
    assert (await within("--base-dir", tmp_path / "b", "--manifest", manifest)).code == 0


@pytest.mark.parametrize(
    "arguments",
    [("--path", "../x"), (), ("--path", "a/x.part")],
    ids=["a way out", "no place", "our own name"],
)
async def test_add_without_a_place_or_with_an_unsafe_one_changes_nothing(
    arguments: tuple[str, ...], server: MeanServer, tmp_path: Path, within: Within
) -> None:
    server.files["/x"] = file_of(DATA)
    manifest = tmp_path / "m.json"
    finished = await within("add", server.url("/x"), *arguments, "--manifest", manifest)
    assert finished.code == 2
    assert not manifest.exists()


async def test_add_of_what_does_not_answer_is_exit_code_2(
    server: MeanServer, tmp_path: Path, within: Within
) -> None:
    finished = await within("add", server.url("/no"), "--path", "a/x", "--manifest", tmp_path / "m.json")
    assert finished.code == 2
    assert "404" in finished.err


async def test_the_status_file_tells_of_a_run_under_way_and_is_always_whole(
    server: MeanServer, tmp_path: Path
) -> None:
    server.files["/x"] = file_of(DATA, manner=Mood(stall=True))
    manifest = write_manifest(tmp_path / "m.json", model(PATH, server.url("/x"), data=DATA))
    status = tmp_path / "status.json"
    async with process(
        "--base-dir", tmp_path / "b", "--manifest", manifest, "--status-file", status
    ) as started:
        await wait_for(status.exists, "the status file")
        await wait_for(lambda: json.loads(status.read_text())["total_bytes"] == len(DATA), "the total")
        assert json.loads(status.read_text())["state"] == "running"
        started.terminate()
        assert (await finish(started)).code == 143
    assert json.loads(status.read_text())["state"] == "failed"


async def test_a_person_at_a_terminal_sees_bars(server: MeanServer, tmp_path: Path) -> None:

    server.files["/x"] = file_of(DATA)
    manifest = write_manifest(
        tmp_path / "m.json", model(PATH, server.url("/x"), data=DATA), model("a/no", server.url("/no"))
    )
    ours, theirs = pty.openpty()
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "model_sync", "--base-dir", tmp_path / "b", "--manifest", manifest),
        cwd=PROJECT,
        env=environment({"TERM": "xterm", "COLUMNS": "150"}),
        stdout=theirs,
        stderr=asyncio.subprocess.DEVNULL,
    )
    os.close(theirs)
    seen = await asyncio.to_thread(_everything, ours)
    assert await started.wait() == 1
    assert "700.0/700.0 kB" in seen
    assert "missing: path a/no" in seen
    assert '"event"' not in seen


def _everything(terminal: int) -> str:
    seen = bytearray()
    with open(terminal, "rb", buffering=0) as screen:
        try:
            while part := screen.read(65536):
                seen += part
        except OSError:  # the other side is closed
            pass
    return seen.decode()


async def test_a_reader_of_the_lines_that_goes_away_stops_nothing(server: MeanServer, tmp_path: Path) -> None:
    server.files["/x"] = file_of(DATA)
    manifest = write_manifest(tmp_path / "m.json", model(PATH, server.url("/x"), data=DATA))
    reading, writing = os.pipe()
    os.close(reading)
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "model_sync", "--base-dir", tmp_path / "b", "--manifest", manifest),
        cwd=PROJECT,
        env=environment(),
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writing)
    _, err = await asyncio.wait_for(started.communicate(), 60)
    assert (started.returncode, err) == (0, b"")
    assert (tmp_path / "b" / PATH).read_bytes() == DATA


async def test_help_names_the_exit_codes() -> None:
    finished = await command("--help")
    assert finished.code == 0
    assert "3 disk full" in " ".join(finished.out.split())
