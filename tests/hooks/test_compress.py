"""Long lists of a server, compressed on their way, and not sent to who has them."""

import json
import random
import zlib

import pytest
from mitmproxy import http
from mitmproxy.test import taddons

from comfy_gateway.core.requests.content_coding import WORTHWHILE_BYTES
from comfy_gateway.hooks.compress import CompressHook
from comfy_gateway.service.interface.compressed_bodies import CompressedBodies
from tests.hooks.stand import Stand, ask

INFO = json.dumps({"LoadImage": {"input": {"required": {"image": [["mine.png"] * 200]}}}}).encode()
JSON = {"Content-Type": "application/json"}


async def through(
    path: str,
    accept: str = "gzip",
    known: str = "",
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> http.Response:
    hook = CompressHook()
    with taddons.context(hook):
        flow = ask(path, headers=[("Accept-Encoding", accept), ("If-None-Match", known)])
        hook.requestheaders(flow)
        flow.response = http.Response.make(status, INFO, JSON | (headers or {}))
        await hook.response(flow)
        return flow.response


@pytest.mark.parametrize("path", ["/object_info", "/api/object_info", "/api/i18n"])
async def test_a_long_list_comes_compressed_with_a_tag_and_is_not_sent_twice(path: str) -> None:
    response = await through(path)
    assert response.headers["Content-Encoding"] == "gzip"
    assert response.content == INFO
    assert zlib.decompress(response.raw_content or b"", 31) == INFO
    assert response.headers["Content-Length"] == str(len(response.raw_content or b""))
    assert response.headers["Cache-Control"] == "private, no-cache"
    again = await through(path, known=response.headers["ETag"])
    assert (again.status_code, again.raw_content) == (304, b"")
    assert "Content-Length" not in again.headers


async def test_who_takes_no_coding_gets_none() -> None:
    response = await through("/object_info", "identity")
    assert (response.raw_content, response.headers["ETag"].count("-")) == (INFO, 0)


@pytest.mark.parametrize(
    ("path", "status", "headers"),
    [
        ("/object_info", 500, {}),
        ("/object_info", 200, {"ETag": '"theirs"'}),
        ("/history", 200, {}),
        ("/view?filename=a", 200, {}),
        ("/object_info/LoadImage", 200, {}),
        ("no path", 200, {}),
    ],
)
async def test_every_other_answer_stays_as_it_is(path: str, status: int, headers: dict[str, str]) -> None:
    response = await through(path, status=status, headers=headers)
    assert response.raw_content == INFO
    assert "Content-Encoding" not in response.headers


async def test_the_router_has_only_such_an_answer_read(stand: Stand) -> None:
    for path, is_streamed in (("/object_info", False), ("/system_stats", True)):
        flow = ask(path)
        CompressHook().requestheaders(flow)
        await stand.head(flow)
        flow.response = http.Response.make(200, INFO, JSON)
        await stand.answer(flow, flow.response)
        assert bool(flow.response.stream) == is_streamed


async def test_compressed_answers_are_made_once_and_bounded() -> None:
    bodies = CompressedBodies(most_bytes=WORTHWHILE_BYTES)
    digest = await bodies.digest(INFO)
    made = await bodies.coded(INFO, digest, "br")
    assert await bodies.coded(INFO, digest, "br") is made
    large = bytes(range(256)) * 512
    assert await bodies.digest(large) != digest
    incompressible = random.Random(1).randbytes(10_000)
    await bodies.coded(incompressible, "other", "zstd")
    assert await bodies.coded(INFO, digest, "br") is not made
