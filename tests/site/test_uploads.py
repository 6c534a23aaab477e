"""/upload/image and /upload/mask through the site, and what it shows of input files."""

import asyncio
import gc
import hashlib
import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import psutil
import pytest
from aiohttp import web

from comfy_gateway.core import site_contract
from comfy_gateway.core.inputs.ports import AgentPlace
from comfy_gateway.core.requests.upstream import Backend, Upstream
from comfy_gateway.site.app import build_app
from comfy_gateway.site.input_files import InputFiles
from comfy_gateway.site.server import SiteServer
from comfy_gateway.site.servers import Servers
from comfy_gateway.site.uploads import Uploads
from tests.adapters.test_input_store import files_limited_to
from tests.agent.stand import TOKEN, agent_process, environment
from tests.conditions import wait_for
from tests.contract.loopback import answering
from tests.service.inputs_stand import ALICE, PEER, World, png, sha256, world

KEY = "the-key"
X, Y = png(1), png(2)


@dataclass
class Site:
    around: World
    url: str

    def headers(self, **more: str) -> dict[str, str]:
        return {
            site_contract.KEY: KEY,
            site_contract.PEER: PEER,
            site_contract.USER: ALICE.key,
            **more,
        }

    async def post(self, form: Any, *, kind: str = "image", **headers: str) -> tuple[int, Any, Any]:
        url = self.url + site_contract.UPLOAD_PATH + kind
        async with self.around.http.post(url, data=form, headers=self.headers(**headers)) as response:
            return response.status, await response.json(content_type=None), response.headers

    async def get(self, path: str, **headers: str) -> tuple[int, bytes, Any]:
        async with self.around.http.get(self.url + path, headers=self.headers(**headers)) as response:
            return response.status, await response.read(), response.headers

    def leftovers(self) -> list[str]:
        return [path.name for path in self.around.store.path("x").parent.iterdir()]


@asynccontextmanager
async def site_at(tmp_path: Path, *, most_bytes: int = 1 << 40, **options: Any) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        around = await stack.enter_async_context(world(tmp_path, **options))
        server = SiteServer(
            build_app(
                key=KEY,
                parts=[
                    Uploads(uploads=around.uploads, store=around.store, most_bytes=most_bytes),
                    InputFiles(
                        inputs=around.inputs,
                        lists=around.lists,
                        store=around.store,
                        routes=around.routes,
                        servers=Servers(around.http),
                    ),
                ],
            )
        )
        address = await server.start()
        stack.push_async_callback(server.aclose)
        yield Site(around, address.url(""))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with site_at(tmp_path) as made:
        yield made


def form(name: str, data: bytes, **fields: str) -> aiohttp.FormData:
    made = aiohttp.FormData(quote_fields=False)
    made.add_field("image", io.BytesIO(data), filename=name, content_type="image/png")
    for field, value in fields.items():
        made.add_field(field, value)
    return made


async def test_an_upload_is_answered_as_the_server_answers_it(site: Site) -> None:
    status, answer, headers = await site.post(form("ü [x].png", X, subfolder="sub", overwrite="false"))
    assert (status, answer) == (200, {"name": "ü [x].png", "subfolder": "sub", "type": "input"})
    assert headers[site_contract.SOURCE] == "duty"
    assert (site.around.home.inputs / "sub/ü [x].png").read_bytes() == X
    site.around.move()
    status, _answer, headers = await site.post(form("b.png", Y))
    assert (status, headers[site_contract.SOURCE]) == (200, "private")
    assert await site.around.carried("sub/ü [x].png", "b.png") == ["sub/ü [x].png", "b.png"]


async def test_fields_come_in_any_order_and_files_beside_the_image_are_passed_over(site: Site) -> None:
    made = aiohttp.FormData()
    made.add_field("type", "temp")
    made.add_field("other", io.BytesIO(b"z" * 600_000), filename="other.bin")
    made.add_field("image", X, filename="a.png", content_type="no type at all")
    made.add_field("image", Y, filename="second.png")
    made.add_field("subfolder", "deep")
    status, answer, _headers = await site.post(made)
    assert (status, answer) == (200, {"name": "a.png", "subfolder": "deep", "type": "temp"})
    assert (site.around.home.simulator.folders.temp / "deep/a.png").read_bytes() == X


async def test_a_mask_goes_to_the_mask_route(site: Site) -> None:
    await site.post(form("a.png", X))
    reference = json.dumps({"filename": "a.png", "type": "input"})
    status, answer, _headers = await site.post(form("m.png", X, original_ref=reference), kind="mask")
    assert (status, answer["name"]) == (200, "m.png")
    assert any(seen.path == "/upload/mask" for seen in site.around.home.simulator.requests)


async def test_the_clients_headers_reach_the_server_but_those_of_the_gateway_do_not(site: Site) -> None:
    await site.post(form("a.png", X), **{"Comfy-User": "u7", "Cookie": "a=b", "Authorization": "Basic x"})
    seen = {name.lower(): value for name, value in site.around.home.simulator.requests[-1].headers.items()}
    assert (seen["comfy-user"], seen["cookie"], seen["authorization"]) == ("u7", "a=b", "Basic x")
    assert not any(name.startswith(site_contract.PREFIX) for name in seen)
    assert seen["content-type"].startswith("multipart/form-data")


FIELD = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
END = b"\r\n--b--\r\n"
FORM = "multipart/form-data; boundary=b"
NO_FORMS = {
    "urlencoded": (b"image=a", "application/x-www-form-urlencoded"),
    "json": (b"{}", "application/json"),
    "empty": (b"", "multipart/form-data"),
    "rubbish": (b"no boundary in here", FORM),
    "cut": (FILE + b"no end", FORM),
    "cut after the file": (FILE + b"whole\r\n" + FIELD, FORM),
    "nameless": (b"--b\r\nContent-Disposition: form-data\r\n\r\nx" + END, FORM),
    "no text": (FIELD + b"\xff" + END, FORM),
    "nested": (b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c--" + END, FORM),
    "long field": (FIELD + b"y" * 1_100_000 + END, FORM),
    "many fields": ((FIELD + b"y\r\n") * 101 + b"--b--\r\n", FORM),
    "many files": ((FILE + b"y\r\n") * 10_000 + b"--b--\r\n", FORM),
    "cut header": (b"--b\r\nContent-Disposition: form-data; na", FORM),
    "no header": (b"--b\r\nnonsense\r\n\r\nx" + END, FORM),
    "NUL": (b'--b\r\nContent-Disposition: form-data; name="image"; filename="a\0b"\r\n\r\nx' + END, FORM),
    "many headers": (FILE[:-4] + b"\r\nX: y" * 2000 + b"\r\n\r\nx" + END, FORM),
    "charset": (FIELD[:-4] + b"\r\nContent-Type: text/plain; charset=nope\r\n\r\nx" + END, FORM),
    "charset of all": (FIELD.replace(b'"x"', b'"_charset_"') + b"n" * 40 + END, FORM),
    "encoding": (FILE[:-4] + b"\r\nContent-Transfer-Encoding: base64\r\n\r\nYQ==" + END, FORM),
    "image is text": (FIELD.replace(b'"x"', b'"image"') + b"x" + END, FORM),
    "no boundary": (FILE + b"x" + END, "multipart/form-data"),
    "long boundary": (FILE + b"x" + END, "multipart/form-data; boundary=" + "b" * 80),
}


@pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionHeader")
@pytest.mark.parametrize(("body", "content_type"), NO_FORMS.values(), ids=NO_FORMS.keys())
async def test_what_is_no_form_is_refused_in_comfyuis_shape(
    site: Site, body: bytes, content_type: str
) -> None:
    status, answer, _headers = await site.post(io.BytesIO(body), **{"Content-Type": content_type})
    assert (status, answer["error"]["type"], answer["node_errors"]) == (400, "no_upload", {})
    assert site.leftovers() == []
    assert site.around.home.uploads() == 0


async def test_a_form_without_a_file_gets_the_servers_own_answer(site: Site) -> None:
    async with site.around.http.post(
        site.url + site_contract.UPLOAD_PATH + "image",
        data=aiohttp.FormData({"type": "input"}, default_to_multipart=True),
        headers=site.headers(),
    ) as response:
        assert (response.status, await response.read()) == (400, b"")
    assert site.around.home.uploads() == 1


async def test_an_upload_that_is_too_large_is_refused_before_and_while_it_comes(tmp_path: Path) -> None:
    async with site_at(tmp_path, most_bytes=1024 * 1024) as site:
        status, answer, _headers = await site.post(form("a.png", b"x" * 2_000_000))
        assert (status, answer["error"]["type"]) == (413, "upload_too_large")

        async def body() -> AsyncIterator[bytes]:
            yield FILE
            for _ in range(100):
                yield b"x" * 100_000
            yield END

        status, answer, _headers = await site.post(
            body(), **{"Content-Type": "multipart/form-data; boundary=b"}
        )
        assert (status, answer["error"]["type"]) == (413, "upload_too_large")
        assert site.leftovers() == []


async def test_a_client_that_goes_away_in_the_middle_leaves_nothing(site: Site) -> None:
    reader, writer = await asyncio.open_connection(*site.url.removeprefix("http://").split(":"))
    head = "".join(f"{name}: {value}\r\n" for name, value in site.headers().items())
    writer.write(
        f"POST {site_contract.UPLOAD_PATH}image HTTP/1.1\r\nHost: x\r\n{head}Content-Length: 5000000\r\n"
        'Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\nContent-Disposition: form-data; name="image"; '
        'filename="a.png"\r\n\r\n'.encode()
        + b"x" * 2_500_000
    )
    await writer.drain()
    await wait_for(site.leftovers, "the part")
    writer.close()
    await writer.wait_closed()
    del reader
    await wait_for(lambda: not site.leftovers(), "the part to go")
    assert site.around.home.uploads() == 0


async def test_a_full_disk_is_said_as_507_and_the_next_upload_goes_through(site: Site) -> None:
    with files_limited_to(500_000):
        status, answer, _headers = await site.post(form("a.png", b"x" * 1_500_000))
    assert (status, answer["error"]["type"], answer["node_errors"]) == (507, "gateway_storage", {})
    assert site.leftovers() == []
    assert site.around.home.uploads() == 0
    assert (await site.post(form("a.png", X)))[0] == 200


async def test_a_file_that_cannot_fit_is_refused_before_it_comes(site: Site) -> None:
    site.around.store._reserve_bytes = 1 << 60
    status, answer, _headers = await site.post(form("a.png", X))
    assert (status, answer["error"]["type"]) == (507, "gateway_storage")


async def test_a_server_that_is_away_is_said_as_502(site: Site) -> None:
    site.around.home.simulator.mood.dead, site.around.home.simulator.mood.dead_by = True, "close"
    status, answer, _headers = await site.post(form("a.png", X))
    assert (status, answer["error"]["type"]) == (502, "upstream_unreachable")


async def test_a_mask_whose_original_cannot_be_brought_is_said(site: Site) -> None:
    site.around.move()
    site.around.home.simulator.mood.dead = True
    reference = json.dumps({"filename": "a.png", "type": "input"})
    status, answer, _headers = await site.post(form("m.png", X, original_ref=reference), kind="mask")
    assert (status, answer["error"]["type"]) == (503, "input_unavailable")


async def test_object_info_shows_the_users_files(site: Site) -> None:
    await site.post(form("mine.png", X))
    site.around.move()
    status, body, headers = await site.get(site_contract.OBJECT_INFO_PATH)
    info = json.loads(body)
    assert (status, headers[site_contract.SOURCE]) == (200, "private")
    assert info["LoadImage"]["input"]["required"]["image"][0] == ["mine.png"]
    assert "SaveImage" in info
    status, body, _headers = await site.get(site_contract.OBJECT_INFO_PATH + "/LoadImage?x=1")
    assert list(json.loads(body)) == ["LoadImage"]
    assert json.loads(body)["LoadImage"]["input"]["required"]["image"][0] == ["mine.png"]
    assert site.around.pod.simulator.requests[-1].path == "/object_info/LoadImage?x=1"


async def test_object_info_that_cannot_be_merged_comes_as_it_is(site: Site) -> None:
    site.around.move()
    site.around.pod.simulator.mood.lying = True
    _status, body, _headers = await site.get(site_contract.OBJECT_INFO_PATH)
    async with site.around.http.get(site.around.pod.backend.upstream.url("/object_info")) as response:
        assert json.loads(body) == await response.json()
    site.around.pod.simulator.mood.dead = True
    status, body, _headers = await site.get(site_contract.OBJECT_INFO_PATH)
    assert (status, b"502 Bad Gateway" in body) == (502, True)
    site.around.pod.simulator.mood.dead_by = "close"
    status, body, _headers = await site.get(site_contract.OBJECT_INFO_PATH)
    assert (status, json.loads(body)["error"]["type"]) == (502, "upstream_unreachable")


async def test_lists_of_folders_are_told(site: Site) -> None:
    await site.post(form("mine.png", X))
    site.around.move()
    status, body, _headers = await site.get(site_contract.FILE_LISTS_PATH + "input")
    assert (status, json.loads(body)) == (200, ["mine.png"])
    site.around.pod.simulator.mood.dead = True
    assert (await site.get(site_contract.FILE_LISTS_PATH + "input"))[0] == 502
    assert (await site.get(site_contract.FILE_LISTS_PATH + "models"))[0] == 404


async def test_an_upload_that_only_the_gateway_has_can_be_looked_at(site: Site) -> None:
    site.around.move()
    await site.post(form("a b.png", X, subfolder="sub"))
    await site.post(form("page.html", b"<script>"))
    site.around.move_back()

    def path(**names: str) -> str:
        return f"{site_contract.INPUT_PATH}?{urlencode({'type': 'input', **names})}"

    owner = {site_contract.OWNER: ALICE.key}
    status, body, headers = await site.get(path(filename="a b.png", subfolder="sub"), **owner)
    assert (status, body, headers["Content-Type"]) == (200, X, "image/png")
    status, body, headers = await site.get(
        path(filename="a b.png", subfolder="sub"), Range="bytes=0-3", **owner
    )
    assert (status, body) == (206, X[:4])
    status, body, headers = await site.get(
        path(filename="a b.png", subfolder="sub", preview="webp;80"), **owner
    )
    assert (status, headers["Content-Type"], body[8:12]) == (200, "image/webp", b"WEBP")
    status, _body, headers = await site.get(path(filename="page.html"), **owner)
    assert (status, headers["Content-Type"]) == (200, "application/octet-stream")
    for other in (
        await site.get(path(filename="a b.png"), **owner),
        await site.get(path(filename="a b.png", subfolder="sub")),
        await site.get(site_contract.INPUT_PATH, **owner),
    ):
        assert other[0] == 404
    site.around.store.path(sha256(X)).unlink()
    for more in ({}, {"preview": "webp"}):
        assert (await site.get(path(filename="a b.png", subfolder="sub", **more), **owner))[0] == 404


# -- what is larger than a pod's proxy takes


@asynccontextmanager
async def refusing_proxy(backend: Backend, most_bytes: int) -> AsyncIterator[str]:
    """What stands in front of a pod: larger bodies are refused by their length alone."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def passing(request: web.Request) -> web.StreamResponse:
            if (request.content_length or 0) > most_bytes:
                return web.Response(status=413, text="<html>413 Request Entity Too Large</html>")
            headers = {name: value for name, value in request.headers.items() if name != "Host"}
            url = backend.upstream.url(request.raw_path)
            body = request.content if request.body_exists else None
            async with session.request(request.method, url, data=body, headers=headers) as answered:
                return web.Response(
                    status=answered.status, body=await answered.read(), content_type=answered.content_type
                )

        async with answering(passing, max_body_bytes=most_bytes) as url:
            yield url


def pieces(size_bytes: int) -> Iterator[bytes]:
    """A film that is no other's."""
    for number in range(size_bytes // 1_000_000):
        yield hashlib.sha256(str(number).encode()).digest() * 31_250


@pytest.mark.parametrize(
    ("size_bytes", "limit_bytes", "growth_bytes"),
    [
        (6_000_000, 2_000_000, 1 << 40),
        pytest.param(300_000_000, 100 * 1024 * 1024, 50_000_000, marks=pytest.mark.long),
    ],
    ids=["small", "300 MB"],
)
async def test_a_large_input_is_streamed_to_a_pod_through_its_agent_in_parts(
    tmp_path: Path, size_bytes: int, limit_bytes: int, growth_bytes: int
) -> None:
    """Uploaded while the user has the pod, and another one brought there from the shared server."""
    whole = hashlib.sha256()
    with (tmp_path / "film.mp4").open("wb") as film:
        for piece in pieces(size_bytes):
            whole.update(piece)
            film.write(piece)
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(
            site_at(tmp_path, pod_body_bytes=limit_bytes * 9 // 10, part_bytes=limit_bytes // 2)
        )
        around = site.around
        pod = around.pod.backend
        proxy = await stack.enter_async_context(refusing_proxy(pod, limit_bytes))
        around.pod.backend = replace(pod, upstream=Upstream.parse(proxy))
        environ = environment(around.pod.inputs.parent)
        agent = await stack.enter_async_context(agent_process(environ))
        agents_proxy = await stack.enter_async_context(
            refusing_proxy(replace(pod, upstream=Upstream.parse(agent.url)), limit_bytes)
        )
        around.agents[pod.id] = AgentPlace(f"{agents_proxy}/metrics", TOKEN)
        around.move()
        (tmp_path / "film.mp4").rename(around.home.inputs / "shared.mp4")
        gc.collect()
        process = psutil.Process()
        before = most = process.memory_info().rss

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, process.memory_info().rss)
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())
        try:

            async def body() -> AsyncIterator[bytes]:
                yield FILE.replace(b"a.png", b"mine.mp4")
                for piece in pieces(size_bytes):
                    yield piece
                yield END

            status, answer, _headers = await site.post(body(), **{"Content-Type": FORM})
            assert (status, answer["name"]) == (200, "mine.mp4")
            assert await around.carried("shared.mp4 [input]") == ["shared.mp4 [input]"]
        finally:
            watching.cancel()
        for name in ("mine.mp4", "shared.mp4"):
            with (around.pod.inputs / name).open("rb") as arrived:
                assert hashlib.file_digest(arrived, "sha256").hexdigest() == whole.hexdigest()
        assert around.pod.uploads() == 0
        assert most - before < growth_bytes
