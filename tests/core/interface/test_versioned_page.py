"""What becomes of ComfyUI's page."""

import json
import re
from typing import Any

import pytest

from comfy_gateway.core.interface.files import Version
from comfy_gateway.core.interface.versioned_page import versioned

VERSION = Version.of("1", {"/extensions/a/b.js": "x"}, ["/extensions/a/"])
ROOT = f"./gateway/files/{VERSION.tag}/"
PAGE = """<!doctype html><head><link rel="stylesheet" href="materialdesignicons.min.css"/>
<link rel="stylesheet" href="api/userdata/user.css"/><link rel="manifest" href="./assets/manifest.json">
<script type="importmap">{"imports": {"vue": "./assets/lib/vue.js", "far": "https://cdn.test/far.js"}}</script>
<script type="module" crossorigin src="./assets/index-A.js"></script>
<link rel="modulepreload" href="/assets/more-A.js"><link rel="stylesheet" href="./assets/index-A.css"></head>"""


def imports_of(page: str | None) -> dict[str, Any]:
    assert page is not None
    [text] = re.findall(r'<script type="importmap">(.*?)</script>', page, re.S)
    imports: dict[str, Any] = json.loads(text)["imports"]
    return imports


def test_each_way_to_a_module_leads_to_its_versioned_address() -> None:
    imports = imports_of(versioned(PAGE, VERSION))
    assert imports["vue"] == f"{ROOT}assets/lib/vue.js"
    assert imports["far"] == "https://cdn.test/far.js"
    for tree in ("assets/", "scripts/", "extensions/core/", "extensions/a/"):
        assert imports[f"./{tree}"] == imports[ROOT + tree] == ROOT + tree
    assert imports[ROOT] == "./"
    assert "./extensions/other/" not in imports


def test_what_the_page_itself_loads_is_versioned_and_nothing_else() -> None:
    page = versioned(PAGE, VERSION)
    assert page is not None
    for address in ("index-A.js", "more-A.js", "index-A.css"):
        assert f'"{ROOT}assets/{address}"' in page
    for address in ("materialdesignicons.min.css", "api/userdata/user.css", "./assets/manifest.json"):
        assert f'"{address}"' in page


def test_a_page_without_a_map_gets_one_before_its_first_module() -> None:
    page = versioned('<head><script src="./assets/a.js" type="module"></script></head>', VERSION)
    assert imports_of(page)["./scripts/"] == f"{ROOT}scripts/"
    assert page is not None
    assert page.index("importmap") < page.index("assets/a.js")


@pytest.mark.parametrize(
    "page",
    [
        "no scripts",
        '<script type="importmap">{"imports": {}}</script>',
        PAGE + '<base href="/x/">',
        PAGE + '<meta http-equiv="Content-Security-Policy" content="">',
        PAGE + '<script integrity="sha256-x" src="x"></script>',
        PAGE + '<script type="importmap">{"imports": {}}</script>',
        PAGE.replace('{"imports"', '{"scopes": {}, "imports"'),
        PAGE.replace('{"imports"', "{imports"),
        PAGE.replace('"./assets/lib/vue.js"', "null"),
    ],
    ids=["no script", "a map alone", "base", "policy", "integrity", "two maps", "scopes", "no JSON", "null"],
)
def test_a_page_that_is_not_made_as_we_know_it_is_left_alone(page: str) -> None:
    assert versioned(page, VERSION) is None
