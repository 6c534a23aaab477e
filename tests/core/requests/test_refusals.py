"""What the gateway says when it answers no."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.requests import refusals
from comfy_gateway.core.requests.refusals import (
    Refusal,
    bad_path,
    bad_prompt,
    decode,
    encode,
    headers_of,
    render,
)

ALL = [value for value in vars(refusals).values() if isinstance(value, Refusal)] + [
    bad_path("it holds //"),
    bad_prompt("no JSON"),
]
ids = [refusal.type for refusal in ALL]


@pytest.mark.parametrize("refusal", ALL, ids=ids)
def test_the_body_has_the_shape_of_comfyuis_own_errors(refusal: Refusal) -> None:
    body, content_type = render(refusal, wants_html=False)
    assert content_type == "application/json"
    assert orjson.loads(body) == {
        "error": {
            "type": refusal.type,
            "message": refusal.message,
            "details": refusal.details,
            "extra_info": {},
        },
        "node_errors": {},
    }


@pytest.mark.parametrize("refusal", ALL, ids=ids)
def test_each_is_an_error_with_words(refusal: Refusal) -> None:
    assert 400 <= refusal.status <= 599
    assert refusal.message.endswith(".")
    assert "127.0.0.1" not in refusal.message + refusal.details


@pytest.mark.parametrize("refusal", ALL, ids=ids)
def test_no_answer_is_kept_and_a_passing_trouble_says_when_to_come_again(refusal: Refusal) -> None:
    headers = headers_of(refusal)
    assert headers["Cache-Control"] == "no-store"
    assert headers.get("Retry-After") == (str(refusal.retry_after_s) if refusal.retry_after_s else None)
    if refusal.status in {502, 503, 504}:
        assert "Retry-After" in headers


@given(
    st.builds(
        Refusal,
        st.integers(400, 599),
        st.text(max_size=20),
        st.text(max_size=50),
        st.text(max_size=50),
        st.one_of(st.none(), st.integers(1, 60)),
    )
)
def test_one_header_carries_a_refusal_whole(refusal: Refusal) -> None:
    carried = encode(refusal)
    assert carried.isascii()
    assert carried.isprintable()
    assert decode(carried) == refusal


def test_a_page_shows_text_as_text() -> None:
    body, content_type = render(Refusal(400, "x", "<b>no</b>", "<i>&"), wants_html=True)
    assert content_type == "text/html"
    assert b"<b>" not in body
    assert b"<i>" not in body
    assert b"&lt;b&gt;no&lt;/b&gt;" in body
    assert b"<form" not in body


def test_a_page_that_asks_for_a_name_sends_it_by_the_right_key() -> None:
    body, _ = render(Refusal(400, "x", "Say who you are."), wants_html=True, name_key='a"b')
    assert b"Who are you?" in body
    assert b"Say who you are." in body
    assert b'name="a&quot;b"' in body


@pytest.mark.parametrize("why", ["it holds //", "it is no JSON"])
def test_the_reason_is_in_the_details(why: str) -> None:
    assert bad_path(why).details == bad_prompt(why).details == why
    assert bad_path(why).status == bad_prompt(why).status == 400
