"""What is known of each server, when it is read, and what happens where it cannot be read."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.service.prompts.catalogues import (
    LARGE_BYTES,
    MOST_KEPT,
    READ_AGAIN_S,
    TRY_AGAIN_S,
    Catalogues,
)
from comfy_gateway.service.tasks import Tasks
from tests.fakes.clock import FakeClock
from tests.fakes.servers import FakeComfyServer


def backend(id_: str, source: Source = Source.DUTY) -> Backend:
    return Backend(id_, source, Upstream("http", f"{id_}.test", 80))


def info(*names: str, padding: int = 0) -> bytes:
    described = {"input": {"required": {}}, "output_node": False, "description": "x" * padding}
    return json.dumps({name: described for name in names}).encode()


DUTY = backend("duty-0")
POD = backend("comfy-gw-alice-1", Source.PRIVATE)


class Stand:
    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.comfy = FakeComfyServer()
        self.servers = [DUTY]
        self.tasks = Tasks("test")
        self.catalogues = Catalogues(
            comfy=self.comfy, servers=lambda: self.servers, clock=clock, tasks=self.tasks
        )

    def knows(self, backend: Backend, name: str) -> bool:
        catalogue = self.catalogues.of(backend)
        return catalogue is not None and catalogue.knows(name)


@pytest.fixture
async def stand(clock: FakeClock) -> AsyncIterator[Stand]:
    made = Stand(clock)
    yield made
    await made.tasks.aclose()


async def test_nothing_is_known_before_it_was_read(stand: Stand) -> None:
    assert stand.catalogues.of(DUTY) is None
    assert (await stand.catalogues.fetch(DUTY)).knows("SaveImage")
    assert stand.knows(DUTY, "SaveImage")


async def test_servers_are_read_at_once_and_again_in_time(stand: Stand) -> None:
    stand.tasks.start(stand.catalogues.run(), name="catalogues")
    await stand.clock.settle()
    assert stand.knows(DUTY, "SaveImage")
    stand.comfy.object_infos[DUTY.id] = info("New")
    await stand.clock.advance(READ_AGAIN_S - 10)
    assert not stand.knows(DUTY, "New")
    await stand.clock.advance(20)
    assert stand.knows(DUTY, "New")
    assert stand.comfy.read == [DUTY.id] * 2


async def test_a_server_that_does_not_answer_is_asked_again_soon_and_told_of_once(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    stand.comfy.down.add(DUTY.id)
    stand.tasks.start(stand.catalogues.run(), name="catalogues")
    await stand.clock.advance(10 * TRY_AGAIN_S)
    assert 8 <= len(stand.comfy.read) <= 12
    stand.comfy.down.clear()
    await stand.clock.advance(2 * TRY_AGAIN_S)
    assert stand.knows(DUTY, "SaveImage")
    assert [line for line in caplog.messages if "not known" in line] == [
        "what duty-0 can run is not known: 502 Bad Gateway"
    ]


async def test_what_was_known_stays_known_while_the_server_is_down(stand: Stand) -> None:
    await stand.catalogues.fetch(DUTY)
    stand.comfy.down.add(DUTY.id)
    with pytest.raises(BackendUnavailable):
        await stand.catalogues.fetch(DUTY)
    assert stand.knows(DUTY, "SaveImage")


@pytest.mark.parametrize("body", [b"[]", b"{}", b"<html>", b'{"detail": {}}', b"", b"\xff"])
async def test_an_answer_that_describes_no_nodes_leaves_a_server_unknown(stand: Stand, body: bytes) -> None:
    stand.comfy.object_infos[DUTY.id] = body
    with pytest.raises(BackendUnavailable, match="object_info"):
        await stand.catalogues.fetch(DUTY)
    assert stand.catalogues.of(DUTY) is None


async def test_a_wish_is_fulfilled_in_the_background_but_not_every_time(stand: Stand) -> None:
    await stand.catalogues.fetch(DUTY)
    stand.comfy.object_infos[DUTY.id] = info("New")
    stand.catalogues.refresh(DUTY)
    await stand.clock.settle()
    assert not stand.knows(DUTY, "New")  # it was read a moment ago
    await stand.clock.advance(TRY_AGAIN_S)
    for _ in range(100):
        stand.catalogues.refresh(DUTY)
    await stand.clock.settle()
    assert stand.knows(DUTY, "New")
    assert len(stand.comfy.read) == 2


async def test_who_asks_while_it_is_read_gets_that_reading(stand: Stand) -> None:
    stand.comfy.object_infos[DUTY.id] = info("Large", padding=LARGE_BYTES)
    first, second = await asyncio.gather(stand.catalogues.fetch(DUTY), stand.catalogues.fetch(DUTY))
    assert first is second
    assert first.knows("Large")
    assert len(stand.comfy.read) == 1


async def test_who_asks_while_a_reading_fails_reads_anew(stand: Stand) -> None:
    stand.comfy.down.add(DUTY.id)
    results = await asyncio.gather(
        stand.catalogues.fetch(DUTY), stand.catalogues.fetch(DUTY), return_exceptions=True
    )
    assert [type(result) for result in results] == [BackendUnavailable, BackendUnavailable]
    assert len(stand.comfy.read) == 2


async def test_pods_of_one_image_share_a_catalogue(stand: Stand) -> None:
    stand.comfy.object_infos["a"] = info("X")
    stand.comfy.object_infos["b"] = info("X")
    stand.comfy.object_infos["c"] = info("X", padding=3)  # other words, the same nodes
    found = [await stand.catalogues.fetch(backend(id_, Source.PRIVATE)) for id_ in "abc"]
    assert found[0] is found[1] is found[2]


async def test_a_pod_that_is_gone_is_forgotten(stand: Stand) -> None:
    stand.tasks.start(stand.catalogues.run(), name="catalogues")
    stand.servers.append(POD)
    await stand.clock.advance(20)
    assert stand.knows(POD, "SaveImage")
    stand.servers.remove(POD)
    await stand.clock.advance(READ_AGAIN_S - 40)
    assert stand.knows(POD, "SaveImage")
    await stand.clock.advance(60)
    assert stand.catalogues.of(POD) is None
    assert stand.knows(DUTY, "SaveImage")


async def test_what_is_kept_is_bounded(stand: Stand) -> None:
    for number in range(2 * MOST_KEPT):
        await stand.catalogues.fetch(backend(f"pod-{number}", Source.PRIVATE))
    known = [n for n in range(2 * MOST_KEPT) if stand.catalogues.of(backend(f"pod-{n}")) is not None]
    assert known == list(range(MOST_KEPT, 2 * MOST_KEPT))


async def test_an_error_of_ours_does_not_end_the_readings(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    stand.servers.append(None)  # type: ignore[arg-type]
    stand.tasks.start(stand.catalogues.run(), name="catalogues")
    await stand.clock.settle()
    assert "failed once" in caplog.text
    stand.servers.remove(None)  # type: ignore[arg-type]
    await stand.clock.advance(20)
    assert stand.knows(DUTY, "SaveImage")
