"""One secret for one state folder, whoever asks and however many at once."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_gateway.adapters.master_secret import MasterSecretUnusable, load_or_create
from comfy_gateway.core.keys import Keys


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_makes_a_secret_that_keys_accept(tmp_path: Path) -> None:
    secret = load_or_create(tmp_path / "state")
    assert len(secret) == 32
    Keys(secret)


def test_the_next_start_finds_the_same_secret(tmp_path: Path) -> None:
    assert load_or_create(tmp_path) == load_or_create(tmp_path)


def test_two_folders_have_two_secrets(tmp_path: Path) -> None:
    assert load_or_create(tmp_path / "a") != load_or_create(tmp_path / "b")


def test_nobody_else_may_read_the_secret(tmp_path: Path) -> None:
    load_or_create(tmp_path / "state")
    assert mode_of(tmp_path / "state") == 0o700
    assert mode_of(tmp_path / "state" / "secrets") == 0o700
    assert mode_of(tmp_path / "state" / "secrets" / "master.key") == 0o600


def test_modes_that_are_too_loose_are_tightened(tmp_path: Path) -> None:
    load_or_create(tmp_path)
    path = tmp_path / "secrets" / "master.key"
    path.chmod(0o644)
    path.parent.chmod(0o755)
    load_or_create(tmp_path)
    assert (mode_of(path), mode_of(path.parent)) == (0o600, 0o700)


def test_only_the_secret_is_left_in_its_folder(tmp_path: Path) -> None:
    load_or_create(tmp_path)
    assert [path.name for path in (tmp_path / "secrets").iterdir()] == ["master.key"]


def test_gateways_that_start_at_once_agree(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    program = (
        "import sys, pathlib; from comfy_gateway.adapters.master_secret import load_or_create;"
        "sys.stdin.readline();"
        f"print(load_or_create(pathlib.Path({str(state_dir)!r})).hex())"
    )
    addons = Path(__file__).parents[2] / "addons"
    gateways = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=addons,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for gateway in gateways:
        assert gateway.stdin is not None
        gateway.stdin.write("go\n")
        gateway.stdin.flush()
    answers = [gateway.communicate(timeout=30)[0].strip() for gateway in gateways]
    assert set(answers) == {load_or_create(state_dir).hex()}


@pytest.mark.parametrize("content", [b"", b"x" * 31], ids=["empty", "short"])
def test_a_secret_that_is_too_short_stops_the_start_and_is_kept(tmp_path: Path, content: bytes) -> None:
    load_or_create(tmp_path)
    path = tmp_path / "secrets" / "master.key"
    path.write_bytes(content)
    with pytest.raises(MasterSecretUnusable, match=r"master\.key"):
        load_or_create(tmp_path)
    assert path.read_bytes() == content


def test_an_unreadable_secret_stops_the_start_and_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "secrets" / "master.key").mkdir(parents=True)
    with pytest.raises(MasterSecretUnusable, match=r"master\.key"):
        load_or_create(tmp_path)


def test_a_state_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(MasterSecretUnusable, match="state"):
        load_or_create(tmp_path / "state")


def test_a_longer_secret_of_the_operators_own_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "master.key").write_bytes(b"k" * 64)
    assert load_or_create(tmp_path) == b"k" * 64
