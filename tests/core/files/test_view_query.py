"""The file that a query names, read as ComfyUI's own server reads it."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from yarl import URL

from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.files.view_query import file_of_query, naming


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("filename=a.png", FileName("a.png")),
        ("filename=a.png&subfolder=x%2Fy&type=temp", FileName("a.png", "x/y", "temp")),
        ("filename=a.png&subfolder=&type=output&rand=0.5", FileName("a.png")),
        ("type=input&filename=b%20c+d%2B.png", FileName("b c d+.png", "", "input")),
        ("filename=%E4%BD%A0%E5%A5%BD.png&subfolder=caf%C3%A9", FileName("你好.png", "café")),
        ("filename=a.png&subfolder=x%5Cy", FileName("a.png", "x\\y")),
        ("filename=a.png&filename=b.png&subfolder=x&subfolder=y", FileName("a.png", "x")),
        ("%66ilename=a.png", FileName("a.png")),
        ("filename=a.png%20%5Btemp%5D&type=output", FileName("a.png", "", "temp")),
        ("filename=a.png+[input]", FileName("a.png", "", "input")),
        ("filename=a.pngx[output]&type=temp", FileName("a.png", "", "output")),
        ("filename=a.png&type=", FileName("a.png", "", "")),
        ("filename=a;subfolder=x", FileName("a;subfolder=x")),
        ("filename=a.png#&subfolder=x", FileName("a.png")),
        ("filename=", None),
        ("filename", None),
        ("filename=[temp]", None),
        ("subfolder=x", None),
        ("", None),
    ],
)
def test_a_query_names_a_file(query: str, expected: FileName | None) -> None:
    assert file_of_query(query) == expected


def test_only_what_names_the_file_is_written_anew() -> None:
    query = "filename=a%2fb+c.png&subfolder=private-1%2Fx&type=output&preview=webp;90&subfolder=y&channel=rgb"
    assert (
        naming(query, FileName("a b+.png", "x y/ü", "temp"))
        == "filename=a%20b%2B.png&subfolder=x%20y%2F%C3%BC&type=temp&preview=webp;90&channel=rgb"
    )
    assert naming("filename=a#frag", FileName("b")) == "filename=b&subfolder=&type=output"
    odd = naming("rand=1", FileName("a\udce9"))
    assert odd == "filename=a%E9&subfolder=&type=output&rand=1", "a byte that is no UTF-8"


QUERIES = st.lists(
    st.sampled_from(
        ["filename", "subfolder", "type", "x", "=", "&", "+", "%41", "%2F", "%", "%c3%a9", "a.png", ";", "ü"]
    )
).map("".join)


@given(QUERIES)
def test_it_is_read_as_the_servers_own_library_reads_it(query: str) -> None:
    theirs = URL("/view?" + query, encoded=True).query
    name = theirs.get("filename", "")
    expected = FileName(name, theirs.get("subfolder", ""), theirs.get("type", "output")) if name else None
    assert file_of_query(query) == expected


@given(
    QUERIES, st.builds(FileName, st.text(min_size=1), st.text(), st.sampled_from(["output", "temp", "input"]))
)
def test_the_file_that_is_named_anew_is_read_back(query: str, file: FileName) -> None:
    assume(not file.filename.endswith("]"))
    assert file_of_query(naming(query, file)) == file
