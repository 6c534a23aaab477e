"""Where the passwords of AUTH_MODE=basic are: files and directories that change, fail and lie."""

import logging
import ssl
from pathlib import Path

import bcrypt
import pytest
import trustme

from comfy_gateway.core.people.sign_in import PasswordsUnavailable
from comfy_gateway.hooks.passwords import (
    LDAP_TIMEOUT_S,
    LOOK_EVERY_S,
    Htpasswd,
    Ldap,
    PasswordsUnusable,
    directory_of,
    follow,
)
from comfy_gateway.service.tasks import Tasks
from tests.conditions import wait_for
from tests.fakes.clock import FakeClock
from tests.hooks.directory import running_directory


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def write(path: Path, **passwords: str) -> None:
    path.write_text("".join(f"{name}:{hashed(password)}\n" for name, password in passwords.items()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "htpasswd"


# htpasswd ---------------------------------------------------------------------------------------------------


def test_a_password_is_checked_by_its_hash(path: Path) -> None:
    write(path, alice="wonder:land ü", bob="x")
    passwords = directory_of(f"@{path}")
    assert passwords.check("alice", "wonder:land ü")
    assert not passwords.check("alice", "x")
    assert not passwords.check("nobody", "x")
    assert not passwords.check("alice", "p" * 100)
    assert not passwords.check("alice", "a\0b")
    assert passwords.stamp("alice") != passwords.stamp("bob")
    assert passwords.stamp("nobody") is None
    assert passwords.canonical("Alice") == "Alice"


def test_an_empty_file_lets_nobody_in(path: Path) -> None:
    path.write_text("# nobody yet\n")
    assert not Htpasswd(path).check("alice", "")


def test_whose_name_cannot_sign_in_is_said_at_the_start(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(path, zoë="x", alice="x")
    assert Htpasswd(path).check("alice", "x")
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: user 'zoë' cannot sign in: a name is 1 to 128 printable ASCII characters"
    ]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("alice:$apr1$SECRET", "is no htpasswd file with bcrypt hashes"),
        ("aliceSECRET", "is no htpasswd file with bcrypt hashes"),
        ("alice:{SHA}SECRET", "hashed by SHA-1"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_protects_nothing_is_refused_without_a_word_of_it(
    path: Path, content: str | None, why: str
) -> None:
    if content is not None:
        path.write_text(content)
    with pytest.raises(PasswordsUnusable, match=why) as caught:
        Htpasswd(path)
    assert "SECRET" not in str(caught.value)
    assert str(path) in str(caught.value)


async def test_a_file_is_followed(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(path, alice="a", bob="b")
    passwords, clock, tasks = Htpasswd(path), FakeClock(), Tasks("test")
    left: list[str] = []
    tasks.start(follow(passwords, clock, left.append), name="passwords")

    async def look() -> None:
        await clock.advance(LOOK_EVERY_S)
        # The disk is read in a thread, which no clock of ours moves.
        await wait_for(lambda: clock.sleepers, "the end of the look")

    await look()
    assert left == []
    bob = passwords.stamp("bob")
    path.write_text(f"bob:{bob}\ncarol:{hashed('c')}\n")
    await look()
    assert left == ["alice"]
    assert not passwords.check("alice", "a")
    assert passwords.check("carol", "c")
    path.write_text("rubbish")
    await look()
    await look()
    assert passwords.check("bob", "b"), "a broken file changes nothing"
    assert caplog.text.count("what it said before still holds") == 1
    path.unlink()
    await look()
    assert left == ["alice", "bob", "carol"]
    assert not passwords.check("bob", "b")
    await tasks.aclose()


# LDAP -------------------------------------------------------------------------------------------------------


def test_a_person_is_searched_and_bound() -> None:
    with running_directory(Alice="right") as directory:
        passwords = directory_of(directory.spec())
        assert passwords.check("alice", "right")
        assert not passwords.check("alice", "wrong")
        assert not passwords.check("nobody", "right")
        assert not passwords.check("alice", "")
        assert not passwords.check("", "right")
        assert directory.searched == ["alice", "alice", "nobody"]
        assert passwords.refresh() == []
        assert passwords.stamp("nobody") == passwords.stamp("alice")


def test_a_name_is_one_name_in_every_spelling() -> None:
    with running_directory() as directory:
        passwords = directory_of(directory.spec(more="?search_filter_key=uid"))
        assert passwords.canonical(" ALICE   Smith ") == "alice smith"


def test_a_name_is_data_and_no_filter() -> None:
    with running_directory(alice="right") as directory:
        passwords = directory_of(directory.spec())
        assert not passwords.check("*", "right")
        assert not passwords.check("alice)(cn=*", "right")
        assert directory.searched == ["*", "alice)(cn=*"]


def test_who_is_found_twice_is_nobody() -> None:
    with running_directory(alice="right") as directory:
        directory.doubles = True
        assert not Ldap(directory.spec()).check("alice", "right")


def test_a_directory_that_is_down_or_busy_says_nothing_about_a_password() -> None:
    with running_directory(alice="right") as directory:
        passwords = Ldap(directory.spec())
        directory.is_busy = True
        with pytest.raises(PasswordsUnavailable):
            passwords.check("alice", "right")
        with pytest.raises(PasswordsUnavailable):
            Ldap(directory.spec(secret="changed")).check("alice", "right")
        directory.is_busy = False
        assert passwords.check("alice", "right"), "it is asked anew each time"
    with pytest.raises(PasswordsUnavailable):
        passwords.check("alice", "right")


@pytest.mark.long
def test_a_directory_that_never_answers_is_given_up() -> None:
    assert LDAP_TIMEOUT_S < 15
    with running_directory(alice="right") as directory:
        directory.is_silent = True
        with pytest.raises(PasswordsUnavailable):
            Ldap(directory.spec()).check("alice", "right")


def test_ldaps_wants_a_certificate_that_can_be_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    with running_directory(tls=tls, alice="right") as directory:
        passwords = Ldap(directory.spec(scheme="ldaps", host="localhost"))
        with pytest.raises(PasswordsUnavailable):
            passwords.check("alice", "right")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert Ldap(directory.spec(scheme="ldaps", host="localhost")).check("alice", "right")
    assert "plain text" not in caplog.text


def test_plain_ldap_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Ldap("ldap:localhost:cn=gw:SECRET:dc=example")
    assert "plain text" in caplog.text
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize(
    "spec", ["ldap:SECRET", "ldap:a:b:c:d:e:SECRET:g", "ldap:host:x:cn=a:SECRET:dc=b", "ldap:h:a:SECRET:dc?x"]
)
def test_a_wrong_source_is_refused_unshown(spec: str) -> None:
    with pytest.raises(PasswordsUnusable) as caught:
        Ldap(spec)
    assert "SECRET" not in str(caught.value)
