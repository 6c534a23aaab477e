"""Tokens are read from two places and shown to the hosts that they are for, by TLS alone."""

from pathlib import Path

import pytest
from yarl import URL

from model_sync import tokens
from model_sync.errors import BadSetting
from model_sync.tokens import Tokens

BOTH = Tokens({"HF_TOKEN": "hf_geheim", "CIVITAI_TOKEN": "civ_geheim"})


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("https://huggingface.co/o/n/resolve/main/x", "hf_geheim"),
        ("https://HuggingFace.co/x", "hf_geheim"),
        ("https://civitai.com/api/download/models/1", "civ_geheim"),
        ("http://huggingface.co/x", None),
        ("https://cdn-lfs.huggingface.co/x", None),
        ("https://huggingface.co.evil.example/x", None),
        ("https://evil.example/huggingface.co", None),
        ("https://evilhuggingface.co/x", None),
        ("https://civitai.com@evil.example/x", None),
        ("https://127.0.0.1/x", None),
    ],
)
def test_only_its_own_host_is_shown_a_token(url: str, token: str | None) -> None:
    assert BOTH.headers_for(URL(url)) == ({"Authorization": f"Bearer {token}"} if token else {})


def test_a_token_is_read_from_the_variable_or_from_the_file_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    found = tokens.from_environment({"HF_TOKEN": " direct ", "CIVITAI_TOKEN_FILE": str(tmp_path / "token")})
    assert dict(found.by_name) == {"HF_TOKEN": "direct", "CIVITAI_TOKEN": "from-file"}
    assert dict(tokens.from_environment({"HF_TOKEN": "  "}).by_name) == {}


def test_a_token_file_that_cannot_be_read_and_a_token_of_two_lines_are_told(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="HF_TOKEN_FILE"):
        tokens.from_environment({"HF_TOKEN_FILE": str(tmp_path / "missing")})
    with pytest.raises(BadSetting) as caught:
        tokens.from_environment({"HF_TOKEN": "geheim\r\nX-Evil: 1"})
    assert "geheim" not in str(caught.value)


def test_a_token_is_in_no_representation_and_is_taken_out_of_texts() -> None:
    assert "geheim" not in repr(BOTH)
    assert BOTH.redacted("a hf_geheim b") == "a *** b"
