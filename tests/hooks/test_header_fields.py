"""One pass over the headers leaves what several changes by mitmproxy's own methods would."""

from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import http

from comfy_gateway.hooks.header_fields import names_of, rewrite

words = st.sampled_from(["host", "cookie", "x-a", "x-b", "te"])
spellings = st.sampled_from([str.lower, str.upper, str.title])
fields = st.lists(st.tuples(words, spellings, st.sampled_from(["", "1", "2"])), max_size=8)


def headers_of(given_fields: list[tuple[str, object, str]]) -> http.Headers:
    return http.Headers([(spell(name).encode(), value.encode()) for name, spell, value in given_fields])  # type: ignore[operator]


@given(
    fields=fields, drop=st.sets(words), put=st.dictionaries(words.map(str.title), st.sampled_from(["9", ""]))
)
def test_dropped_is_gone_and_put_is_there_once(
    fields: list[tuple[str, object, str]], drop: set[str], put: dict[str, str]
) -> None:
    ours, stock = headers_of(fields), headers_of(fields)
    rewrite(ours, drop=drop, put=put)
    for name in drop - {name.lower() for name in put}:
        stock.pop(name, None)
    for name, value in put.items():
        stock[name] = value
    assert ours == stock


def test_names_are_told_in_lower_case_whatever_bytes_they_have() -> None:
    assert names_of(http.Headers([(b"HoSt", b"a"), (b"host", b"b"), (b"X-\xe4", b"")])) == {"host", "x-ä"}
