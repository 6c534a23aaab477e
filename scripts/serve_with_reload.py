"""Runs a command and starts it again whenever addons/, config/ or .env changes: `serve --reload`.

    python scripts/serve_with_reload.py mitmdump ARGUMENT...

A command that ended by itself, say because of a wrong setting, starts again after the next change. Ctrl-C,
SIGTERM and SIGHUP end the command and then this script, with the command's exit code.
"""

import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from watchfiles import PythonFilter, watch

WATCHED_FOLDERS = ("addons", "config")
WATCHED_SUFFIXES = (".yaml", ".yml", ".json", ".html", ".css", ".js", ".jinja", ".env")
ENV_FILE = Path(".env")
STOP_TIMEOUT_S = 12  # the gateway itself promises 10
LOOK_EVERY_MS = 500


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    # Its own session: Ctrl-C reaches only this script, which then stops the command once and waits for it.
    return subprocess.Popen(command, start_new_session=True)


def _stop(process: subprocess.Popen[bytes]) -> int:
    """Ends the command and returns its exit code; one that does not end in time is killed."""
    process.terminate()
    try:
        return process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _state_of_env_file() -> tuple[int, int] | None:
    """Modification time in ns and size, or None where there is no file.

    Looked at, not watched: a watch on one file is lost when an editor replaces it.
    """
    try:
        status = ENV_FILE.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size


def _raise_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(command: list[str]) -> int:
    if not command:
        print("usage: serve_with_reload.py COMMAND [ARGUMENT...]", file=sys.stderr)
        return 2
    # A closed terminal sends SIGHUP to this script alone.
    endings = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for ending in endings:
        signal.signal(ending, _raise_interrupt)
    folders = [folder for folder in WATCHED_FOLDERS if Path(folder).is_dir()]
    process = _start(command)
    env_file = _state_of_env_file()
    try:
        for changes in watch(
            *folders,
            watch_filter=PythonFilter(extra_extensions=WATCHED_SUFFIXES),
            yield_on_timeout=True,
            rust_timeout=LOOK_EVERY_MS,
            raise_interrupt=True,
        ):
            if not changes and env_file == _state_of_env_file():
                continue
            env_file = _state_of_env_file()
            changed = ", ".join(sorted({Path(path).name for _, path in changes})) or ENV_FILE.name
            print(f"{changed} changed, starting again ...", file=sys.stderr, flush=True)
            _stop(process)
            process = _start(command)
    except KeyboardInterrupt:
        # A second Ctrl-C must not leave the command running alone.
        for ending in endings:
            signal.signal(ending, signal.SIG_IGN)
    return _stop(process)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
