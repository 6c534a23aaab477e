"""What is shown as input files, and what is kept of them for how long."""

import logging
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.inputs.uploads import place_of
from comfy_gateway.core.prompts.visibility import Isolation, Visibility
from comfy_gateway.service.inputs import retention as input_retention
from tests.fakes.clock import FakeClock
from tests.service.inputs_stand import ALICE, BOB, PEER, World, named, png, sha256, world

X, Y, Z = png(1), png(2), png(3)


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def shown(around: World, *, user: Any = ALICE, node: str = "LoadImage", is_whole: bool = True) -> Any:
    """The list of a node in /object_info as this user is told it."""
    backend = around.routes.current(user)
    async with around.http.get(backend.upstream.url("/object_info")) as response:
        info = await response.json()
    merged = await around.lists.merge(user, PEER, backend, info, is_whole=is_whole)
    [(told, _options)] = merged[node]["input"]["required"].values()
    return told


async def test_after_the_move_the_lists_show_the_users_files_the_shared_ones_and_the_pods_own(
    around: World,
) -> None:
    await around.uploaded("mine.png", X)
    await around.uploaded("deep.png", X, subfolder="sub")
    (around.home.inputs / "shared.png").write_bytes(Y)
    (around.home.inputs / "notes.txt").write_bytes(b"no picture")
    (around.pod.inputs / "own.png").write_bytes(Z)
    around.move()
    assert await shown(around) == ["mine.png", "own.png", "shared.png"]
    assert around.inputs._own_names == {place_of(around.pod.backend): {"own.png"}}
    assert await around.answer_to(*await shown(around))


async def test_names_that_the_gateway_made_in_a_clash_are_not_shown(around: World) -> None:
    await around.uploaded("a.png", X)
    (around.pod.inputs / "a.png").write_bytes(Y)
    around.move()
    assert await around.carried("a.png") == ["a (1).png"]
    assert await shown(around) == ["a.png"]


async def test_an_upload_to_a_pod_is_shown_after_the_way_back(around: World) -> None:
    around.move()
    await around.uploaded("mine.png", X)
    around.move_back()
    assert await shown(around) == ["mine.png"]
    assert await shown(around, user=BOB) == []


async def test_what_is_nowhere_any_more_is_not_shown(around: World) -> None:
    around.move()
    await around.uploaded("mine.png", X)
    await around.store.remove(sha256(X))
    assert await shown(around) == ["mine.png"]  # the pod has it
    around.move_back()
    assert await shown(around) == []


async def test_a_shared_server_that_is_away_leaves_out_only_its_own(around: World) -> None:
    await around.uploaded("mine.png", X)
    around.move()
    around.home.simulator.mood.dead = True
    assert await shown(around, is_whole=False) == ["mine.png"]
    assert around.inputs._own_names == {}


async def test_the_lists_of_folders_are_merged_and_outputs_bear_their_servers_alias(around: World) -> None:
    await around.uploaded("mine.png", X)
    await around.uploaded("deep.png", X, subfolder="sub")
    around.move()
    for server, name in ((around.home, "h.png"), (around.pod, "p.png")):
        for folder in ("output", "temp", "input"):
            (server.simulator.folders.of_type(folder) / name).write_bytes(Z)  # type: ignore[operator]

    async def names(folder: str) -> Any:
        return await around.lists.names(ALICE, PEER, around.pod.backend, folder)

    assert list(await names("input")) == ["p.png", "h.png", "mine.png"]
    assert list(await names("output")) == ["private-k3/p.png", "h.png"]
    assert list(await names("temp")) == ["private-k3/p.png", "h.png"]
    around.home.simulator.mood.dead = True
    assert list(await names("output")) == ["private-k3/p.png"]
    around.pod.simulator.mood.dead = True
    with pytest.raises(BackendUnavailable):
        await names("output")


async def test_outputs_of_shared_servers_are_not_listed_where_users_are_hidden(tmp_path: Path) -> None:
    async with world(tmp_path, visibility=Visibility(Isolation.FULL)) as around:
        around.move()
        for server, name in ((around.home, "bobs.png"), (around.pod, "mine.png")):
            folder = server.simulator.folders.of_type("output")
            assert folder is not None
            (folder / name).write_bytes(Z)
        names = await around.lists.names(ALICE, PEER, around.pod.backend, "output")
        assert list(names) == ["private-k3/mine.png"]


# -- retention


async def look(around: World, clock: Any = None, **bounds: Any) -> None:
    await around.retention(clock or around.clock, **bounds).look()


def age(around: World, data: bytes, hours: float) -> None:
    used_at = around.clock.now().timestamp() - hours * 3600
    os.utime(around.store.path(sha256(data)), (used_at, used_at))


async def test_what_is_not_used_for_long_goes_and_its_name_with_it(around: World, caplog: Any) -> None:
    around.move()
    await around.uploaded("old.png", X)
    await around.uploaded("new.png", Y)
    around.move_back()
    around.inputs.forget_place(place_of(around.pod.backend))
    age(around, X, 50)
    await around.store.open()
    with caplog.at_level(logging.WARNING):
        await look(around, most_age_s=40 * 3600)
    assert "too old" in caplog.text
    assert [upload.file.path for upload in around.book.all_uploads()] == ["new.png"]
    assert not around.store.path(sha256(X)).exists()


async def test_when_there_is_too_much_what_a_shared_server_has_goes_first(around: World) -> None:
    around.move()
    await around.uploaded("pods.png", X)
    around.move_back()
    await around.uploaded("shared.png", Y)
    age(around, X, 20)
    age(around, Y, 10)
    await around.store.open()
    await look(around, most_bytes=len(X))
    assert [around.store.find(sha256(data)) is not None for data in (X, Y)] == [True, False]
    assert await around.carried("shared.png") == ["shared.png"]
    await look(around, most_bytes=0)
    assert around.store.all() == []


async def test_what_was_used_just_now_stays(around: World) -> None:
    await around.uploaded("a.png", X)
    await look(around, most_bytes=0, most_age_s=0)
    assert len(around.store.all()) == 1


async def test_older_meanings_go_after_two_days(around: World) -> None:
    await around.uploaded("a.png", X)
    await around.uploaded("a.png", Y, overwrite="true")
    await look(around)
    assert len(around.book.all_uploads()) == 2
    await look(around, FakeClock(around.clock.now() + timedelta(days=3)))
    assert [upload.content.sha256 for upload in around.book.all_uploads()] == [sha256(Y)]


async def test_a_pod_without_a_route_for_an_hour_is_forgotten(around: World) -> None:
    around.move()
    await around.uploaded("a.png", X)
    clock = FakeClock()
    retention = around.retention(clock)
    around.routes.retire_private(ALICE)
    await retention.look()
    await clock.advance(7200)
    await retention.look()  # it drains
    around.routes.clear_private(ALICE)
    await retention.look()
    await clock.advance(3000)
    await retention.look()
    assert around.book.places() == [place_of(around.pod.backend)]
    await clock.advance(700)
    await retention.look()
    assert around.book.places() == []
    assert around.book.meaning((ALICE.key,), named("a.png")) is not None


async def test_a_disk_that_does_not_remove_is_tried_again(around: World, caplog: Any) -> None:
    await around.uploaded("a.png", X)
    path = around.store.path(sha256(X))
    age(around, X, 5)
    await around.store.open()
    path.unlink()
    path.mkdir()
    with caplog.at_level(logging.WARNING):
        await look(around, most_bytes=0)
    assert "cannot be removed" in caplog.text


async def test_it_looks_again_and_again(around: World) -> None:
    around.move()
    await around.uploaded("a.png", X)
    around.move_back()
    clock = FakeClock()
    around.tasks.start(around.retention(clock).run(), name="retention")
    for _ in range(8):
        await clock.advance(input_retention.LOOK_S)
    assert around.book.places() == []
