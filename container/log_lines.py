"""Passes lines on with the name of the program that wrote them, and keeps the latest of them in a file.

    comfyui 2>&1 | python log_lines.py comfyui --file comfyui.log

Of a progress bar, which goes back to the start of its line, only the last state is kept. Ends when its input does.
"""

import argparse
import sys
from pathlib import Path
from typing import BinaryIO, Final

MOST_LINE_BYTES: Final = 64 * 1024
DEFAULT_FILE_BYTES: Final = 8 * 1024 * 1024


class RecentLines:
    """A file of at most `most_bytes`; what came before it is in `<name>.1`, and older lines are gone."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._file = path.open("ab")

    def write(self, line: bytes) -> None:
        if self._file.tell() + len(line) > self._most_bytes and self._file.tell() > 0:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = self._path.open("ab")
        self._file.write(line)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def last_state(line: bytes) -> bytes:
    """The line as a terminal would show it: what follows the last carriage return, with one line feed."""
    return line.rstrip(b"\r\n").rpartition(b"\r")[2] + b"\n"


def copy(name: str, source: BinaryIO, target: BinaryIO, recent: RecentLines | None) -> None:
    """Until `source` ends. A line longer than 64 KiB is passed on in parts."""
    prefix = f"[{name}] ".encode()
    while line := source.readline(MOST_LINE_BYTES):
        shown = last_state(line)
        if recent is not None:
            recent.write(shown)
        target.write(prefix + shown)
        target.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("--file", type=Path)
    parser.add_argument("--file-bytes", type=int, default=DEFAULT_FILE_BYTES)
    options = parser.parse_args()
    recent = None if options.file is None else RecentLines(options.file, options.file_bytes)
    try:
        copy(options.name, sys.stdin.buffer, sys.stdout.buffer, recent)
    except BrokenPipeError:
        # Nobody reads any more: the container is ending. Python must not complain again at exit.
        sys.stdout = None
    finally:
        if recent is not None:
            recent.close()


if __name__ == "__main__":
    main()
