"""The list of modules that ComfyUI's page imports."""

import json

import pytest

from comfy_gateway.core.interface.extension_list import BADGE_MODULE, with_badge


def test_our_module_comes_last_and_the_others_keep_their_order() -> None:
    listed = with_badge(b'["/extensions/core/b.js", "/extensions/a.js"]')
    assert listed is not None
    assert json.loads(listed) == ["/extensions/core/b.js", "/extensions/a.js", BADGE_MODULE]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b"null", b'["/a.js", 7]', json.dumps([BADGE_MODULE]).encode()]
)
def test_what_is_no_list_of_paths_is_left_alone(body: bytes) -> None:
    assert with_badge(body) is None
