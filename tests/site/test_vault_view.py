"""``/view`` from the vault, over real files and at an fsspec address."""

import hashlib
import io
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image
from yarl import URL

from comfy_gateway.adapters.clock import SystemClock
from comfy_gateway.adapters.local_files import LocalFiles
from comfy_gateway.adapters.pod_files import HttpPodFiles
from comfy_gateway.adapters.remote_files import RemoteFiles
from comfy_gateway.adapters.sql import Database, SqlVaultRows, open_database
from comfy_gateway.adapters.vault_disk import ThreadedDisk
from comfy_gateway.core import site_contract
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.vault.vault import StoredFile
from comfy_gateway.service.vault.vault import Vault
from comfy_gateway.site.app import build_app
from comfy_gateway.site.pictures import Pictures
from comfy_gateway.site.server import SiteServer
from comfy_gateway.site.vault_view import VaultView
from simulators.comfyui import ComfySimulator, serve
from tests.service.vault_stand import Places

KEY = "the-key"
ALICE = "named:alice"
ALIAS = "private-a1"
DATA = secrets.token_bytes(3 * 1024 * 1024 + 5)


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Stand:
    """A running site with a vault and nothing else."""

    vault: Vault
    disk: ThreadedDisk
    rows: SqlVaultRows
    database: Database
    http: aiohttp.ClientSession
    url: str

    async def keep(
        self, file: FileName, data: bytes, *, version: int = 1, etag: str | None = "1-1"
    ) -> StoredFile:
        """As the copier does it."""
        part = await self.disk.create(f"alice/{file.type}/{file.path}~{version}")
        await part.write(data)
        await part.keep(modified_ns=None)
        stored = StoredFile(
            ALICE,
            "comfy-gw-alice-a1",
            ALIAS,
            file,
            version,
            f"alice/{file.type}/{file.path}~{version}",
            part.sha256,
            len(data),
            etag,
            datetime.now(UTC),
        )
        await self.rows.add(stored)
        self.vault._note_stored(stored)
        return stored

    async def get(
        self,
        query: Mapping[str, str] | None = None,
        *,
        owner: str | None = ALICE,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        **more: str,
    ) -> Answer:
        """``/view`` as the hooks send it here."""
        asked = {"filename": "film.mp4", "subfolder": ALIAS, "type": "output"} | dict(query or {}) | more
        sent = {site_contract.KEY: KEY} | dict(headers or {})
        if owner is not None:
            sent[site_contract.OWNER] = owner
        url = URL(self.url + site_contract.VAULT_PATH).with_query(asked)
        async with self.http.request(method, url, headers=sent) as response:
            return Answer(response.status, response.headers.copy(), await response.read())


@pytest.fixture(params=["local", "memory"])
async def stand(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stand]:
    local = request.param == "local"
    place = (
        LocalFiles(tmp_path / "vault", reserve_bytes=0)
        if local
        else RemoteFiles(f"memory://{secrets.token_hex(8)}")
    )
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        database = await open_database(f"sqlite+aiosqlite:///{tmp_path / 'gateway.db'}")
        stack.push_async_callback(database.aclose)
        disk, rows = ThreadedDisk(place), SqlVaultRows(database)
        vault = Vault(
            pods=Places(), files=HttpPodFiles(http), disk=disk, rows=rows, clock=SystemClock(), hold_s=300
        )
        stack.push_async_callback(vault.aclose)
        await vault.start()
        site = SiteServer(build_app(key=KEY, parts=[VaultView(vault, Pictures(max_pixels=100_000))]))
        address = await site.start()
        stack.push_async_callback(site.aclose)
        yield Stand(vault, disk, rows, database, http, address.url(""))


FILM = FileName("film.mp4")


async def test_a_kept_file_comes_whole_with_comfyuis_headers(stand: Stand) -> None:
    await stand.keep(FILM, DATA)
    answer = await stand.get()
    assert answer.status == 200
    assert answer.body == DATA
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["Content-Disposition"] == 'filename="film.mp4"'
    assert answer.headers["Content-Length"] == str(len(DATA))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["ETag"] == '"1-1"'


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "image/png"),
        ("a.html", "application/octet-stream"),
        ("a.js", "application/octet-stream"),
        ("a.css", "application/octet-stream"),
        ("a.latent", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
async def test_what_a_browser_would_run_comes_as_plain_bytes(stand: Stand, name: str, kind: str) -> None:
    await stand.keep(FileName(name), b"x")
    assert (await stand.get(filename=name)).headers["Content-Type"] == kind


async def test_a_name_cannot_end_the_header(stand: Stand) -> None:
    name = 'a"; x="ä.png'
    await stand.keep(FileName(name), b"x")
    answer = await stand.get(filename=name)
    assert answer.headers["Content-Disposition"] == 'filename="a; x=ä.png"'


async def test_names_subfolders_types_and_annotations_are_read_as_comfyui_reads_them(stand: Stand) -> None:
    await stand.keep(FileName("a b+ä.png", "x/y"), b"deep")
    await stand.keep(FileName("t.png", "", "temp"), b"temp")
    assert (await stand.get(filename="a b+ä.png", subfolder=f"{ALIAS}/x/y")).body == b"deep"
    assert (await stand.get(filename="t.png", type="temp")).body == b"temp"
    assert (await stand.get(filename="t.png [temp]")).body == b"temp"
    assert (await stand.get(filename="t.png")).status == 404


async def test_an_earlier_content_is_at_its_own_address(stand: Stand) -> None:
    await stand.keep(FILM, b"first", version=1)
    await stand.keep(FILM, b"second", version=2)
    assert (await stand.get()).body == b"second"
    assert (await stand.get(subfolder=f"{ALIAS}@1")).body == b"first"
    assert (await stand.get(subfolder=f"{ALIAS}@3")).status == 404


@pytest.mark.parametrize(
    "asked",
    [
        {"owner": "named:bob"},
        {"owner": None},
        {"filename": "other.mp4"},
        {"filename": ""},
        {"filename": "../film.mp4"},
        {"subfolder": ""},
        {"subfolder": f"../{ALIAS}"},
        {"subfolder": "private-b2"},
        {"type": "input"},
        {"type": "nonsense"},
    ],
)
async def test_what_is_not_there_or_not_theirs_is_a_404(stand: Stand, asked: dict[str, Any]) -> None:
    await stand.keep(FILM, DATA)
    answer = await stand.get(**asked)
    assert (answer.status, answer.body) == (404, b"")


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-", 0, None),
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=1048570-1048580", 1048570, 1048581),
        ("bytes=-7", -7, None),
        ("bytes=5-99999999", 5, None),
        ("bytes=-99999999", 0, None),
    ],
)
async def test_a_part_is_a_part(stand: Stand, asked: str, start: int, stop: int | None) -> None:
    await stand.keep(FILM, DATA)
    answer = await stand.get(headers={"Range": asked})
    part = DATA[start:stop]
    assert answer.body == part
    first = start if start >= 0 else len(DATA) + start
    if len(part) == len(DATA):
        assert answer.status in {200, 206}
    else:
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(part) - 1}/{len(DATA)}"
        assert answer.headers["Content-Length"] == str(len(part))


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "bytes=x", "lines=1-2", "bytes=9-2"])
async def test_what_is_no_single_range_gets_everything(stand: Stand, asked: str) -> None:
    await stand.keep(FILM, DATA)
    answer = await stand.get(headers={"Range": asked})
    assert (answer.status, answer.body) == (200, DATA)


async def test_a_part_beyond_the_end_is_refused_with_the_size(stand: Stand) -> None:
    await stand.keep(FILM, DATA)
    answer = await stand.get(headers={"Range": f"bytes={len(DATA)}-"})
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(DATA)}"


async def test_a_part_of_another_content_is_not_mixed_in(stand: Stand) -> None:
    await stand.keep(FILM, DATA)
    same = await stand.get(headers={"Range": "bytes=0-9", "If-Range": '"1-1"'})
    other = await stand.get(headers={"Range": "bytes=0-9", "If-Range": '"2-2"'})
    assert (same.status, other.status) == (206, 200)
    assert other.body == DATA


@pytest.mark.parametrize(
    ("tag", "status"), [('"1-1"', 304), ('W/"1-1"', 304), ("*", 304), ('"0-0", "1-1"', 304), ('"2-2"', 200)]
)
async def test_what_the_client_has_does_not_come_again(stand: Stand, tag: str, status: int) -> None:
    await stand.keep(FILM, b"x")
    answer = await stand.get(headers={"If-None-Match": tag})
    assert answer.status == status
    assert answer.headers["ETag"] == '"1-1"'


async def test_the_tag_is_that_of_the_pod_so_that_a_page_asks_on_as_before(
    stand: Stand, tmp_path: Path
) -> None:
    simulator = ComfySimulator(output_dir=tmp_path / "output")
    async with serve(simulator) as served:
        (simulator.folders.output / "a.png").write_bytes(b"picture")
        async with stand.http.get(f"{served.url}view?filename=a.png") as response:
            there = response.headers["ETag"]
    await stand.keep(FileName("a.png"), b"picture", etag=there.strip('"'))
    assert (await stand.get(filename="a.png", headers={"If-None-Match": there})).status == 304


async def test_without_a_tag_of_the_pod_the_content_makes_one(stand: Stand) -> None:
    await stand.keep(FILM, b"x", etag=None)
    assert (await stand.get()).headers["ETag"] == f'"{hashlib.sha256(b"x").hexdigest()[:32]}"'


async def test_head_says_the_same_without_the_body(stand: Stand) -> None:
    await stand.keep(FILM, DATA)
    answer = await stand.get(method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(DATA))


async def test_an_empty_file_is_empty(stand: Stand) -> None:
    await stand.keep(FILM, b"")
    answer = await stand.get()
    assert (answer.status, answer.body) == (200, b"")
    assert (await stand.get(headers={"Range": "bytes=0-"})).status == 416
    assert (await stand.get(headers={"Range": "bytes=-1"})).status == 416


async def test_a_file_that_retention_has_just_removed_is_a_404(stand: Stand) -> None:
    stored = await stand.keep(FILM, DATA)
    await stand.disk.remove(stored.path)
    assert (await stand.get()).status == 404
    assert (await stand.get(preview="webp;90")).status == 404


async def test_a_database_or_disk_that_does_not_answer_is_said_to_come_back(stand: Stand) -> None:
    stored = await stand.keep(FILM, DATA)
    await stand.rows.add(replace(stored, size_bytes=len(DATA) + 5))
    with pytest.raises(aiohttp.ClientPayloadError):
        await stand.get()
    answer = await stand.get(headers={"Range": f"bytes={len(DATA) + 1}-"})
    assert answer.status == 503
    await stand.database.aclose()
    answer = await stand.get()
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "5"


# -- previews


def picture(mode: str = "RGBA", size: tuple[int, int] = (64, 32)) -> bytes:
    image = Image.linear_gradient("L").resize(size)
    made = Image.merge("RGB", (image, image.rotate(180), image)).convert(mode)
    if mode == "RGBA":
        made.putalpha(image)
    buffer = io.BytesIO()
    made.save(buffer, format="PNG")
    return buffer.getvalue()


QUERIES = [
    {"preview": "webp;90"},
    {"preview": "jpeg;50"},
    {"preview": "jpeg"},
    {"preview": "png;7"},
    {"preview": ""},
    {"preview": "jpeg;80", "channel": "rgb"},
    {"preview": "jpeg;80", "channel": "rgba"},
    {"preview": "webp;80", "channel": "a"},
    {"channel": "rgb"},
    {"channel": "a"},
    {"channel": "rgba"},
    {"channel": "nonsense"},
]


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "L"])
async def test_pictures_are_rendered_as_comfyui_does(stand: Stand, tmp_path: Path, mode: str) -> None:
    data = picture(mode)
    await stand.keep(FileName("a.png"), data)
    simulator = ComfySimulator(output_dir=tmp_path / "output")
    async with serve(simulator) as served:
        (simulator.folders.output / "a.png").write_bytes(data)
        for query in QUERIES:
            url = URL(f"{served.url}view").with_query({"filename": "a.png", **query})
            async with stand.http.get(url) as response:
                wanted = Answer(response.status, response.headers.copy(), await response.read())
            answer = await stand.get({"filename": "a.png", **query})
            assert answer.status == wanted.status == 200, query
            for name in ("Content-Type", "Content-Disposition"):
                assert answer.headers[name] == wanted.headers[name], query
            assert answer.body == wanted.body, query


@pytest.mark.parametrize(
    "data",
    [b"no picture at all", b"", picture()[:60], picture(size=(400, 300))],
    ids=["text", "empty", "broken", "too many pixels"],
)
async def test_what_cannot_be_rendered_comes_as_it_is(stand: Stand, data: bytes) -> None:
    await stand.keep(FileName("a.png"), data)
    for query in ({"preview": "webp;90"}, {"channel": "a"}, {"channel": "rgb"}):
        answer = await stand.get({"filename": "a.png", **query})
        assert (answer.status, answer.body) == (200, data), query


async def test_a_quality_that_is_none_is_the_usual_one(stand: Stand) -> None:
    await stand.keep(FileName("a.png"), picture())
    usual = await stand.get(filename="a.png", preview="webp;90")
    for quality in ("99999999999999999999", "-5", "x"):
        assert (await stand.get(filename="a.png", preview=f"webp;{quality}")).body == usual.body
    assert (await stand.get(filename="a.png", preview="webp;101")).status == 200
