"""What may be kept of a server's front end, and what never is."""

import pytest

from comfy_gateway.core.interface import files as interface_files
from comfy_gateway.core.interface.files import ASK_AGAIN, IMMUTABLE, Told, Version

TAG = "0123456789abcdef"
FOUND = {"etag": '"1"', "content-type": "application/javascript"}


@pytest.mark.parametrize(
    "path",
    [
        "/assets/index-BKeTeXLp.js",
        "/assets/lib/@primeuix/forms/index.mjs",
        "/scripts/app.js",
        "/extensions/core/load3d/NodeStorage.js",
        "/extensions/My%20Node/web/style.css",
        "/fonts/inter.woff2",
        "/materialdesignicons.min.css",
    ],
)
def test_files_of_the_front_end_may_be_kept(path: str) -> None:
    assert interface_files.is_file(path)


@pytest.mark.parametrize(
    "path",
    [
        "/user.css",
        "/api/userdata/user.css",
        "/userdata/user.css",
        "/view",
        "/history/x.js",
        "/settings",
        "/assets/",
        "/assets/index.js.map",
        "/assets/picture.png",
        "/assets/a?b.js",
        "/api/assets/x.js",
        "/extensions",
        "/my_node/x.js",
    ],
)
def test_nothing_else_is_kept(path: str) -> None:
    assert not interface_files.is_file(path)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (404, FOUND),
        (206, FOUND),
        (200, {"content-type": "text/css"}),
        (200, FOUND | {"set-cookie": "a=b"}),
        (200, FOUND | {"cache-control": "private"}),
        (200, FOUND | {"cache-control": "No-Store"}),
        (200, FOUND | {"vary": "Cookie"}),
        (200, FOUND | {"vary": "*"}),
        (200, FOUND | {"content-encoding": "gzip"}),
    ],
)
def test_an_answer_that_may_differ_or_cannot_be_compared_is_not_kept(
    status: int, headers: dict[str, str]
) -> None:
    assert not Told(status, headers).is_keepable


def test_a_validator_is_the_tag_or_the_date() -> None:
    assert Told(200, FOUND | {"cache-control": "no-cache", "vary": "Accept-Encoding"}).is_keepable
    assert Told(200, {"last-modified": "then"}).validator == "then"
    assert Told(200, FOUND | {"last-modified": "then"}).validator == '"1"'


def test_a_versioned_address_is_a_version_and_the_servers_own_path() -> None:
    assert interface_files.split(f"/gateway/files/{TAG}/scripts/app.js") == (TAG, "/scripts/app.js")
    assert interface_files.split("/scripts/app.js") == (None, "/scripts/app.js")
    assert interface_files.split("/gateway/files/x/scripts/app.js") == (
        None,
        "/gateway/files/x/scripts/app.js",
    )


@pytest.mark.parametrize(
    "path", ["/view", "/prompt", "/gateway/healthz", "/api/userdata/x", "/userdata/x", "/", "/my_node/x.js"]
)
def test_a_version_in_front_opens_no_way_to_what_is_no_file(path: str) -> None:
    assert not interface_files.is_versioned_file(f"/gateway/files/{TAG}{path}")
    assert interface_files.is_versioned_file(f"/gateway/files/{TAG}/extensions/a/b.js")


def test_listed_modules_that_do_not_come_with_the_front_end() -> None:
    listed = ["/extensions/core/a.js", "/extensions/My%20Node/js/b.js", "/gateway/ui/extension.js", 7, "/x.js",
              "/extensions/My%20Node/js/b.js", "/extensions/a/../b.js"]  # fmt: skip
    assert interface_files.custom_modules(listed) == ["/extensions/My%20Node/js/b.js"]
    assert interface_files.custom_modules({"a": 1}) == []
    assert interface_files.folder_of("/extensions/My%20Node/js/b.js") == "/extensions/My%20Node/"


@pytest.mark.parametrize(
    ("module", "minds"),
    [
        (b"const here = new URL('.', import.meta.url)", True),
        (b"import . meta", True),
        (b"script.type = 'module'", True),
        (b'{type: "module"}', True),
        (b"document.currentScript.src", True),
        (b"import {app} from '../../scripts/app.js'; import('./b.js')", False),
    ],
)
def test_a_module_that_may_look_at_its_address_is_known(module: bytes, minds: bool) -> None:
    assert interface_files.minds_address(module) == minds


def test_a_version_is_another_when_anything_in_it_is() -> None:
    version = Version.of("1", {"/extensions/a/b.js": "x"}, ["/extensions/a/"])
    assert version == Version.of("1", {"/extensions/a/b.js": "x"}, ["/extensions/a/"])
    others = {
        Version.of("2", {"/extensions/a/b.js": "x"}, ["/extensions/a/"]).tag,
        Version.of("1", {"/extensions/a/b.js": "y"}, ["/extensions/a/"]).tag,
        Version.of("1", {}, ["/extensions/a/"]).tag,
        Version.of("1", {"/extensions/a/b.js": "x"}, []).tag,
    }
    assert len(others | {version.tag}) == 5
    assert version.covers("/extensions/a/b.js")
    assert version.covers("/extensions/core/a.js")
    assert version.covers("/assets/x.js")
    assert not version.covers("/extensions/a/helper.mjs")
    assert not version.covers("/extensions/a/style.css")


@pytest.mark.parametrize(
    ("path", "is_settled", "rule"),
    [
        ("/scripts/app.js", True, IMMUTABLE),
        ("/scripts/app.js", False, ASK_AGAIN),
        ("/assets/index-BKeTeXLp.js", False, ASK_AGAIN),
        ("/assets/index-BKeT9XLp.js", False, IMMUTABLE),
        ("/assets/sorted-custom-node-map.json", False, ASK_AGAIN),
        ("/extensions/a/index-BKeT9XLp.js", False, ASK_AGAIN),
    ],
)
def test_only_what_cannot_change_at_its_address_is_kept_unasked(
    path: str, is_settled: bool, rule: str
) -> None:
    assert interface_files.cache_control(path, is_settled=is_settled) == rule
