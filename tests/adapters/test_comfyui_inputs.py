"""Files read from and put into a simulated ComfyUI, and servers that misbehave."""

import hashlib
import string
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.adapters.comfyui_inputs import HttpInputServer, _disposition
from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.ports import FileBody, FileFacts, FormAnswer, FormFile, Unchanged
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from simulators.comfyui import ComfySimulator, serve
from tests.contract.loopback import answering, saying


def backend(url: str, token: str | None = None) -> Backend:
    return Backend("duty-0", Source.DUTY, Upstream.parse(url), token)


@pytest.fixture
async def inputs() -> AsyncIterator[HttpInputServer]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield HttpInputServer(session, timeout_s=5, silence_s=2)


@asynccontextmanager
async def comfy() -> AsyncIterator[tuple[ComfySimulator, Backend]]:
    simulator = ComfySimulator()
    async with serve(simulator, prefix="/comfy") as served:
        yield simulator, backend(served.url)


async def read(inputs: HttpInputServer, where: Backend, file: FileName, etag: str = "") -> Any:
    async with inputs.read(where, file, etag=etag) as found:
        if isinstance(found, FileBody):
            return b"".join([chunk async for chunk in found.chunks]), found
        return found


def form_file(tmp_path: Path, filename: str, content: bytes = b"picture") -> FormFile:
    path = tmp_path / "kept"
    path.write_bytes(content)
    return FormFile(path, len(content), filename)


NAMES = [
    "a.png", "a b (1) [x].png", "ü 絵 👩\u200d🚀.png", "a;b;c.png", 'a"b.png', "100%41.png", "it's.png", "=?utf-8?.png",
    "Foto 1.00\u202fPM.png",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
async def test_a_file_comes_back_as_it_was_put_whatever_its_name(
    inputs: HttpInputServer, tmp_path: Path, name: str
) -> None:
    async with comfy() as (simulator, where):
        answer = await inputs.post_form(
            where, "image", [("subfolder", "süb folder"), ("type", "input")], form_file(tmp_path, name)
        )
        file = FileName(name, "süb folder", "input")
        assert answer.stored_as == file
        assert (simulator.folders.input / "süb folder" / name).read_bytes() == b"picture"
        content, body = await read(inputs, where, file)
        assert (content, body.size_bytes) == (b"picture", 7)
        assert await inputs.look(where, file) == FileFacts(7, body.etag)
        assert await read(inputs, where, file, body.etag) == Unchanged()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_every_name_is_read_by_comfyuis_server_as_it_was_written(name: str) -> None:
    kind, params = aiohttp.multipart.parse_content_disposition(_disposition("image", name))
    assert kind == "form-data"
    assert params["name"] == "image"
    assert aiohttp.multipart.content_disposition_filename(params) == name


def test_plain_names_are_written_plainly() -> None:
    name = string.ascii_letters + string.digits + " ._-()[]"
    assert _disposition("image", name) == f'form-data; name="image"; filename="{name}"'


async def test_a_clash_is_told_by_the_stored_name(inputs: HttpInputServer, tmp_path: Path) -> None:
    async with comfy() as (simulator, where):
        (simulator.folders.input / "a.png").write_bytes(b"other")
        answer = await inputs.post_form(where, "image", [], form_file(tmp_path, "a.png"))
        assert answer.stored_as == FileName("a (1).png", "", "input")
        answer = await inputs.post_form(where, "image", [("overwrite", "true")], form_file(tmp_path, "a.png"))
        assert answer.stored_as == FileName("a.png", "", "input")
        assert (simulator.folders.input / "a.png").read_bytes() == b"picture"


async def test_what_is_not_there_is_nothing(inputs: HttpInputServer, tmp_path: Path) -> None:
    async with comfy() as (simulator, where):
        (simulator.folders.output / "a.png").write_bytes(b"an output")
        for file in (
            FileName("a.png", "", "input"),
            FileName("a.png", "deep", "output"),
            FileName("a.png", "../..", "output"),
            FileName("a.png", "", "models"),
            FileName("x [output]", "", "input"),
            FileName("a..png", "", "output"),
        ):
            assert await inputs.look(where, file) is None
            assert await read(inputs, where, file) is None
        refused = await inputs.post_form(where, "image", [("type", "input")], None)
        assert (refused.status, refused.stored_as) == (400, None)


async def test_names_in_a_folder_are_told_as_the_server_tells_them(inputs: HttpInputServer) -> None:
    async with comfy() as (simulator, where):
        (simulator.folders.output / "a.png").write_bytes(b"x")
        assert await inputs.names(where, "output") == ["a.png"]
        with pytest.raises(BackendUnavailable):
            await inputs.names(where, "models")

    async def newer(_request: web.Request) -> web.Response:
        return web.json_response(["b.png [output]", "c.png", 3])

    async with answering(newer) as url:
        assert await inputs.names(backend(url), "output") == ["b.png [output]", "c.png"]


async def test_the_pods_token_goes_along_and_fields_that_fit_no_header_do_not(
    inputs: HttpInputServer, tmp_path: Path
) -> None:
    seen: list[tuple[str, str | None, dict[str, Any]]] = []

    async def note(request: web.Request) -> web.Response:
        form = dict(await request.post()) if request.method == "POST" else {}
        seen.append((request.method, request.headers.get("X-Comfy-Gateway-Token"), form))
        return web.json_response(["x"])

    async with answering(note) as url:
        where = backend(url, "t0ken")
        await inputs.look(where, FileName("a.png"))
        await read(inputs, where, FileName("a.png"))
        await inputs.names(where, "input")
        await inputs.post_form(
            where, "mask", [("type", "input"), ('x"\r\nEvil: 1', "y")], None, {"X-Mine": "1"}
        )
    assert [one[:2] for one in seen] == [
        ("HEAD", "t0ken"),
        ("GET", "t0ken"),
        ("GET", "t0ken"),
        ("POST", "t0ken"),
    ]
    assert seen[3][2] == {"type": "input"}


Call = Callable[[HttpInputServer, Backend, FormFile], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "look": lambda inputs, where, _file: inputs.look(where, FileName("a.png")),
    "read": lambda inputs, where, _file: read(inputs, where, FileName("a.png")),
    "names": lambda inputs, where, _file: inputs.names(where, "input"),
    "post_form": lambda inputs, where, file: inputs.post_form(where, "image", [], file),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("raw", [b"", b"nonsense\r\n\r\n", None], ids=["hangs up", "nonsense", "silent"])
async def test_a_server_without_a_usable_answer_is_unavailable(
    call: Call, raw: bytes | None, tmp_path: Path
) -> None:
    async with (
        aiohttp.ClientSession() as session,
        saying(raw) as url,
    ):
        inputs = HttpInputServer(session, timeout_s=0.3, silence_s=0.15)
        with pytest.raises(BackendUnavailable) as caught:
            await call(inputs, backend(url), form_file(tmp_path, "a.png"))
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize("status", [500, 502, 301])
async def test_another_status_says_nothing_of_the_file(inputs: HttpInputServer, status: int) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async with answering(refuse) as url:
        with pytest.raises(BackendUnavailable, match=str(status)):
            await inputs.look(backend(url), FileName("a.png"))
        with pytest.raises(BackendUnavailable, match=str(status)):
            await read(inputs, backend(url), FileName("a.png"))


async def test_a_file_that_breaks_off_is_not_taken_for_a_short_one(inputs: HttpInputServer) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    async with saying(head + b"half") as url:
        with pytest.raises(BackendUnavailable, match="broke off"):
            await read(inputs, backend(url), FileName("a.png"))


async def test_a_compressed_body_is_not_taken_for_the_file(inputs: HttpInputServer) -> None:
    async def compress(_request: web.Request) -> web.Response:
        return web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "br"})

    async with answering(compress) as url:
        with pytest.raises(BackendUnavailable):
            await read(inputs, backend(url), FileName("a.png"))


async def test_a_list_of_names_of_another_shape_is_no_answer(inputs: HttpInputServer) -> None:
    async def other(_request: web.Request) -> web.Response:
        return web.Response(text="{}" if _request.path.endswith("input") else "<html>")

    async with answering(other) as url:
        for folder in ("input", "output"):
            with pytest.raises(BackendUnavailable):
                await inputs.names(backend(url), folder)


async def test_a_server_that_refuses_early_is_heard(inputs: HttpInputServer, tmp_path: Path) -> None:
    async def too_large(_request: web.Request) -> web.Response:
        return web.json_response({"error": "large"}, status=413)

    async with answering(too_large) as url:
        answer = await inputs.post_form(
            backend(url), "image", [], form_file(tmp_path, "a.png", b"x" * 5_000_000)
        )
    assert answer.status == 413


async def test_an_upload_has_a_length_and_the_content_arrives_whole(
    inputs: HttpInputServer, tmp_path: Path
) -> None:
    content = b"0123456789abcdef" * 300_000
    seen: dict[str, Any] = {}

    async def note(request: web.Request) -> web.Response:
        seen["length"] = request.content_length
        part = await (await request.multipart()).next()
        assert isinstance(part, aiohttp.BodyPartReader)
        digest = hashlib.sha256()
        while chunk := await part.read_chunk():
            digest.update(chunk)
        seen["sha256"] = digest.hexdigest()
        return web.json_response({"name": "a.png", "subfolder": "", "type": "input"})

    async with answering(note) as url:
        await inputs.post_form(backend(url), "image", [], form_file(tmp_path, "a.png", content))
    assert seen["sha256"] == hashlib.sha256(content).hexdigest()
    assert len(content) < seen["length"] < len(content) + 1000


async def test_a_file_that_is_gone_is_said(inputs: HttpInputServer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await inputs.post_form(
            backend("http://127.0.0.1:9"), "image", [], FormFile(tmp_path / "gone", 1, "a.png")
        )


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"name": "a.png"}', b'{"name": 3, "subfolder": "", "type": "input"}', b'{"name": "../a"}'],
)
def test_an_answer_that_names_no_file_is_no_upload(body: bytes) -> None:
    assert FormAnswer(200, body, "application/json").stored_as is None
