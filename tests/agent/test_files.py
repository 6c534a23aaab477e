"""/files and /logs, over real sockets and in real folders."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from agent.folders import BadPath, checked
from agent.log_routes import tail
from agent.uploads import PARTS_FOLDER, Uploads
from tests.agent.stand import BEARER, Agent, agent_at
from tests.conditions import wait_for

OUTSIDE = [
    "..%2F..%2Fsecret", "%2e%2e/%2e%2e/secret", "%2Fetc%2Fpasswd", "a%2F..%2F..%2Fsecret", ".hidden", "sub/.hidden",
    "a%5C..%5Cb", "a%00b", "a%0Ab", "a//b", "a/", "x" * 300,
]  # fmt: skip


def put(path: Path, content: bytes = b"picture") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


async def listing(agent: Agent, **query: str) -> Any:
    async with agent.client.get("/files/output", params=query) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def test_outputs_are_listed_with_size_time_and_etag(agent: Agent, home: Path) -> None:
    put(home / "output/sub/a.png", b"12345")
    put(home / "output/b.png")
    put(home / "output/.hidden")
    put(home / "output/.git/x")
    put(home / "secret")
    (home / "output/link.png").symlink_to(home / "secret")
    (home / "output/linked").symlink_to(home)
    os.mkfifo(home / "output/pipe")
    told = await listing(agent)
    assert told["next"] is None
    assert [one["path"] for one in told["files"]] == ["b.png", "sub/a.png"]
    seen = (home / "output/sub/a.png").stat()
    assert told["files"][1] == {
        "path": "sub/a.png",
        "size_bytes": 5,
        "modified": seen.st_mtime_ns / 1e9,
        "etag": f"{seen.st_mtime_ns:x}-5",
        "fetched": False,
    }


async def test_pages_together_are_the_whole_list_in_order(agent: Agent, home: Path) -> None:
    names = sorted(["a.png", "a/1.png", "a/b/2.png", "a0.png", "b.png", "ä/x.png", "z z.png"])
    for name in names:
        put(home / "output" / name)
    found, after = [], ""
    while after is not None:
        page = await listing(agent, limit="2", after=after)
        assert len(page["files"]) <= 2
        found += [one["path"] for one in page["files"]]
        after = page["next"]
    assert found == names


@pytest.mark.parametrize("limit", ["0", "-1", "x", "10001", "1.5"])
async def test_a_wrong_limit_is_refused(agent: Agent, limit: str) -> None:
    async with agent.client.get("/files/output", params={"limit": limit}) as response:
        assert response.status == 400


async def test_a_folder_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    async with agent_at(tmp_path / "none") as agent:
        assert (await listing(agent))["files"] == []


async def test_an_output_is_read_whole_in_part_and_only_when_new(agent: Agent, home: Path) -> None:
    put(home / "output/sub/ä b.png", bytes(range(100)))
    url = "/files/output/sub/ä b.png"
    async with agent.client.get(url) as response:
        assert (response.status, await response.read()) == (200, bytes(range(100)))
        etag = response.headers["ETag"]
    async with agent.client.get(url, headers={"Range": "bytes=10-19"}) as response:
        assert (response.status, await response.read()) == (206, bytes(range(10, 20)))
        assert response.headers["Content-Range"] == "bytes 10-19/100"
    async with agent.client.get(url, headers={"Range": "bytes=200-"}) as response:
        assert response.status == 416
    async with agent.client.get(url, headers={"If-None-Match": etag}) as response:
        assert response.status == 304
    async with agent.client.head(url) as response:
        assert (response.status, response.headers["Content-Length"]) == (200, "100")


async def test_a_compressed_neighbour_is_not_mistaken_for_the_file(agent: Agent, home: Path) -> None:
    put(home / "output/x.txt", b"plain")
    put(home / "output/x.txt.gz", b"something else")
    async with agent.client.get("/files/output/x.txt", headers={"Accept-Encoding": "gzip"}) as response:
        assert "Content-Encoding" not in response.headers
        assert await response.read() == b"plain"


@pytest.mark.parametrize("path", OUTSIDE)
async def test_no_path_leads_out_of_the_output_folder(agent: Agent, home: Path, path: str) -> None:
    put(home / "secret", b"secret")
    put(home / "output/.hidden", b"secret")
    put(home / "output/sub/.hidden", b"secret")
    status, body = await raw(agent, "GET", f"/files/output/{path}")
    assert status in (400, 404)
    assert b"secret" not in body


async def test_dots_in_the_raw_path_lead_nowhere(agent: Agent, home: Path) -> None:
    put(home / "secret", b"secret")
    status, body = await raw(agent, "GET", "/files/output/../../secret")
    assert status in (400, 404)
    assert body != b"secret"


async def test_no_link_is_followed(agent: Agent, home: Path) -> None:
    put(home / "secret/x", b"secret")
    (home / "output/link").symlink_to(home / "secret")
    (home / "output/file").symlink_to(home / "secret/x")
    (home / "input/link").symlink_to(home / "secret")
    for path in ("link/x", "file"):
        async with agent.client.get(f"/files/output/{path}") as response:
            assert response.status == 400
    assert (await send(agent, "link/y", b"data"))[0] == 400
    assert sorted(path.name for path in (home / "secret").iterdir()) == ["x"]


async def test_a_folder_and_a_missing_file_are_no_files(agent: Agent, home: Path) -> None:
    put(home / "output/sub/a.png")
    for path in ("sub", "none.png", "sub/none/x"):
        async with agent.client.get(f"/files/output/{path}") as response:
            assert response.status == 404


async def raw(agent: Agent, method: str, target: str) -> tuple[int, bytes]:
    """A request whose target no client tidies up."""
    host, port = agent.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    bearer = BEARER["Authorization"]
    writer.write(
        f"{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\nConnection: close\r\n\r\n".encode()
    )
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), body


async def test_what_was_read_whole_or_noted_is_fetched_until_it_changes(agent: Agent, home: Path) -> None:
    for name in ("read", "noted", "partly", "empty"):
        put(home / "output" / name, b"" if name == "empty" else b"12345")
    etags = {one["path"]: one["etag"] for one in (await listing(agent))["files"]}
    async with agent.client.get("/files/output/read") as response:
        await response.read()
    async with agent.client.head("/files/output/noted") as response:
        assert response.status == 200
    async with agent.client.get("/files/output/partly", headers={"Range": "bytes=4-"}) as response:
        await response.read()
    assert await unfetched(agent) == ["noted", "partly"]
    noted = {"files": [{"path": "noted", "etag": etags["noted"]}, {"path": "partly", "etag": "0-0"}]}
    async with agent.client.post("/files/output/fetched", json=noted) as response:
        assert await response.json() == {"noted": 2}
    assert await unfetched(agent) == ["partly"]
    put(home / "output/read", b"changed")
    assert await unfetched(agent) == ["partly", "read"]


async def unfetched(agent: Agent) -> list[str]:
    return [one["path"] for one in (await listing(agent, unfetched="1"))["files"]]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"files": [{}]}', b'{"files": [{"path": 1, "etag": "x"}]}']
)
async def test_a_note_that_makes_no_sense_is_refused(agent: Agent, body: bytes) -> None:
    async with agent.client.post("/files/output/fetched", data=body) as response:
        assert response.status == 400


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def send(
    agent: Agent, path: str, part: Any, *, whole: bytes | None = None, offset: int = 0, only_new: bool = False
) -> tuple[int, Any]:
    whole = part if whole is None else whole
    headers = {"If-None-Match": "*"} if only_new else {}
    query = {"offset": str(offset), "total": str(len(whole)), "sha256": sha256(whole)}
    async with agent.client.put(f"/files/input/{path}", params=query, data=part, headers=headers) as response:
        return response.status, await response.json()


async def test_an_input_arrives_in_parts_and_appears_only_when_whole(agent: Agent, home: Path) -> None:
    whole = os.urandom(3_000_000)
    for offset in (0, 1_000_000):
        status, told = await send(
            agent, "sub/x.bin", whole[offset : offset + 1_000_000], whole=whole, offset=offset
        )
        assert (status, told["state"], told["received_bytes"]) == (200, "partial", offset + 1_000_000)
        assert not (home / "input/sub/x.bin").exists()
    query = {"total": str(len(whole)), "sha256": sha256(whole)}
    async with agent.client.get("/files/input/sub/x.bin", params=query) as response:
        assert (await response.json())["received_bytes"] == 2_000_000
    status, told = await send(agent, "sub/x.bin", whole[2_000_000:], whole=whole, offset=2_000_000)
    assert (status, told["state"]) == (201, "complete")
    assert (home / "input/sub/x.bin").read_bytes() == whole
    assert list((home / "input" / PARTS_FOLDER).iterdir()) == []


async def test_the_last_part_sent_again_is_answered_as_complete(agent: Agent, home: Path) -> None:
    await send(agent, "x", b"12", whole=b"123", offset=0)
    assert (await send(agent, "x", b"3", whole=b"123", offset=2))[0] == 201
    status, told = await send(agent, "x", b"3", whole=b"123", offset=2)
    assert (status, told["state"], told["received_bytes"]) == (200, "complete", 3)


@pytest.mark.parametrize("offset", [0, 1, 3])
async def test_a_part_that_does_not_follow_is_told_where_to_go_on(agent: Agent, offset: int) -> None:
    await send(agent, "x", b"12", whole=b"1234", offset=0)
    status, told = await send(agent, "x", b"34", whole=b"1234", offset=offset)
    assert (status, told["received_bytes"]) == (409, 2)
    assert (await send(agent, "x", b"34", whole=b"1234", offset=2))[0] == 201


async def test_wrong_bytes_never_get_the_name(agent: Agent, home: Path) -> None:
    status, told = await send(agent, "x", b"1235", whole=b"1234")
    assert (status, told["received_bytes"]) == (422, 0)
    assert not (home / "input/x").exists()
    assert (await send(agent, "x", b"1234"))[0] == 201


async def test_more_bytes_than_announced_are_refused_and_not_kept(agent: Agent, home: Path) -> None:
    await send(agent, "x", b"1", whole=b"123", offset=0)
    status, told = await send(agent, "x", b"2345", whole=b"123", offset=1)
    assert (status, told["received_bytes"]) == (400, 1)
    assert (await send(agent, "x", b"23", whole=b"123", offset=1))[0] == 201


async def test_a_part_over_the_limit_is_refused(home: Path) -> None:
    async def chunks() -> Any:
        for _ in range(5):
            yield b"x" * 100

    async with agent_at(home, AGENT_MAX_PART_BYTES="400") as agent:
        assert (await send(agent, "x", b"x" * 500))[0] == 413
        # without a length it shows only on the way
        status, told = await send(agent, "x", chunks(), whole=b"x" * 500)
        assert (status, told["received_bytes"]) == (413, 0)


async def test_a_part_that_breaks_off_is_kept_as_far_as_it_came(agent: Agent, home: Path) -> None:
    whole = os.urandom(1_000_000) * 4
    query = {"total": str(len(whole)), "sha256": sha256(whole)}
    arrived = asyncio.Event()

    async def breaking_off() -> AsyncIterator[bytes]:
        yield whole[:3_000_000]
        await arrived.wait()
        raise OSError("the line is cut")

    async def received_bytes() -> int:
        async with agent.client.get("/files/input/x", params=query) as response:
            return int((await response.json())["received_bytes"])

    async with asyncio.TaskGroup() as group:
        sending = group.create_task(break_off(agent, breaking_off(), whole))
        await wait_for(received_bytes, "bytes that are on the disk")
        arrived.set()
        await sending

    async def gone_on() -> bool:
        offset = await received_bytes()
        return (await send(agent, "x", whole[offset:], whole=whole, offset=offset))[0] == 201

    assert 0 < await received_bytes() <= 3_000_000
    await wait_for(gone_on, "the rest")
    assert (home / "input/x").read_bytes() == whole


async def break_off(agent: Agent, part: AsyncIterator[bytes], whole: bytes) -> None:
    with pytest.raises((aiohttp.ClientError, OSError)):
        await send(agent, "x", part, whole=whole)


async def test_one_request_at_a_time_writes_a_file(agent: Agent) -> None:
    go_on = asyncio.Event()

    async def slowly() -> Any:
        yield b"1"
        await go_on.wait()
        yield b"2"

    async with asyncio.TaskGroup() as group:
        first = group.create_task(send(agent, "x", slowly(), whole=b"12"))

        async def second_is_refused() -> bool:
            status, told = await send(agent, "x", b"", whole=b"12", offset=0)
            return status == 409 and "another request" in told["error"]

        await wait_for(second_is_refused, "the first to have begun")
        go_on.set()
    assert first.result()[0] == 201


async def test_an_existing_file_is_replaced_only_if_wished(agent: Agent, home: Path) -> None:
    put(home / "input/x", b"old")
    assert (await send(agent, "x", b"new!", only_new=True))[0] == 412
    assert (home / "input/x").read_bytes() == b"old"
    assert (await send(agent, "x", b"new!"))[0] == 201
    assert (home / "input/x").read_bytes() == b"new!"


async def test_an_empty_file_can_be_sent(agent: Agent, home: Path) -> None:
    assert (await send(agent, "x", b""))[0] == 201
    assert (home / "input/x").read_bytes() == b""


@pytest.mark.parametrize("path", OUTSIDE)
async def test_no_path_leads_out_of_the_input_folder(agent: Agent, home: Path, path: str) -> None:
    before = sorted(home.rglob("*"))
    host, port = agent.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"PUT /files/input/{path}?total=1&sha256={sha256(b'x')} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: {BEARER['Authorization']}\r\nContent-Length: 1\r\n\r\nx".encode()
    )
    status = int((await reader.readline()).split()[1])
    writer.close()
    await writer.wait_closed()
    assert status in (400, 404)
    assert sorted(home.rglob("*")) == before


async def test_a_file_in_the_place_of_a_folder_is_refused(agent: Agent, home: Path) -> None:
    put(home / "input/a")
    (home / "input/folder").mkdir()
    assert (await send(agent, "a/b", b"x"))[0] == 400
    assert (await send(agent, "folder", b"x"))[0] == 400


@pytest.mark.parametrize(
    "query",
    ["", "total=1", f"sha256={'0' * 64}", f"total=x&sha256={'0' * 64}", "total=1&sha256=xyz",
     f"total=1&offset=-1&sha256={'0' * 64}", f"total=99999999999999&sha256={'0' * 64}"],
)  # fmt: skip
async def test_an_upload_that_is_not_described_is_refused(agent: Agent, query: str) -> None:
    async with agent.client.put(f"/files/input/x?{query}", data=b"x") as response:
        assert response.status == 400


async def test_an_upload_that_does_not_fit_on_the_disk_is_refused_at_once(agent: Agent) -> None:
    query = f"total={1 << 40}&sha256={'0' * 64}"
    async with agent.client.put(f"/files/input/x?{query}", data=b"x") as response:
        assert response.status == 507


async def test_a_folder_that_cannot_be_written_is_told(home: Path) -> None:
    put(home / "file")
    async with agent_at(home, AGENT_INPUT_DIR=str(home / "file/input")) as agent:
        assert (await send(agent, "x", b"x"))[0] in (400, 507)


def test_parts_that_nobody_goes_on_with_are_removed(home: Path) -> None:
    old, young = (home / "input" / PARTS_FOLDER / f"{name}.part" for name in ("old", "young"))
    put(old)
    put(young)
    os.utime(old, (time.time() - 101, time.time() - 101))
    uploads = Uploads(home / "input", max_part_bytes=1, keep_s=100)
    assert uploads.clean() == 1
    assert (old.exists(), young.exists()) == (False, True)


@pytest.mark.parametrize(
    "path", ["", "/", "/x", "a//b", ".", "..", "a/..", "a/.b", "a\\b", "a\x00", "a\x7f", "é" * 128]
)
def test_a_path_that_is_no_ordinary_one_is_bad(path: str) -> None:
    with pytest.raises(BadPath):
        checked(path)


def test_an_ordinary_path_is_kept_as_it_is() -> None:
    assert str(checked("sub folder/ComfyUI_00001_ (1)…ä.png")) == "sub folder/ComfyUI_00001_ (1)…ä.png"


async def test_the_end_of_the_log_is_told(agent: Agent, home: Path) -> None:
    put(home / "user/comfyui.log", b"".join(b"line %d\n" % number for number in range(1000)))
    async with agent.client.get("/logs", params={"lines": "3"}) as response:
        told = await response.json()
    assert told == {"lines": ["line 997", "line 998", "line 999"], "size_bytes": 8890}
    async with agent.client.get("/logs") as response:
        assert len((await response.json())["lines"]) == 200


async def test_without_a_log_there_is_none(agent: Agent) -> None:
    async with agent.client.get("/logs") as response:
        assert response.status == 404


@pytest.mark.parametrize("lines", ["0", "-1", "x", "5001", "²"])
async def test_a_wrong_number_of_lines_is_refused(agent: Agent, lines: str) -> None:
    async with agent.client.get("/logs", params={"lines": lines}) as response:
        assert response.status == 400


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\r\nb", ["a", "b"]),
        (b"\xff\n", ["�"]),
        (b"xxxx\n" * 4, ["xxxx", "xxxx"]),
    ],
)
def test_a_log_is_read_from_its_end_and_only_so_far(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    put(tmp_path / "log", content)
    assert tail(tmp_path / "log", 100, most_bytes=12) == (lines, len(content))


async def test_a_file_of_forty_megabytes_arrives_in_flat_memory(agent: Agent, home: Path) -> None:
    whole = os.urandom(1_000_000) * 40
    put(home / "output/big", whole)
    before = psutil.Process().memory_info().rss
    digest = hashlib.sha256()
    async with agent.client.get("/files/output/big") as response:
        async for chunk in response.content.iter_any():
            digest.update(chunk)
    assert digest.hexdigest() == sha256(whole)
    assert psutil.Process().memory_info().rss - before < 20_000_000
