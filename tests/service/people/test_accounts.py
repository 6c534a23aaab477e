"""The file of users, followed while the gateway runs."""

from pathlib import Path

import pytest

from comfy_gateway.accounts.editor import UsersEditor
from comfy_gateway.adapters.users_file import UsersFile
from comfy_gateway.core.people.accounts import AccountsUnreadable
from comfy_gateway.core.people.roles import Role
from comfy_gateway.service.people.accounts import LOOK_EVERY_S, AccountBook
from comfy_gateway.service.tasks import Tasks
from tests.conditions import wait_for
from tests.fakes.clock import FakeClock
from tests.fakes.passwords import FakeHashes


class Stand:
    """A file, and a book that follows it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "users.yaml"
        self.editor = UsersEditor(self.path)
        self.clock = FakeClock()
        self.book = AccountBook(UsersFile(self.path), self.clock)
        self.left: list[str] = []
        self.book.on_leave(self.left.append)

    def add(self, name: str, role: Role = Role.USER) -> None:
        assert self.editor.add(name, role, FakeHashes()) is not None

    @property
    def names(self) -> set[str]:
        return set(self.book.accounts.by_name)

    async def look(self) -> None:
        """Let the book look again."""
        tasks = Tasks("test")
        tasks.start(self.book.run(), name="book")
        await self.clock.advance(LOOK_EVERY_S)
        # The disk is read in threads, which no clock of ours moves.
        await wait_for(lambda: self.clock.sleepers, "the end of the look")
        await tasks.aclose()


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


async def test_who_is_added_or_removed_is_known_within_seconds(stand: Stand) -> None:
    stand.add("alice")
    await stand.book.load()
    assert stand.names == {"alice"}
    stand.add("bob")
    await stand.look()
    assert stand.names == {"alice", "bob"}
    assert stand.left == []
    assert stand.editor.remove("alice")
    await stand.look()
    assert stand.names == {"bob"}
    assert stand.left == ["alice"]
    assert LOOK_EVERY_S <= 5


async def test_who_gets_another_token_or_role_is_told_to_leave(stand: Stand) -> None:
    stand.add("alice")
    await stand.book.load()
    stand.editor.remove("alice")
    stand.add("alice", Role.OPERATOR)
    await stand.look()
    assert stand.left == ["alice"]
    assert stand.book.accounts.by_name["alice"].role is Role.OPERATOR


async def test_without_a_file_nobody_can_sign_in_and_that_is_said(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    await stand.book.load()
    assert "nobody can sign in yet" in caplog.text
    stand.add("alice")
    await stand.look()
    assert stand.names == {"alice"}
    stand.path.unlink()
    await stand.look()
    assert stand.names == set()
    assert stand.left == ["alice"]


async def test_a_file_that_breaks_changes_nothing_and_is_said_once(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    stand.add("alice")
    await stand.book.load()
    good = stand.path.read_text()
    stand.path.write_text("users: {alice: {hash: $argon2id$SECRET")
    await stand.look()
    await stand.look()
    assert stand.names == {"alice"}
    assert caplog.text.count("what it said before still holds") == 1
    assert "SECRET" not in caplog.text
    stand.path.write_text(good.replace("alice", "bob"))
    await stand.look()
    assert stand.names == {"bob"}


async def test_a_file_that_is_wrong_at_the_start_ends_the_start(stand: Stand) -> None:
    stand.path.write_text("users: 5")
    with pytest.raises(AccountsUnreadable, match=r"users\.yaml: it must be a mapping"):
        await stand.book.load()


async def test_a_file_that_others_may_read_becomes_its_owners(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    stand.add("alice")
    stand.path.chmod(0o644)
    await stand.book.load()
    assert stand.path.stat().st_mode & 0o777 == 0o600
    assert "could be read by others (mode 0644)" in caplog.text
    assert list(stand.path.parent.iterdir()) == [stand.path]
