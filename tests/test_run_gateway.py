"""The door, run_gateway.sh, with a real bash: the Python it takes, what it installs and when, what it starts.

Python, uv and what pip would install are small scripts here, so that no test downloads anything; the scripts
under test are the real ones, in a copy of the project whose path has a space.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conditions import wait_for_blocking

PROJECT = Path(__file__).parent.parent
BASH = shutil.which("bash") or "/bin/bash"
TIMEOUT_S = 30

# All that the scripts may need of the system. Nothing else is on PATH, above all no Python.
SYSTEM_PROGRAMS = (
    "bash",
    "cat",
    "cksum",
    "cp",
    "chmod",
    "dirname",
    "env",
    "find",
    "grep",
    "ln",
    "mkdir",
    "mv",
    "readlink",
    "rm",
    "rmdir",
    "sleep",
    "touch",
    "uname",
)

# Answers the questions of find_python.sh as VERSION and HAS_VENV say, makes a .venv that holds itself, and
# writes down what pip is asked for. pip fails while the file `pip-fails` exists, and waits while
# `pip-waits` does.
FAKE_PYTHON = r"""#!@BASH@
version=@VERSION@ has_venv=@HAS_VENV@ notes="@NOTES@"
IFS=. read -r major minor patch <<<"$version"
case "$1 ${2:-}" in
    "-c import ensurepip"*) [ "$has_venv" = yes ]; exit ;;
    "-c "*) [ "$major" -eq 3 ] && [ "$minor" -ge 12 ] || exit 1; echo "$version"; exit ;;
    "-m venv")
        echo "made by $0" >>"$notes"
        mkdir -p .venv/bin
        for name in python mitmdump mitmweb; do cp "$0" ".venv/bin/$name"; done ;;
    "-m pip")
        while [ "$1" != -r ]; do shift; done
        echo "installing $2" >>"$notes"
        while [ -e pip-waits ]; do sleep 0.05; done
        if [ -e pip-fails ]; then echo "pip says no"; exit 1; fi
        echo "installed $2" >>"$notes" ;;
    "-m comfy_gateway.settings")
        if [ -e settings-are-wrong ]; then echo "PORT: 'x' is no port" >&2; exit 2; fi
        printf '%s\n' 127.0.0.1 8000 ;;
    *)
        echo "started ${0##*/} in $PWD"
        echo "PYTHONPATH=${PYTHONPATH:-} GATEWAY_TEST_LONG=${GATEWAY_TEST_LONG:-}"
        printf '<%s>\n' "$@" ;;
esac
"""

FAKE_UV = r"""#!@BASH@
echo "uv $*" >>"@NOTES@"
[ ! -e uv-fails ] || { echo "uv says no"; exit 1; }
while [ $# -gt 1 ]; do shift; done
mkdir -p "$1/bin"
for name in python mitmdump mitmweb; do cp "@PYTHON@" "$1/bin/$name"; done
"""


@dataclass(slots=True)
class Door:
    """A copy of the project's scripts, and a PATH with nothing but what a test puts there."""

    root: Path
    on_path: Path
    home: Path
    notes_file: Path
    environment: dict[str, str] = field(default_factory=dict)

    def has_python(
        self, name: str, version: str, *, has_venv: bool = True, folder: Path | None = None
    ) -> Path:
        text = FAKE_PYTHON.replace("@BASH@", BASH).replace("@VERSION@", version)
        text = text.replace("@HAS_VENV@", "yes" if has_venv else "no").replace(
            "@NOTES@", str(self.notes_file)
        )
        return self._put((folder or self.on_path) / name, text)

    def has_failing_shim(self, name: str) -> None:
        self._put(self.on_path / name, f"#!{BASH}\necho 'pyenv: {name}: command not found' >&2\nexit 127\n")

    def has_uv(self) -> None:
        brought = self.has_python("python", "3.12.9", folder=self.home)
        text = FAKE_UV.replace("@BASH@", BASH).replace("@PYTHON@", str(brought))
        self._put(self.on_path / "uv", text.replace("@NOTES@", str(self.notes_file)))

    @staticmethod
    def _put(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def start(
        self, *arguments: str, folder: Path | None = None, script: Path | None = None
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [BASH, str(script or self.root / "run_gateway.sh"), *arguments],
            cwd=folder or self.root,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )

    def run(
        self, *arguments: str, folder: Path | None = None, script: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments, folder=folder, script=script) as process:
            said, complained = process.communicate(timeout=TIMEOUT_S)
            return subprocess.CompletedProcess(process.args, process.returncode, said, complained)

    def notes(self) -> list[str]:
        return self.notes_file.read_text().splitlines() if self.notes_file.exists() else []


@pytest.fixture
def door(tmp_path: Path) -> Door:
    root = tmp_path / "a project"
    (root / "addons").mkdir(parents=True)
    shutil.copy(PROJECT / "run_gateway.sh", root)
    shutil.copytree(PROJECT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for lock in ("requirements.lock", "requirements-demo.lock", "requirements-dev.lock"):
        (root / lock).write_text(f"{lock}\n")
    system = tmp_path / "system"
    system.mkdir()
    for program in SYSTEM_PROGRAMS:
        found = shutil.which(program)
        assert found, f"{program} is needed by this test"
        (system / program).symlink_to(found)
    on_path = tmp_path / "on path"
    on_path.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    return Door(
        root=root,
        on_path=on_path,
        home=home,
        notes_file=tmp_path / "notes",
        environment={"PATH": f"{on_path}:{system}", "HOME": str(home)},
    )


# Help and unknown commands ----------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["--help", "-h", "help"])
def test_help_lists_every_command_and_what_a_newcomer_runs(door: Door, argument: str) -> None:
    answer = door.run(argument)
    assert answer.returncode == 0
    for command in ("serve", "web", "demo", "doctor", "user", "test", "bench"):
        assert f"\n  {command} " in answer.stdout
    assert "./run_gateway.sh demo " in answer.stdout
    assert "./run_gateway.sh doctor " in answer.stdout
    assert not (door.root / ".venv").exists()


@pytest.mark.parametrize("command", ["serve", "web", "demo", "doctor", "user", "test", "bench"])
def test_each_command_has_help_that_needs_no_python(door: Door, command: str) -> None:
    answer = door.run(command, "--help")
    assert answer.returncode == 0
    assert answer.stdout.startswith("usage: ./run_gateway.sh ")
    assert command in answer.stdout


def test_an_unknown_command_ends_with_2_and_one_line(door: Door) -> None:
    answer = door.run("sreve")
    assert answer.returncode == 2
    assert "sreve" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert answer.stdout == ""


# Which Python -----------------------------------------------------------------------------------------------


def test_a_shim_that_fails_and_pythons_too_old_are_passed_over(door: Door) -> None:
    door.has_failing_shim("python3.13")
    door.has_python("python3.12", "3.11.4")  # a link that lies about its version
    door.has_python("python3", "3.12.3")
    assert door.run().returncode == 0
    assert door.notes()[0] == f"made by {door.on_path / 'python3'}"


def test_pyenvs_newest_good_version_is_found_where_its_shims_fail(door: Door) -> None:
    door.has_failing_shim("python3.13")
    door.has_failing_shim("python3.12")
    door.has_python("python3", "3.11.7")
    versions = door.home / ".pyenv" / "versions"
    door.has_python("python", "3.12.1", folder=versions / "3.12.1" / "bin")
    door.has_python("python", "3.13.0", folder=versions / "3.13.0" / "bin")
    assert door.run().returncode == 0
    assert door.notes()[0] == f"made by {versions / '3.13.0' / 'bin' / 'python'}"


def test_pyenv_root_says_where_pyenv_is(door: Door) -> None:
    door.environment["PYENV_ROOT"] = str(door.home / "elsewhere")
    bin_folder = door.home / "elsewhere" / "versions" / "3.12.7" / "bin"
    door.has_python("python", "3.12.7", folder=bin_folder)
    assert door.run().returncode == 0
    assert door.notes()[0] == f"made by {bin_folder / 'python'}"


def test_a_tested_version_is_preferred_to_a_newer_python3(door: Door) -> None:
    door.has_python("python3", "3.14.0")
    door.has_python("python3.12", "3.12.3")
    assert door.run().returncode == 0
    assert door.notes()[0] == f"made by {door.on_path / 'python3.12'}"


def test_a_newer_python3_is_the_last_choice(door: Door) -> None:
    door.has_python("python3", "3.14.0")
    assert door.run().returncode == 0
    assert door.notes()[0] == f"made by {door.on_path / 'python3'}"


def test_uv_brings_python_where_there_is_none(door: Door) -> None:
    door.has_python("python3", "3.9.6")
    door.has_uv()
    assert door.run().returncode == 0
    made = door.notes()[0]
    assert made.startswith("uv venv ")
    assert "--python 3.12 " in made


def test_a_newer_python3_helps_where_uv_can_bring_none(door: Door) -> None:
    door.has_python("python3", "3.14.0")
    door.has_uv()
    (door.root / "uv-fails").touch()
    assert door.run().returncode == 0
    assert f"made by {door.on_path / 'python3'}" in door.notes()


def test_no_python_and_no_uv_is_one_clear_line(door: Door) -> None:
    door.has_failing_shim("python3.13")
    door.has_python("python3", "3.11.2")
    answer = door.run()
    assert answer.returncode == 1
    assert len(answer.stderr.splitlines()) == 1
    assert "no Python >= 3.12 found" in answer.stderr
    assert "uv" in answer.stderr
    assert not (door.root / ".venv.lock").exists()


def test_a_python_without_venv_gives_way_to_the_next(door: Door) -> None:
    door.has_python("python3.13", "3.13.1", has_venv=False)
    door.has_python("python3.12", "3.12.3")
    assert door.run().returncode == 0
    assert door.notes()[0] == f"made by {door.on_path / 'python3.12'}"


def test_uv_makes_the_environment_for_a_python_without_venv(door: Door) -> None:
    bare = door.has_python("python3.12", "3.12.3", has_venv=False)
    door.has_uv()
    assert door.run().returncode == 0
    assert f"--python {bare} " in door.notes()[0]


def test_only_a_python_without_venv_names_the_debian_package(door: Door) -> None:
    bare = door.has_python("python3", "3.12.3", has_venv=False)
    answer = door.run()
    assert answer.returncode == 1
    assert len(answer.stderr.splitlines()) == 1
    assert "apt install python3-venv" in answer.stderr
    assert str(bare) in answer.stderr


# What is installed, and when --------------------------------------------------------------------------------


@pytest.fixture
def ready(door: Door) -> Door:
    """A door whose Python is good."""
    door.has_python("python3.12", "3.12.3")
    return door


def test_the_second_run_installs_nothing_and_says_nothing(ready: Door) -> None:
    first = ready.run()
    assert "Installing dependencies into .venv (first run, about a minute) ..." in first.stderr
    noted = ready.notes()
    second = ready.run()
    assert second.returncode == 0
    assert second.stderr == ""
    assert ready.notes() == noted


def test_a_changed_lock_is_installed_into_the_environment_that_is_there(ready: Door) -> None:
    ready.run()
    (ready.root / "requirements.lock").write_text("something newer\n")
    assert ready.run().returncode == 0
    assert [note for note in ready.notes() if note.startswith("made by")] == ready.notes()[:1]
    assert ready.notes()[-1] == "installed requirements.lock"


def test_an_environment_whose_python_is_gone_is_made_again(ready: Door) -> None:
    ready.run()
    (ready.root / ".venv" / "bin" / "python").unlink()
    assert ready.run().returncode == 0
    assert len([note for note in ready.notes() if note.startswith("made by")]) == 2


def test_an_environment_of_another_python_version_is_made_again(ready: Door) -> None:
    ready.run()
    ready.has_python("python", "3.13.0", folder=ready.root / ".venv" / "bin")
    assert ready.run().returncode == 0
    assert len([note for note in ready.notes() if note.startswith("made by")]) == 2


def test_a_project_that_was_moved_makes_its_environment_again(ready: Door) -> None:
    ready.run()
    moved = ready.root.rename(ready.root.with_name("moved"))
    assert ready.run(folder=moved, script=moved / "run_gateway.sh").returncode == 0
    assert len([note for note in ready.notes() if note.startswith("made by")]) == 2


@pytest.mark.parametrize(
    ("first", "second", "installed"),
    [
        ("demo", "serve", ["requirements-demo.lock"]),
        ("serve", "demo", ["requirements.lock", "requirements-demo.lock"]),
        ("doctor", "web", ["requirements.lock"]),
    ],
    ids=["the demo's packages are enough to serve", "the demo needs more", "doctor and web need the same"],
)
def test_a_command_installs_only_what_is_missing_for_it(
    ready: Door, first: str, second: str, installed: list[str]
) -> None:
    assert ready.run(first).returncode == 0
    assert ready.run(second).returncode == 0
    assert [note.split()[1] for note in ready.notes() if note.startswith("installed")] == installed


def test_pip_is_heard_only_when_it_fails_and_the_next_run_tries_again(ready: Door) -> None:
    (ready.root / "pip-fails").touch()
    failed = ready.run()
    assert failed.returncode == 1
    assert "pip says no" in failed.stderr
    assert failed.stdout == ""
    (ready.root / "pip-fails").unlink()
    assert ready.run().returncode == 0
    assert ready.notes()[-1] == "installed requirements.lock"


def test_two_first_runs_at_once_install_once(ready: Door) -> None:
    (ready.root / "pip-waits").touch()
    with ready.start() as first:
        wait_for_blocking(lambda: "installing requirements.lock" in ready.notes(), "the first run to install")
        with ready.start() as second:
            assert second.stderr is not None
            assert second.stderr.readline() == "Another run is preparing .venv, waiting for it ...\n"
            (ready.root / "pip-waits").unlink()
            second.communicate(timeout=TIMEOUT_S)
        first.communicate(timeout=TIMEOUT_S)
    assert (first.returncode, second.returncode) == (0, 0)
    assert ready.notes().count("installed requirements.lock") == 1
    assert not (ready.root / ".venv.lock").exists()


def test_the_lock_of_a_run_that_died_is_taken_over(ready: Door) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait(TIMEOUT_S)
    lock = ready.root / ".venv.lock"
    lock.mkdir()
    (lock / "pid").write_text(f"{gone.pid}\n")
    assert ready.run().returncode == 0
    assert not lock.exists()


def test_a_run_that_is_stopped_while_installing_leaves_no_lock(ready: Door) -> None:
    (ready.root / "pip-waits").touch()
    with ready.start() as process:
        wait_for_blocking(lambda: "installing requirements.lock" in ready.notes(), "the install to begin")
        process.send_signal(signal.SIGTERM)
        # bash hears a signal when the program in its foreground is done
        (ready.root / "pip-waits").unlink()
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 143
    assert not (ready.root / ".venv.lock").exists()


# What is started --------------------------------------------------------------------------------------------


def test_serve_is_the_default_and_passes_arguments_on_as_they_are(ready: Door) -> None:
    for arguments in (("--set", "a b=*"), ("serve", "--set", "a b=*")):
        answer = ready.run(*arguments)
        assert answer.returncode == 0
        assert f"started mitmdump in {ready.root}\n" in answer.stdout
        assert "<--mode>\n<reverse:http://127.0.0.1:9>\n<-s>\n<addons/gateway.py>\n" in answer.stdout
        assert answer.stdout.endswith("<--set>\n<a b=*>\n")


def test_it_works_from_any_folder_and_through_a_link(ready: Door, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = elsewhere / "gateway"
    link.symlink_to("../a project/run_gateway.sh")
    for script in (None, link):
        answer = ready.run(folder=elsewhere, script=script)
        assert f"started mitmdump in {ready.root}\n" in answer.stdout
    assert [path.name for path in elsewhere.iterdir()] == ["gateway"]


@pytest.mark.parametrize("command", ["serve", "web"])
def test_wrong_settings_stop_the_start_with_their_own_code(ready: Door, command: str) -> None:
    (ready.root / "settings-are-wrong").touch()
    answer = ready.run(command)
    assert answer.returncode == 2
    assert answer.stderr.splitlines()[-1] == "PORT: 'x' is no port"
    assert "started" not in answer.stdout


def test_web_starts_mitmweb_without_a_browser(ready: Door) -> None:
    answer = ready.run("web", "--web-port", "0")
    assert "started mitmweb" in answer.stdout
    assert answer.stdout.endswith("<--set>\n<web_open_browser=false>\n<--web-port>\n<0>\n")


@pytest.mark.parametrize(
    ("command", "module"),
    [("demo", "simulators.demo"), ("doctor", "comfy_gateway.doctor"), ("user", "comfy_gateway.accounts")],
)
def test_modules_find_the_addons_and_the_project(ready: Door, command: str, module: str) -> None:
    answer = ready.run(command, "--fast")
    assert f"PYTHONPATH={ready.root}/addons:{ready.root} " in answer.stdout
    assert answer.stdout.endswith(f"<-m>\n<{module}>\n<--fast>\n")


def test_bench_without_benchmarks_is_one_clear_line(ready: Door) -> None:
    answer = ready.run("bench")
    assert answer.returncode == 1
    assert len(answer.stderr.splitlines()) == 1
    (ready.root / "benchmarks").mkdir()
    assert "<-m>\n<benchmarks>\n" in ready.run("bench").stdout


def test_test_with_paths_runs_only_pytest_on_them(ready: Door) -> None:
    (ready.root / "tests" / "core").mkdir(parents=True)
    answer = ready.run("test", "tests/core::test_it", "-x")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.endswith("<-m>\n<pytest>\n<tests/core::test_it>\n<-x>\n")
    assert answer.stdout.count("started ") == 1
    assert "installed requirements-dev.lock" in ready.notes()


TOOLS = ("ruff", "mypy", "lint-imports", "shellcheck", "coverage")


@pytest.fixture
def with_tools(ready: Door) -> Door:
    for tool in TOOLS:
        ready.has_python(tool, "3.12.3")
    return ready


def test_test_runs_every_check_and_both_coverage_thresholds(with_tools: Door) -> None:
    answer = with_tools.run("test")
    assert answer.returncode == 0, answer.stderr
    for tool in TOOLS:
        assert f"started {tool} " in answer.stdout
    assert "<--fail-under=100>" in answer.stdout
    assert "<--fail-under=95>" in answer.stdout
    assert "GATEWAY_TEST_LONG=\n<-m>\n<pytest>\n<-n>\n<2>\n<--cov>" in answer.stdout
    assert answer.stdout.endswith("All checks passed.\n")


def test_test_long_tells_the_tests_so(with_tools: Door) -> None:
    assert "GATEWAY_TEST_LONG=1\n<-m>\n<pytest>" in with_tools.run("test", "--long").stdout


def test_coverage_can_be_left_out(with_tools: Door) -> None:
    with_tools.environment["GATEWAY_COVERAGE"] = "off"
    said = with_tools.run("test").stdout
    assert "<pytest>" in said
    assert "--cov" not in said
    assert "--fail-under" not in said


def test_a_selection_of_tests_is_not_held_to_the_coverage(with_tools: Door) -> None:
    said = with_tools.run("test", "-k", "burst").stdout
    assert "<-k>\n<burst>" in said
    assert "--fail-under" not in said


@pytest.mark.parametrize("tool", TOOLS)
def test_a_check_that_fails_is_named_at_the_end_and_stops_no_other(with_tools: Door, tool: str) -> None:
    broken = with_tools.on_path / tool
    broken.write_text(f"#!{BASH}\nexit 1\n")
    answer = with_tools.run("test")
    assert answer.returncode == 1
    assert f"\nFAILED: {tool}" in answer.stdout
    for other in set(TOOLS) - {tool}:
        assert f"started {other} " in answer.stdout


# serve --reload ---------------------------------------------------------------------------------------------

NOTES_ITS_START = """
import os, signal, sys, time
with open("starts", "a") as starts:
    starts.write(f"{os.getpid()}\\n")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def reloaded(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A folder, and a command that runs in it under the real watcher."""
    (tmp_path / "addons").mkdir()
    (tmp_path / "config").mkdir()
    process = subprocess.Popen(
        [
            sys.executable,
            str(PROJECT / "scripts" / "serve_with_reload.py"),
            sys.executable,
            "-c",
            NOTES_ITS_START,
        ],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
    )
    with process:
        wait_for_blocking(lambda: _starts(tmp_path), "the first start")
        yield tmp_path, process
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)


def _starts(folder: Path) -> list[int]:
    path = folder / "starts"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_reload_starts_again_on_changed_code_and_on_a_replaced_env_file(
    reloaded: tuple[Path, subprocess.Popen[bytes]],
) -> None:
    folder, _process = reloaded
    code = folder / "addons" / "gateway.py"
    for count in range(2, 4):

        def changed_until_seen(count: int = count) -> bool:
            # The watcher may not watch yet when the first change comes.
            if len(_starts(folder)) < count:
                code.write_text(f"{os.urandom(4).hex()}\n")
            return len(_starts(folder)) >= count

        wait_for_blocking(changed_until_seen, f"start number {count}", deadline_s=20)
    before = len(_starts(folder))
    fresh = folder / ".env.new"
    fresh.write_text("PORT=8001\n")
    fresh.rename(folder / ".env")
    wait_for_blocking(lambda: len(_starts(folder)) > before, "a start after the new .env", deadline_s=20)
    assert not any(_runs(pid) for pid in _starts(folder)[:-1])


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_reload_ends_with_its_command_and_the_commands_code(
    reloaded: tuple[Path, subprocess.Popen[bytes]], ending: signal.Signals
) -> None:
    folder, process = reloaded
    process.send_signal(ending)
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 5
    assert not any(_runs(pid) for pid in _starts(folder))
