"""Lines with the name of their program, and the file that keeps the latest."""

import io
from pathlib import Path

import pytest

from container.log_lines import MOST_LINE_BYTES, RecentLines, copy


def copied(text: bytes, recent: RecentLines | None = None) -> bytes:
    target = io.BytesIO()
    copy("comfyui", io.BytesIO(text), target, recent)
    return target.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"one\ntwo\n", b"[comfyui] one\n[comfyui] two\n"),
        (b"windows\r\n", b"[comfyui] windows\n"),
        (b"\r 5%\r 50%\r100%\nend\n", b"[comfyui] 100%\n[comfyui] end\n"),
        (b"\r 5%\r100%\r\n", b"[comfyui] 100%\n"),
        (b"no line feed", b"[comfyui] no line feed\n"),
        (b"\n", b"[comfyui] \n"),
        (b"\xff\xfe\n", b"[comfyui] \xff\xfe\n"),
        (b"", b""),
    ],
)
def test_each_line_bears_the_name_and_progress_shows_its_last_state(text: bytes, shown: bytes) -> None:
    assert copied(text) == shown


def test_an_endless_line_is_passed_on_in_parts() -> None:
    assert copied(b"x" * (MOST_LINE_BYTES + 1)).splitlines() == [
        b"[comfyui] " + b"x" * MOST_LINE_BYTES,
        b"[comfyui] x",
    ]


def test_the_file_keeps_the_latest_lines_and_never_grows_beyond_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "comfyui.log"
    recent = RecentLines(path, 100)
    copied(b"".join(b"line %03d\n" % number for number in range(100)), recent)
    recent.close()
    older = (tmp_path / "comfyui.log.1").read_bytes()
    assert path.stat().st_size <= 100
    assert len(older) <= 100
    assert (older + path.read_bytes()).splitlines()[-1] == b"line 099"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["comfyui.log", "comfyui.log.1"]


def test_a_restart_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for word in (b"first\n", b"second\n"):
        recent = RecentLines(tmp_path / "log", 1000)
        copied(word, recent)
        recent.close()
    assert (tmp_path / "log").read_bytes() == b"first\nsecond\n"
