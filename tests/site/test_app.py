"""The site is for the hooks alone: without the key of this process nobody gets anything from it."""

import aiohttp
import pytest
from yarl import URL

from comfy_gateway.core import site_contract
from simulators.comfyui import ComfySimulator, serve
from tests.site.site_stand import ALICE, KEY, site_before

PATHS = [
    site_contract.RELAY_PATH,
    site_contract.RELAY_PATH + "?clientId=tab",
    site_contract.REFUSAL_PATH,
    site_contract.COMFY_PATH + "/history/p1",
    "/gateway/healthz",
    "/gateway/readyz",
    "/gateway/metrics",
    "/gateway/",
    "/gateway/ui/extension.js",
    "/",
    "/prompt",
    "/unknown",
    "/-/%2e%2e/gateway/healthz",
    "//",
]
WRONG: dict[str, dict[str, str]] = {
    "none": {},
    "empty": {site_contract.KEY: ""},
    "wrong": {site_contract.KEY: KEY + "x"},
    "begun": {site_contract.KEY: KEY[:-1]},
    "not ASCII": {site_contract.KEY: "\N{LATIN SMALL LETTER E WITH ACUTE}"},
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG.keys())
async def test_without_the_key_every_path_and_method_is_a_403(headers: dict[str, str]) -> None:
    async with site_before("http://127.0.0.1:9") as site:
        for path in PATHS:
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
                url = URL(site.url + path, encoded=True)
                async with site.http.request(method, url, headers=headers, data=b"x" * 10) as response:
                    assert response.status == 403, (method, path)
                    if method != "HEAD":
                        assert (await response.json())["error"]["type"] == "forbidden"


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG.keys())
async def test_without_the_key_no_socket_opens(headers: dict[str, str]) -> None:
    simulator = ComfySimulator()
    async with serve(simulator) as served, site_before(served.url) as site:
        for path in (site_contract.RELAY_PATH, "/ws", "/gateway/"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await site.http.ws_connect(f"{site.url}{path}?clientId=tab", headers=headers)
            assert refused.value.status == 403
        assert not simulator.requests


async def test_a_key_among_several_is_not_the_key() -> None:
    """aiohttp takes the first one; a second one does not help."""
    async with site_before("http://127.0.0.1:9") as site:
        headers = [(site_contract.KEY, "x"), (site_contract.KEY, KEY)]
        async with site.http.get(f"{site.url}/gateway/healthz", headers=headers) as response:
            assert response.status == 403


async def test_with_the_key_the_relay_answers_for_the_user_whom_the_hooks_name() -> None:
    simulator = ComfySimulator()
    async with serve(simulator) as served, site_before(served.url) as site:

        async def sid_upstream(user: str | None) -> str:
            headers = site.headers | ({site_contract.USER: user} if user else {})
            async with site.http.ws_connect(f"{site.url}/-/relay?clientId=tab", headers=headers) as socket:
                hello = await socket.receive_json(timeout=10)
                assert hello["data"]["sid"] == "tab"
                return next(
                    URL(seen.path).query["clientId"]
                    for seen in reversed(simulator.requests)
                    if seen.path.startswith("/ws")
                )

        sids = [await sid_upstream(user) for user in (ALICE.key, "named:bob", None)]
        assert len(set(sids)) == 3
        assert "tab" not in sids


async def test_a_socket_without_a_client_id_is_given_one() -> None:
    async with serve(ComfySimulator()) as served, site_before(served.url) as site:
        for query in ("", "?clientId="):
            async with site.http.ws_connect(f"{site.url}/-/relay{query}", headers=site.headers) as socket:
                hello = await socket.receive_json(timeout=10)
                assert len(hello["data"]["sid"]) == 32


@pytest.mark.parametrize("path", ["/gateway/", "/gateway/nothing", "/", "/queue", "/-/", "/-/history/"])
async def test_an_unknown_page_is_a_404_in_comfyuis_shape(path: str) -> None:
    async with site_before("http://127.0.0.1:9") as site:
        for method in ("GET", "POST"):
            async with site.http.request(method, site.url + path, headers=site.headers) as response:
                assert response.status == 404
                assert (await response.json())["error"]["type"] == "not_found"


async def test_the_site_listens_on_loopback_alone() -> None:
    async with site_before("http://127.0.0.1:9") as site:
        assert URL(site.url).host == "127.0.0.1"
        assert URL(site.url).port not in {None, 80}


async def test_long_headers_of_browsers_arrive() -> None:
    async with site_before("http://127.0.0.1:9") as site:
        headers = site.headers | {"Cookie": "a=" + "x" * 60_000}
        async with site.http.get(f"{site.url}/gateway/healthz", headers=headers) as response:
            assert response.status == 200
