"""The promises of ``core.vault.ports.PodFiles``: over a simulated ComfyUI, a real agent, and servers that misbehave."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from comfy_gateway.adapters.pod_files import HttpPodFiles
from comfy_gateway.core.errors import PodFilesUnavailable
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.core.vault.ports import FileAnswer, Found, PodFiles, PodPlace
from comfy_gateway.core.vault.vault import size_of
from simulators.comfyui import ComfySimulator, serve
from tests.agent.stand import TOKEN, agent_at
from tests.contract.loopback import answering, saying

DATA = bytes(range(256)) * 10_000
NAME = "Bild Ä 100%+&?#.png"
FILE = FileName(NAME, "unter ordner/a")


@dataclass
class Pod:
    """A ComfyUI and an agent over one output folder."""

    output: Path
    place: PodPlace
    simulator: ComfySimulator

    def make(self, file: FileName = FILE, data: bytes = DATA) -> Path:
        path = self.output / file.subfolder / file.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path


def place_at(comfyui: str, agent: str) -> PodPlace:
    backend = Backend(
        "comfy-gw-alice-a1", Source.PRIVATE, Upstream.parse(comfyui), "door-token", "private-a1"
    )
    return PodPlace("named:alice", backend, f"{agent}/metrics", TOKEN)


@pytest.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    output = tmp_path / "home" / "output"
    output.mkdir(parents=True)
    simulator = ComfySimulator("pod", output_dir=output)
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(serve(simulator))
        agent = await stack.enter_async_context(agent_at(tmp_path / "home"))
        yield Pod(output, place_at(served.url, agent.url), simulator)


@pytest.fixture
def files(session: aiohttp.ClientSession) -> PodFiles:
    return HttpPodFiles(session, timeout_s=5, silence_s=5, connect_timeout_s=5)


async def body(answer: FileAnswer) -> bytes:
    return b"".join([chunk async for chunk in answer.chunks])


@pytest.mark.parametrize("source", ["from_comfyui", "from_agent"])
class TestReading:
    """Both sources, alike."""

    async def test_a_file_comes_whole_with_size_and_tag(self, files: PodFiles, pod: Pod, source: str) -> None:
        pod.make()
        async with getattr(files, source)(pod.place, FILE) as answer:
            assert (answer.found, answer.offset, answer.total_bytes) == (Found.CONTENT, 0, len(DATA))
            assert size_of(answer.etag) == len(DATA)
            assert await body(answer) == DATA

    async def test_a_reading_goes_on_where_it_broke(self, files: PodFiles, pod: Pod, source: str) -> None:
        pod.make()
        async with getattr(files, source)(pod.place, FILE) as answer:
            etag = answer.etag
        async with getattr(files, source)(pod.place, FILE, offset=1000, etag=etag) as answer:
            assert (answer.found, answer.offset, answer.total_bytes) == (Found.CONTENT, 1000, len(DATA))
            assert answer.etag == etag
            assert await body(answer) == DATA[1000:]

    async def test_a_content_that_is_there_no_more_is_not_gone_on_with(
        self, files: PodFiles, pod: Pod, source: str
    ) -> None:
        pod.make()
        async with getattr(files, source)(pod.place, FILE) as answer:
            etag = answer.etag
        pod.make(data=DATA[::-1])
        async with getattr(files, source)(pod.place, FILE, offset=1000, etag=etag) as answer:
            assert answer.found is Found.CHANGED
            assert await body(answer) == b""

    async def test_a_content_that_the_caller_has_does_not_come_again(
        self, files: PodFiles, pod: Pod, source: str
    ) -> None:
        pod.make()
        async with getattr(files, source)(pod.place, FILE) as answer:
            etag = answer.etag
        async with getattr(files, source)(pod.place, FILE, had=etag) as answer:
            assert answer.found is Found.SAME
            assert await body(answer) == b""

    async def test_a_file_that_is_not_there_is_nothing(self, files: PodFiles, pod: Pod, source: str) -> None:
        async with getattr(files, source)(pod.place, FileName("none.png")) as answer:
            assert answer.found is Found.NOTHING

    async def test_a_name_that_leads_out_is_refused(self, files: PodFiles, pod: Pod, source: str) -> None:
        async with getattr(files, source)(pod.place, FileName("x", "../..")) as answer:
            assert answer.found in {Found.REFUSED, Found.NOTHING}

    async def test_a_place_beyond_the_end_is_a_change(self, files: PodFiles, pod: Pod, source: str) -> None:
        pod.make()
        async with getattr(files, source)(pod.place, FILE) as answer:
            etag = answer.etag
        async with getattr(files, source)(pod.place, FILE, offset=len(DATA) + 5, etag=etag) as answer:
            assert answer.found is Found.CHANGED

    @pytest.mark.parametrize("status", [302, 401, 429, 500, 502, 524])
    async def test_no_other_answer_is_one(self, files: PodFiles, source: str, status: int) -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=status, headers={"Location": "/elsewhere"})

        async with answering(answer) as origin:
            with pytest.raises(PodFilesUnavailable, match=str(status)):
                async with getattr(files, source)(place_at(origin, origin), FILE):
                    pass

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"hello\r\n\r\n",
            b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nx",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
        ],
    )
    async def test_a_broken_answer_is_none(self, files: PodFiles, source: str, raw: bytes) -> None:
        async with saying(raw) as origin:
            with pytest.raises(PodFilesUnavailable):
                async with getattr(files, source)(place_at(origin, origin), FILE):
                    pass

    async def test_what_came_before_a_break_is_handed_on(self, files: PodFiles, source: str) -> None:
        async with saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc") as origin:
            got = b""
            with pytest.raises(PodFilesUnavailable):
                async with getattr(files, source)(place_at(origin, origin), FILE) as answer:
                    async for chunk in answer.chunks:
                        got += chunk
            assert got == b"abc"

    async def test_a_server_that_falls_silent_is_given_up(
        self, session: aiohttp.ClientSession, source: str
    ) -> None:
        files = HttpPodFiles(session, silence_s=0.2)
        async with saying(None) as origin:
            with pytest.raises(PodFilesUnavailable):
                async with getattr(files, source)(place_at(origin, origin), FILE):
                    pass


async def test_each_server_gets_its_own_token_and_no_other(files: PodFiles) -> None:
    seen: list[tuple[str, str | None, str | None, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        headers = request.headers
        seen.append(
            (
                request.path,
                headers.get("X-Comfy-Gateway-Token"),
                headers.get("Authorization"),
                headers.get("X-Comfy-Gateway-Lease"),
            )
        )
        return web.json_response({"files": [], "next": None})

    async with answering(answer) as origin:
        place = place_at(origin, f"{origin}/proxy/8000")
        async with files.from_comfyui(place, FILE):
            pass
        async with files.from_agent(place, FILE):
            pass
        await files.unfetched(place)
        await files.note_fetched(place, [("a.png", "1-1")])
    bearer = f"Bearer {TOKEN}"
    assert seen == [
        ("/view", "door-token", None, None),
        ("/proxy/8000/files/output/unter ordner/a/" + NAME, None, bearer, None),
        ("/proxy/8000/files/output", None, bearer, "1"),
        ("/proxy/8000/files/output/fetched", None, bearer, "1"),
    ]


async def test_temporary_files_come_from_comfyui(files: PodFiles, pod: Pod) -> None:
    (pod.simulator.folders.temp / "t.png").write_bytes(b"x")
    async with files.from_comfyui(pod.place, FileName("t.png", "", "temp")) as answer:
        assert await body(answer) == b"x"


class TestSweep:
    async def test_what_nobody_has_is_listed_with_the_tag_that_comfyui_gives(
        self, files: PodFiles, pod: Pod
    ) -> None:
        pod.make()
        pod.make(FileName("empty.png"), b"")
        async with files.from_comfyui(pod.place, FILE) as answer:
            etag = answer.etag
        listed = await files.unfetched(pod.place)
        assert listed is not None
        assert [(one.path, one.size_bytes, one.etag) for one in listed] == [(FILE.path, len(DATA), etag)]

    async def test_reading_alone_does_not_make_a_file_safe(self, files: PodFiles, pod: Pod) -> None:
        pod.make()
        for source in (files.from_agent, files.from_comfyui):
            async with source(pod.place, FILE) as answer:
                assert await body(answer) == DATA
        assert len(await files.unfetched(pod.place) or ()) == 1

    async def test_what_was_noted_is_listed_no_more_until_it_changes(self, files: PodFiles, pod: Pod) -> None:
        path = pod.make()
        [listed] = await files.unfetched(pod.place) or ()
        await files.note_fetched(pod.place, [(listed.path, listed.etag)])
        assert await files.unfetched(pod.place) == []
        path.write_bytes(b"other")
        assert len(await files.unfetched(pod.place) or ()) == 1

    async def test_all_pages_are_read(self, session: aiohttp.ClientSession, pod: Pod) -> None:
        for number in range(7):
            pod.make(FileName(f"{number}.png"), b"x")
        files = HttpPodFiles(session, page_files=3)
        assert [one.path for one in await files.unfetched(pod.place) or ()] == [
            f"{number}.png" for number in range(7)
        ]

    async def test_files_from_before_the_pod_are_not_its_work(self, files: PodFiles, pod: Pod) -> None:
        path = pod.make()
        os.utime(path, (1, 1))
        assert await files.unfetched(pod.place) == []

    @pytest.mark.parametrize("status", [404, 405])
    async def test_an_agent_without_a_list_is_told_from_one_that_is_down(
        self, files: PodFiles, status: int
    ) -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=status)

        async with answering(answer) as origin:
            assert await files.unfetched(place_at(origin, origin)) is None
            await files.note_fetched(place_at(origin, origin), [("a", "1-1")])

    @pytest.mark.parametrize(
        "response",
        [
            web.json_response({}, status=502),
            web.Response(text="<html>"),
            web.json_response({}),
            web.json_response({"files": [{"path": "x"}], "next": None}),
            web.json_response({"files": [], "next": 5}),
        ],
    )
    async def test_no_usable_list_is_unavailable(self, files: PodFiles, response: web.Response) -> None:
        async def answer(_: web.Request) -> web.Response:
            return response

        async with answering(answer) as origin:
            with pytest.raises(PodFilesUnavailable):
                await files.unfetched(place_at(origin, origin))

    async def test_a_note_that_was_not_taken_is_said(self, files: PodFiles) -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=503)

        async with answering(answer) as origin:
            with pytest.raises(PodFilesUnavailable, match="503"):
                await files.note_fetched(place_at(origin, origin), [("a", "1-1")])
        with pytest.raises(PodFilesUnavailable):
            await files.note_fetched(place_at("http://127.0.0.1:9", "http://127.0.0.1:9"), [("a", "1-1")])

    async def test_a_list_that_begins_again_and_again_ends(self, files: PodFiles) -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.json_response({"files": [{"path": "a", "size_bytes": 1, "etag": "1-1"}], "next": "a"})

        async with answering(answer) as origin:
            listed = await files.unfetched(place_at(origin, origin))
        assert listed is not None
        assert len(listed) == 2
