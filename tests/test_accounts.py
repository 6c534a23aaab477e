"""``run_gateway.sh user`` and the file that it writes."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from comfy_gateway.accounts.__main__ import main
from comfy_gateway.accounts.editor import UsersEditor
from comfy_gateway.adapters.argon2_hashes import Argon2Hashes
from comfy_gateway.adapters.users_file import MAX_BYTES, UsersFile
from comfy_gateway.core.people.accounts import AccountsUnreadable
from comfy_gateway.core.people.roles import Role
from tests.fakes.passwords import FakeHashes

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "folder" / "users.yaml"
    monkeypatch.setenv("AUTH_USERS_FILE", str(path))
    return path


def test_add_prints_the_token_once_and_keeps_its_hash_alone(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["add", "alice", "--operator"]) == 0
    token = capsys.readouterr().out.strip()
    assert path.stat().st_mode & 0o777 == 0o600
    assert token not in path.read_text()
    assert token.rpartition("_")[2] not in path.read_text()
    account = UsersFile(path).read().by_name["alice"]
    assert account.role is Role.OPERATOR
    hashes = Argon2Hashes()
    assert account.hash.startswith("$argon2id$")
    assert hashes.verify(account.hash, token)
    assert not hashes.verify(account.hash, token[:-1])
    assert not hashes.verify(None, token)
    assert not hashes.verify("$argon2id$rubbish", token)


def test_list_and_remove(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert capsys.readouterr().out == ""
    main(["add", "bob"])
    main(["add", "alice@example.com", "--operator"])
    capsys.readouterr()
    assert main(["list"]) == 0
    assert capsys.readouterr().out == "alice@example.com  operator\nbob                user\n"
    assert main(["remove", "bob"]) == 0
    assert main(["remove", "bob"]) == 1
    assert "there is no 'bob'" in capsys.readouterr().err
    assert list(UsersFile(path).read().by_name) == ["alice@example.com"]


def test_a_name_that_is_taken_keeps_its_token(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["add", "alice"])
    before = path.read_text()
    assert main(["add", "alice"]) == 1
    assert "'alice' is there already" in capsys.readouterr().err
    assert path.read_text() == before


@pytest.mark.parametrize("name", ["", " alice", "a\nb", "é", "x" * 129])
def test_a_name_that_cannot_be_one_is_refused_and_nothing_is_written(
    path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["add", name]) == 1
    assert "is no name" in capsys.readouterr().err
    assert not path.exists()


def test_names_that_yaml_would_read_otherwise_survive(path: Path) -> None:
    editor = UsersEditor(path)
    names = ["yes", "123", "null", "2026-01-01", "a: b", "# x", "'\"", "~"]
    for name in names:
        editor.add(name, Role.USER, FakeHashes())
    assert list(UsersFile(path).read().by_name) == names


def test_a_file_that_cannot_be_used_is_left_alone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.parent.mkdir()
    path.write_text("users: [")
    assert main(["add", "alice"]) == 1
    assert f"{path}, line 1: this is no YAML" in capsys.readouterr().err
    assert path.read_text() == "users: ["
    path.unlink()
    path.mkdir()
    assert main(["list"]) == 1
    assert "Is a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [b"\xfd\x00", b"[" * 5000, b"a: &a [*a]\nb: !!python/object:os.system {}", b"x" * (MAX_BYTES + 1)],
)
def test_rubbish_is_refused(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(AccountsUnreadable):
        UsersFile(path).read()


def test_people_who_are_added_at_once_are_all_there(path: Path) -> None:
    def add(number: int) -> str | None:
        return UsersEditor(path).add(f"user {number}", Role.USER, FakeHashes())

    with ThreadPoolExecutor(8) as threads:
        tokens = set(threads.map(add, range(24)))
    assert len(tokens) == 24
    assert len(UsersFile(path).read().by_key_id) == 24
    assert list(path.parent.iterdir()) == [path]


def test_the_command_needs_no_other_setting(tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(PROJECT / "addons"),
        "AUTH_USERS_FILE": str(tmp_path / "users.yaml"),
        "RUNPOD_CONFIG_PATH": str(PROJECT / "tests/e2e/empty.yaml"),
        "PORT": "no number",
    }
    command = [sys.executable, "-m", "comfy_gateway.accounts", "add", "alice"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cgw_")
    assert done.stdout.count("\n") == 1


def test_a_wrong_setting_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RUNPOD_CONFIG_PATH", "/nowhere.yaml")
    assert main(["list"]) == 2
    assert "no such file" in capsys.readouterr().err
