"""What front_door.py writes: a digest instead of the token, and nothing that a setting could smuggle in."""

import base64
import hashlib
import re
import stat
from pathlib import Path

import pytest

from container import front_door

TOKEN = b"0123456789abcdef" * 4
VALUES = {"listen": "0.0.0.0:8188", "comfyui": "127.0.0.1:8189", "max_body": "2g", "silence": "24h"}


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, pattern
    return match[1]


def rendered(mode: str = "guarded", token: bytes = TOKEN) -> str:
    return front_door.render(token, mode, VALUES, as_root=False)


def test_the_file_holds_the_digest_of_a_fresh_salt_and_the_token() -> None:
    text, again = rendered(), rendered()
    salt = found(r'secure_link_md5 "([0-9a-f]{64})\$http_x_comfy_gateway_token";', text)
    expected = hashlib.md5(salt.encode() + TOKEN, usedforsecurity=False).digest()
    digest = found(r'secure_link "([^"]+)";', text)
    assert base64.urlsafe_b64decode(digest + "==") == expected
    assert TOKEN.decode() not in text
    assert salt not in again
    assert digest not in again


@pytest.mark.parametrize(("mode", "otherwise"), [("guarded", "401"), ("open", ""), ("closed", "503")])
def test_the_mode_says_what_everybody_else_gets(mode: str, otherwise: str) -> None:
    assert found(r'default "(\d*)";', rendered(mode)) == otherwise


def test_a_closed_door_has_no_key() -> None:
    """Not even an empty token fits: the digest is that of random bytes."""
    text = rendered("closed", b"")
    salt = found(r'secure_link_md5 "([0-9a-f]{64})', text)
    assert front_door.digest(salt, b"") not in text


@pytest.mark.parametrize(
    "token",
    [b"", b"short", b"fifteen letters", b"x" * 20 + b"\n", b"x" * 20 + b" ", "é".encode() * 20, b"x" * 5000],
)
def test_a_token_that_a_header_cannot_carry_is_refused(token: bytes) -> None:
    with pytest.raises(ValueError, match="the token must have 16 or more") as refused:
        rendered(token=token)
    assert "x" * 20 not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen", "8188; } evil {"),
        ("listen", "0.0.0.0:8188\nevil"),
        ("comfyui", "127.0.0.1:8189/path"),
        ("comfyui", "$http_host:80"),
        ("max_body", "2g;"),
        ("max_body", ""),
        ("silence", "24h\n"),
        ("silence", "-1"),
    ],
)
def test_a_value_that_is_more_than_a_value_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot be"):
        front_door.render(TOKEN, "guarded", VALUES | {name: value}, as_root=False)


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    (tmp_path / "nginx.conf").write_text("old, and readable by all")
    front_door.write(tmp_path, "new")
    assert stat.S_IMODE((tmp_path / "nginx.conf").stat().st_mode) == 0o600
    assert (tmp_path / "nginx.conf").read_text() == "new"
