"""A refusal reaches its client while the body, however large, is still on its way."""

import asyncio
import io
import json

import pytest
from yarl import URL

from comfy_gateway.core import site_contract
from comfy_gateway.core.requests.refusals import (
    PROMPT_TOO_LARGE,
    PROMPT_WITHOUT_LENGTH,
    STARTING,
    Refusal,
    bad_prompt,
    encode,
)
from tests.site.site_stand import KEY, site_before

ANY = [
    PROMPT_TOO_LARGE,
    PROMPT_WITHOUT_LENGTH,
    STARTING,
    bad_prompt("It says \N{LEFT DOUBLE QUOTATION MARK}x\N{RIGHT DOUBLE QUOTATION MARK}\r\nSet-Cookie: a=1"),
    Refusal(403, "foreign_origin", "No.", retry_after_s=7),
]


@pytest.mark.parametrize("method", ["POST", "PUT", "GET", "DELETE"])
@pytest.mark.parametrize("refusal", ANY, ids=lambda refusal: refusal.type)
async def test_it_says_what_the_hooks_decided(refusal: Refusal, method: str) -> None:
    async with site_before("http://127.0.0.1:9") as site:
        headers = site.headers | {site_contract.REFUSAL: encode(refusal)}
        async with site.http.request(method, f"{site.url}/-/refusal", headers=headers) as response:
            assert response.status == refusal.status
            assert await response.json() == refusal.body()
            assert response.headers["Cache-Control"] == "no-store"
            expected = None if refusal.retry_after_s is None else str(refusal.retry_after_s)
            assert response.headers.get("Retry-After") == expected
            assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 10737418240", b"Transfer-Encoding: chunked"], ids=["10 GB", "no end"]
)
async def test_the_answer_waits_for_no_body(framing: bytes) -> None:
    async with site_before("http://127.0.0.1:9") as site:
        url = URL(site.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        try:
            writer.write(
                b"POST /-/refusal HTTP/1.1\r\nHost: x\r\n%b: %b\r\n%b: %b\r\n%b\r\n\r\n"
                % (
                    site_contract.KEY.encode(), KEY.encode(),
                    site_contract.REFUSAL.encode(), encode(PROMPT_TOO_LARGE).encode(),
                    framing,
                )
            )  # fmt: skip
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readuntil(b'"node_errors":{}}')
            assert head.startswith(b"HTTP/1.1 413")
            assert b"prompt_too_large" in body
        finally:
            writer.close()
            await writer.wait_closed()


async def test_a_body_that_is_sent_all_the_same_does_not_cost_the_answer() -> None:
    async with site_before("http://127.0.0.1:9") as site:
        headers = site.headers | {site_contract.REFUSAL: encode(PROMPT_TOO_LARGE)}
        async with site.http.post(
            f"{site.url}/-/refusal", headers=headers, data=io.BytesIO(bytes(3_000_000))
        ) as response:
            assert response.status == 413
            assert json.loads(await response.read())["error"]["type"] == "prompt_too_large"
