"""Logs of pods on a real disk."""

import os
from pathlib import Path

import pytest

from comfy_gateway.adapters.log_folder import LogFolder


async def test_a_log_is_read_back_and_replaced(tmp_path: Path) -> None:
    shelf = LogFolder(tmp_path / "pod-logs")
    assert await shelf.read("comfy-gw-alice-1", 5) is None
    await shelf.keep("comfy-gw-alice-1", ["one", "", "grün"])
    assert await shelf.read("comfy-gw-alice-1", 5) == ["one", "", "grün"]
    await shelf.keep("comfy-gw-alice-1", ["two", "three"])
    assert await shelf.read("comfy-gw-alice-1", 1) == ["three"]


async def test_logs_are_for_the_gateways_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "pod-logs"
    await LogFolder(folder).keep("a", ["x"])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [(log.name, log.stat().st_mode & 0o777) for log in folder.iterdir()] == [("a.log", 0o600)]


async def test_text_that_is_no_text_is_kept_as_far_as_it_goes(tmp_path: Path) -> None:
    shelf = LogFolder(tmp_path)
    await shelf.keep("a", ["lone \ud800 surrogate"])
    assert await shelf.read("a", 1) == ["lone ? surrogate"]


async def test_the_oldest_logs_go(tmp_path: Path) -> None:
    shelf = LogFolder(tmp_path, most=2)
    for age, name in enumerate(["old", "older", "new"]):
        await shelf.keep(name, [name])
        os.utime(tmp_path / f"{name}.log", (1000 - age, 1000 - age))
    await shelf.keep("newest", ["x"])
    assert sorted(log.name for log in tmp_path.iterdir()) == ["newest.log", "old.log"]


@pytest.mark.parametrize("name", ["", "..", "../secrets/master", "a/b", ".hidden", "a\x00b", "a" * 300])
async def test_what_is_no_name_of_a_pod_reaches_no_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/master.log").write_text("secret")
    shelf = LogFolder(tmp_path / "pod-logs")
    assert await shelf.read(name, 5) is None
    with pytest.raises(ValueError, match="no name of a pod"):
        await shelf.keep(name, ["x"])
