"""Inputs where users are hidden from one another: each has names of their own on a shared server."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from comfy_gateway.core.errors import PromptRefused
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.files.whereabouts import InStore, Nowhere, OnBackend, Unknown
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.prompts.visibility import Isolation, Visibility
from comfy_gateway.service.inputs.uploads import UploadForm
from tests.service.inputs.test_uploads import alpha_and_red, mask, reference
from tests.service.inputs_stand import ALICE, BOB, KEYS, PEER, World, load_image, named, png, world

X, Y, Z = png(1), png(2), png(3)
FULL = Visibility(Isolation.FULL)
A, B = KEYS.space(ALICE.key), KEYS.space(BOB.key)


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, visibility=FULL) as made:
        yield made


async def test_two_upload_one_name_and_neither_sees_the_others(around: World) -> None:
    for user, data in ((ALICE, X), (BOB, Y), (BOB, Z)):
        taken = await around.upload("a.png", data, user=user, overwrite="true")
        assert json.loads(taken.answer.body) == {"name": "a.png", "subfolder": "", "type": "input"}
    for user, data, space in ((ALICE, X, A), (BOB, Z, B)):
        assert await around.carried("a.png", "a.png [input]", user=user) == [
            f"{space}/a.png",
            f"{space}/a.png [input]",
        ]
        assert around.home.holds(f"{space}/a.png") == data
        assert around.inputs.find(user, named("a.png")) == OnBackend(
            around.home.backend, named(f"{space}/a.png")
        )
    assert {path.name for path in around.home.inputs.iterdir()} == {A, B}


async def test_the_same_file_again_keeps_its_name_and_another_one_gets_the_next(around: World) -> None:
    names = [await around.uploaded("a.png", data) for data in (X, X, Y, X)]
    assert names == ["a.png", "a.png", "a (1).png", "a.png"]
    assert [path.name for path in sorted((around.home.inputs / A).iterdir())] == ["a (1).png", "a.png"]


@pytest.mark.parametrize(
    "text",
    [
        "a.png",
        "a.png [input]",
        f"{A}/a.png",
        f"../{A}/a.png",
        "old.png",
        "clipspace/m.png [input]",
        "t.png [temp]",
    ],
)
async def test_a_name_of_another_or_of_nobody_is_answered_as_a_missing_one(around: World, text: str) -> None:
    await around.uploaded("a.png", X)
    await around.uploaded("m.png", X, subfolder="clipspace")
    await around.uploaded("t.png", X, type="temp")
    (around.home.inputs / "old.png").write_bytes(X)
    try:
        status, answer = await around.answer_to(text, user=BOB)
    except PromptRefused as refused:
        assert refused.refusal.status == 400
    else:
        assert status == 400, answer
        shown = around.inputs.shown(BOB, json.dumps(answer).encode())
        assert B.encode() not in shown
        assert A.encode() not in shown


@pytest.mark.parametrize("name", ["a.png", "old.png", f"{A}/a.png"])
async def test_what_is_not_ones_own_is_looked_for_in_ones_own_folder(around: World, name: str) -> None:
    await around.uploaded("a.png", X)
    (around.home.inputs / "old.png").write_bytes(X)
    assert around.inputs.find(BOB, named(name)) == OnBackend(around.home.backend, named(f"{B}/{name}"))
    assert around.inputs.find(BOB, FileName(name, "x/..", "input")) == Nowhere()
    assert around.inputs.find(BOB, FileName(name, "", "output")) == Unknown()


async def test_a_folder_of_another_is_not_read_by_nodes_that_take_folders(around: World) -> None:
    def prompt(folder: str) -> dict[str, Any]:
        return {"prompt": {"1": {"class_type": "LoadImageSetFromFolderNode", "inputs": {"folder": folder}}}}

    with pytest.raises(PromptRefused) as refused:
        await around.inputs.carry(BOB, prompt(A), around.home.backend)
    assert refused.value.refusal.status == 400
    assert await around.inputs.carry(ALICE, prompt(A), around.home.backend) == prompt(A)


async def test_ones_own_file_may_be_named_as_the_server_knows_it(around: World) -> None:
    """As the metadata of a picture does."""
    await around.uploaded("a.png", X)
    assert await around.carried(f"{A}/a.png") == [f"{A}/a.png"]
    assert around.inputs.find(ALICE, named(f"{A}/a.png")) == OnBackend(
        around.home.backend, named(f"{A}/a.png")
    )
    assert json.loads((await around.upload("a.png", X, subfolder=A)).answer.body)["subfolder"] == ""
    around.move()
    assert await around.carried(f"{A}/a.png") == ["a.png"]
    assert around.pod.holds("a.png") == X


async def test_names_stay_right_through_moves_there_and_back(around: World) -> None:
    await around.uploaded("a.png", X)
    await around.uploaded("m.png", Y, subfolder="clipspace")
    around.move()
    assert await around.carried("a.png", "clipspace/m.png [input]") == ["a.png", "clipspace/m.png [input]"]
    assert await around.uploaded("b.png", Z) == "b.png"
    assert (around.pod.holds("a.png"), around.pod.holds("b.png")) == (X, Z)
    around.move_back()
    assert await around.carried("b.png", "a.png") == [f"{A}/b.png", f"{A}/a.png"]
    assert around.home.holds(f"{A}/b.png") == Z
    assert (await around.answer_to("b.png"))[0] == 200


async def test_a_replay_finds_its_file_on_whatever_server(around: World) -> None:
    around.move()
    await around.uploaded("a.png", X)
    assert await around.carried("a.png", prompt_id="p") == ["a.png"]
    around.move_back()
    assert await around.carried("a.png", prompt_id="p") == [f"{A}/a.png"]


async def test_a_file_whose_upload_was_forgotten_is_found_where_it_lies(around: World) -> None:
    await around.uploaded("a.png", X)
    for upload in around.book.all_uploads():
        around.book.forget_upload(upload)
    assert (await around.answer_to("a.png"))[0] == 200
    around.move()
    assert await around.carried("a.png") == ["a.png"]
    assert around.pod.holds("a.png") == X
    assert around.inputs.find(ALICE, named("c.png")) == OnBackend(around.home.backend, named(f"{A}/c.png"))


async def test_a_file_that_no_server_has_comes_from_the_store(around: World) -> None:
    await around.uploaded("a.png", X)
    around.book.forget_place(around.book.places()[0])
    assert around.inputs.find(ALICE, named(f"{A}/a.png")) == InStore(ALICE.key, named("a.png"))
    for content in around.store.all():
        await around.store.remove(content.content.sha256)
    assert around.inputs.find(ALICE, named("a.png")) == OnBackend(around.home.backend, named(f"{A}/a.png"))


async def test_an_output_of_another_server_is_carried_into_ones_own_folder(around: World) -> None:
    around.move()
    (around.pod.simulator.folders.output / "x.png").write_bytes(X)
    around.routes.retire_private(ALICE)
    [text] = await around.carried("private-k3/x.png [output]")
    assert text.startswith(f"{A}/carried/")
    assert around.home.holds(text) == X


async def test_a_mask_is_drawn_on_ones_own_picture_alone(around: World) -> None:
    await around.uploaded("a.png", X)
    original = reference(filename="a.png", type="input")
    told = await around.uploaded("m.png", mask(), kind="mask", subfolder="clipspace", original_ref=original)
    assert told == "clipspace/m.png"
    assert alpha_and_red(around.home.holds(f"{A}/clipspace/m.png")) == (77, 1)
    await around.upload("m.png", mask(), kind="mask", user=BOB, original_ref=original)
    assert not (around.home.inputs / B / "m.png").exists()


OPERATOR = UserId.from_key(ALICE.key)


async def shared_upload(around: World, name: str, data: bytes, **fields: str) -> Any:
    form = UploadForm(
        "image", (("subfolder", "shared"), *fields.items()), name, "image/png", await around.keep(data)
    )
    return await around.uploads.take(OPERATOR, PEER, form, {}, is_operators=True)


async def test_operators_alone_write_what_everybody_reads(around: World) -> None:
    around.move()
    taken = await shared_upload(around, "s.png", X)
    assert json.loads(taken.answer.body) == {"name": "s.png", "subfolder": "shared", "type": "input"}
    assert around.home.holds("shared/s.png") == X
    for folder in ("shared", "shared/deep"):
        with pytest.raises(PromptRefused) as refused:
            await around.upload("s.png", Y, user=BOB, subfolder=folder, overwrite="true")
        assert (refused.value.refusal.status, refused.value.refusal.type) == (403, "operators_only")
    assert await around.carried("shared/s.png", user=BOB) == ["shared/s.png"]
    assert (await around.answer_to("shared/s.png", user=BOB))[0] == 200
    assert around.inputs.find(BOB, named("shared/s.png")) == OnBackend(
        around.home.backend, named("shared/s.png")
    )
    await shared_upload(around, "s.png", Z, overwrite="true")
    assert around.home.holds("shared/s.png") == Z
    assert await around.carried("shared/s.png") == ["shared/s.png"]
    assert around.pod.holds("shared/s.png") == Z


async def test_a_shared_file_is_found_on_whichever_shared_server_has_it(tmp_path: Path) -> None:
    async with world(tmp_path, duties=2, visibility=FULL) as around:
        await shared_upload(around, "s.png", X)
        assert around.inputs.find(ALICE, named("shared/s.png")) == OnBackend(
            around.home.backend, named("shared/s.png")
        )
        assert await around.carried("shared/s.png") == ["shared/s.png"]
        assert around.duty[1].holds("shared/s.png") == X


async def test_a_name_is_taken_that_means_another_picture_on_another_shared_server(tmp_path: Path) -> None:
    async with world(tmp_path, duties=2, visibility=FULL) as around:
        folder = around.home.inputs / A
        folder.mkdir()
        (folder / "a.png").write_bytes(X)
        assert await around.uploaded("a.png", Y) == "a (1).png"
        assert await around.carried("a.png") == [f"{A}/a.png"]
        assert around.duty[1].holds(f"{A}/a.png") == X


async def info(around: World, user: UserId, backend: Any) -> Any:
    async with around.http.get(backend.upstream.url("/object_info/LoadImage")) as response:
        told = await around.lists.merge(user, PEER, backend, await response.json(), is_whole=False)
    return told["LoadImage"]["input"]["required"]["image"]


async def test_lists_hold_ones_own_files_and_shared_ones(around: World) -> None:
    (around.home.inputs / "old.png").write_bytes(X)
    await around.uploaded("a.png", X)
    await around.uploaded("b.png", Y, user=BOB)
    await shared_upload(around, "s.png", X)
    assert around.inputs.has_lists_to_merge(BOB)
    assert (await info(around, BOB, around.home.backend))[0] == ["b.png", "shared/s.png"]
    names = await around.lists.names(BOB, PEER, around.home.backend, "input")
    assert list(names) == ["b.png"]
    around.move()
    (around.pod.inputs / "p.png").write_bytes(X)
    assert (await info(around, ALICE, around.pod.backend))[0] == ["a.png", "p.png", "shared/s.png"]


async def test_a_server_that_does_not_tell_which_inputs_are_files_gets_no_prompt(around: World) -> None:
    around.home.simulator.mood.dead = True
    with pytest.raises(PromptRefused) as refused:
        await around.inputs.carry(BOB, load_image("a.png"), around.home.backend)
    assert refused.value.refusal.status == 503
