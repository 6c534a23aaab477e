"""What mitmproxy shows and records of flows, ended and under way, by mitmproxy's own addons and real sockets."""

import asyncio
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import pytest
from mitmproxy import http, io

from comfy_gateway.core.requests.upstream import Upstream
from comfy_gateway.hooks.secret_headers import BLOT
from tests.conditions import wait_for
from tests.hooks.running import mitmproxy_before, server
from tests.hooks.stand import ALICE, POD, Stand

MUTE = "/object_info_that_never_comes"
CREDENTIAL = "credential-of-alice"
QUERY = "token=token-of-alice&a=1&api_key=key-of-alice"


@dataclass
class Spy:
    """What anybody who looks at flows sees of them at each moment, as mitmweb does."""

    seen: list[str] = field(default_factory=list)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        self.seen.append(repr(flow.get_state()))

    request = responseheaders = response = error = requestheaders


@dataclass
class Pod:
    """Notes what arrives, answers most of it, cuts some."""

    heads: list[str] = field(default_factory=list)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            if MUTE in head:
                await self.is_over.wait()
            if "/cut" in head:
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "flows"


async def test_no_secret_of_ours_is_in_a_flow_or_a_file_and_servers_get_them(
    tmp_path: Path, file: Path
) -> None:
    stand, spy, pod = Stand(), Spy(), Pod()
    stand.hooks.append(spy)
    token = str(POD.token)
    headers = {"X-Comfy-User": "alice", "Authorization": f"Bearer {CREDENTIAL}"}
    async with server(pod.talk) as here:
        stand.routes.set_private(ALICE, replace(POD, upstream=here.upstream))
        stand.change(site=Upstream("http", "127.0.0.1", here.upstream.port))
        async with (
            mitmproxy_before(stand, tmp_path / "mitmproxy", save_stream_file=str(file)) as url,
            aiohttp.ClientSession(headers=headers) as client,
        ):
            for path in (f"/system_stats?{QUERY}", "/cut", "/gateway/healthz"):
                async with client.get(url + path) as answer:
                    assert answer.status == (502 if path == "/cut" else 200)
            waiting = asyncio.ensure_future(client.get(f"{url}{MUTE}?{QUERY}"))
            await wait_for(lambda: len(pod.heads) == 4, "the last request")
        pod.is_over.set()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    to_pod, to_site = [pod.heads[n] for n in (0, 1, 3)], pod.heads[2]
    for head in to_pod:
        assert re.search(rf"(?im)^x-comfy-gateway-token: {token}\r$", head), head
        assert f"Bearer {CREDENTIAL}" in head
    assert QUERY in to_pod[0]
    assert BLOT not in "".join(pod.heads)
    assert f"X-Gateway-Site-Key: {stand.edge.site_key}" in to_site
    assert token not in to_site

    with file.open("rb") as opened:
        flows = list(io.FlowReader(opened).stream())
    assert len(flows) == 4, "that which was under way too"
    recorded = file.read_bytes().decode(errors="replace")
    for secret in (token, stand.edge.site_key, CREDENTIAL):
        assert secret not in recorded
        assert not [state for state in spy.seen if secret in state], "not for a moment"
    assert "-of-alice" not in recorded
    assert f"token={BLOT}&a=1&api_key={BLOT}" in recorded
