"""No address makes the sign-in page send a browser elsewhere."""

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.people.return_path import MAX_LENGTH, safe_return


@pytest.mark.parametrize(
    "path", ["/", "/?a=1&b=%2F", "/view?filename=a.png", "/gateway/", "/x#y", "/a//b", "/@host/"]
)
def test_a_path_of_ours_stays(path: str) -> None:
    assert safe_return(path) == path


@pytest.mark.parametrize(
    "path",
    [
        None, "", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example",
        "/\n/evil.example", "https://evil.example", "https:/evil.example", "javascript:alert(1)", "evil.example",
        " /", "/ a", "/ä", "/\x00", "/a\r\nSet-Cookie: x=y", "/\\/evil.example", "/a\\b", "/" + "a" * MAX_LENGTH,
        "/gateway/signin", "/gateway/signin?next=/gateway/signin", "/gateway/signout",
    ],
)  # fmt: skip
def test_everything_else_is_the_front_page(path: str | None) -> None:
    assert safe_return(path) == "/"


@given(st.text(st.sampled_from("/\\.:@%?#&=ahtps \t\r\n\x00é"), max_size=20))
def test_a_browser_stays_with_us(path: str) -> None:
    # WHATWG: a backslash is a slash, and tabs and line ends are left out.
    as_browsers_read = "".join(safe_return(path).replace("\\", "/").split())
    assert urlsplit(urljoin("https://ours.example/gateway/signin", as_browsers_read)).netloc == "ours.example"
