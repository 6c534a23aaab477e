"""Uploads go to the user's current server, and their names mean what the user thinks."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfy_gateway.core.errors import BackendUnavailable, PromptRefused
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.ports import AgentPlace
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.prompts.visibility import Isolation, Visibility
from comfy_gateway.service.inputs.uploads import UploadForm
from tests.agent.stand import TOKEN, agent_at
from tests.conditions import wait_for
from tests.service.inputs_stand import ALICE, BOB, PEER, World, named, png, sha256, world

X, Y, Z = png(1), png(2), png(3)


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def test_the_answer_is_the_servers_own(around: World) -> None:
    taken = await around.upload("a b.png", X, subfolder="süb", type="input", custom="kept")
    assert (taken.answer.status, taken.backend) == (200, around.home.backend)
    assert json.loads(taken.answer.body) == {"name": "a b.png", "subfolder": "süb", "type": "input"}
    assert (around.home.inputs / "süb/a b.png").read_bytes() == X


async def test_a_user_with_a_pod_uploads_to_it_and_the_gateway_keeps_the_file(around: World) -> None:
    around.move()
    assert await around.uploaded("a.png", X) == "a.png"
    assert (around.pod.inputs / "a.png").read_bytes() == X
    assert not (around.home.inputs / "a.png").exists()
    assert around.store.path(sha256(X)).read_bytes() == X


async def test_the_same_file_again_keeps_its_name_and_another_one_gets_the_next(around: World) -> None:
    assert [await around.uploaded("a.png", data) for data in (X, X, Y, X)] == [
        "a.png",
        "a.png",
        "a (1).png",
        "a.png",
    ]
    assert [around.home.holds(name) for name in ("a.png", "a (1).png")] == [X, Y]


async def test_after_a_move_a_name_of_before_is_not_given_to_another_content(around: World) -> None:
    """As on one server: a saved workflow that names a.png still gets its picture."""
    await around.uploaded("a.png", X)
    around.move()
    assert await around.uploaded("a.png", Y) == "a (1).png"
    assert await around.carried("a.png", "a (1).png") == ["a.png", "a (1).png"]
    assert [around.pod.holds(name) for name in ("a.png", "a (1).png")] == [X, Y]
    around.move_back()
    assert await around.carried("a.png", "a (1).png") == ["a.png", "a (1).png"]
    assert [around.home.holds(name) for name in ("a.png", "a (1).png")] == [X, Y]


@pytest.mark.parametrize(
    ("there", "expected"),
    [(X, "a.png"), (Y, "a (1).png"), (Y + b"longer", "a (1).png")],
    ids=["the same", "another", "another size"],
)
async def test_a_name_that_only_the_shared_server_has_is_taken_by_its_content(
    around: World, there: bytes, expected: str
) -> None:
    assert len(X) == len(Y)
    (around.home.inputs / "a.png").write_bytes(there)
    around.move()
    assert await around.uploaded("a.png", X) == expected


async def test_a_shared_server_that_is_away_does_not_hold_an_upload_up(around: World) -> None:
    around.move()
    around.home.simulator.mood.dead = True
    assert await around.uploaded("a.png", X) == "a.png"


async def test_an_overwrite_overwrites_where_nobody_waits_for_the_old_content(around: World) -> None:
    await around.uploaded("a.png", X)
    assert await around.uploaded("a.png", Y, overwrite="1") == "a.png"
    assert around.home.holds("a.png") == Y
    assert await around.carried("a.png") == ["a.png"]


@pytest.mark.parametrize("user", [ALICE, BOB], ids=["her own", "somebody else's"])
async def test_an_overwrite_leaves_a_prompt_that_waits_its_picture(around: World, user: Any) -> None:
    """Scripts of several people that all call their picture input.png do not get into each other's hair."""
    await around.uploaded("input.png", X)
    await around.carried("input.png", prompt_id="p1")
    around.ledger.accept(PromptRecord("p1", ALICE.key, "", around.home.backend.id))
    assert await around.uploaded("input.png", Y, user=user, overwrite="true") == "input (1).png"
    assert around.home.holds("input.png") == X
    [new] = await around.carried("input.png", user=user)  # scripts do not look at the answer
    assert (new, around.home.holds(new)) == ("input (1).png", Y)
    around.ledger.end("p1", Outcome.DONE)
    assert await around.uploaded("input.png", Z, user=user, overwrite="true") == "input.png"
    assert around.home.holds("input.png") == Z
    [alices] = await around.carried("input.png")
    assert around.home.holds(alices) == (Z if user == ALICE else X)


async def test_an_upload_into_another_folder_is_remembered_in_it(around: World) -> None:
    assert await around.uploaded("x.png", X, type="output", subfolder="mine") == "mine/x.png [output]"
    around.move()
    [text] = await around.carried("mine/x.png [output]")
    assert around.pod.holds(text) == X


async def test_what_the_server_refuses_is_remembered_by_nobody(around: World) -> None:
    form = UploadForm("image", (("type", "input"),), None, "image/png", None)
    assert (await around.uploads.take(ALICE, PEER, form, {})).answer.status == 400
    assert around.book.all_uploads() == []


@pytest.mark.parametrize(
    ("name", "kind", "fields", "type_"),
    [
        ("../../a.png", "image", {}, "bad_upload_name"),
        ("a.png", "image", {"subfolder": "b/../../c"}, "bad_upload_name"),
        ("a.png", "image", {"subfolder": "/etc"}, "bad_upload_name"),
        ("a\0b.png", "image", {}, "bad_upload_name"),
        ("a" * 300, "image", {}, "bad_upload_name"),
        ("a.png", "image", {"type": "models"}, "bad_upload_type"),
        ("a.png", "image", {"image": "text"}, "no_upload"),
        ("m.png", "mask", {}, "bad_original_ref"),
        *(
            ("m.png", "mask", {"original_ref": broken}, "bad_original_ref")
            for broken in (
                "",
                "{",
                "[]",
                "3",
                "{}",
                '{"filename": ""}',
                '{"filename": 3}',
                '{"filename": "../x"}',
                '{"filename": "a\\u0000b"}',
                '{"filename": "\\ud800"}',
                '{"filename": "x", "type": "models"}',
                '{"filename": "x", "subfolder": "../.."}',
                "[" * 100_000,
            )
        ),
    ],
)
async def test_what_comfyui_would_stumble_over_is_refused_and_not_sent(
    around: World, name: str, kind: str, fields: dict[str, Any], type_: str
) -> None:
    with pytest.raises(PromptRefused) as caught:
        await around.upload(name, X, kind=kind, **fields)
    assert (caught.value.refusal.status, caught.value.refusal.type) == (400, type_)
    assert around.home.uploads() == 0
    assert around.book.all_uploads() == []


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[World]:
    """Where nobody touches what is another's, and all see it."""
    async with world(tmp_path, visibility=Visibility(Isolation.ACTIONS)) as made:
        yield made


async def test_nobody_overwrites_what_another_has_uploaded(guarded: World) -> None:
    await guarded.uploaded("a.png", X)
    assert await guarded.uploaded("a.png", Y, user=BOB, overwrite="true") == "a (1).png"
    assert [guarded.home.holds(name) for name in ("a.png", "a (1).png")] == [X, Y]
    assert await guarded.carried("a.png") == ["a.png"]
    assert await guarded.carried("a.png", "a (1).png", user=BOB) == ["a (1).png", "a (1).png"]
    found = [guarded.inputs.find(user, named("a.png")) for user in (ALICE, BOB)]
    assert [getattr(one, "file", None) for one in found] == [named("a.png"), named("a (1).png")]


async def test_what_was_put_beside_anothers_is_overwritten_by_its_owner_in_turn(guarded: World) -> None:
    """A script that overwrites its picture for ever does not fill the folder."""
    await guarded.uploaded("a.png", X)
    for data in (Y, Z, X, Y):
        assert await guarded.uploaded("a.png", data, user=BOB, overwrite="1") in {"a (1).png", "a.png"}
    assert sorted(path.name for path in guarded.home.inputs.iterdir()) == ["a (1).png", "a.png"]
    assert guarded.home.holds("a.png") == X
    [bobs] = await guarded.carried("a.png", user=BOB)
    assert guarded.home.holds(bobs) == Y
    assert await guarded.uploaded("a.png", Z, overwrite="1") == "a.png"
    assert [guarded.home.holds(name) for name in ("a.png", bobs)] == [Z, Y]


async def test_one_file_that_two_have_uploaded_is_overwritten_by_neither(guarded: World) -> None:
    await guarded.uploaded("a.png", X)
    assert await guarded.uploaded("a.png", X, user=BOB) == "a.png"
    assert await guarded.uploaded("a.png", Y, overwrite="true") == "a (1).png"
    assert [guarded.home.holds(name) for name in ("a.png", "a (1).png")] == [X, Y]
    assert await guarded.carried("a.png") == ["a (1).png"]
    assert await guarded.carried("a.png", user=BOB) == ["a.png"]


async def test_a_file_that_nobody_has_uploaded_through_the_gateway_is_not_overwritten(guarded: World) -> None:
    (guarded.home.inputs / "example.png").write_bytes(X)
    assert await guarded.uploaded("example.png", Y, overwrite="true") == "example (1).png"
    assert guarded.home.holds("example.png") == X
    assert await guarded.carried("example.png", user=BOB) == ["example.png"]


async def test_an_output_is_not_overwritten_by_an_upload(guarded: World) -> None:
    output = guarded.home.simulator.folders.output / "ComfyUI_00001_.png"
    output.write_bytes(X)
    await guarded.upload(output.name, Y, type="output", overwrite="true", user=BOB)
    assert output.read_bytes() == X


async def test_a_mask_does_not_overwrite_anothers_picture(guarded: World) -> None:
    await guarded.uploaded("clip.png", X)
    await guarded.uploaded("b.png", Y, user=BOB)
    original = reference(filename="b.png", type="input")
    told = await guarded.uploaded(
        "clip.png", mask(), kind="mask", user=BOB, original_ref=original, overwrite="true"
    )
    assert told == "clip (1).png"
    assert guarded.home.holds("clip.png") == X
    [bobs] = await guarded.carried("clip.png", user=BOB)
    assert alpha_and_red(guarded.home.holds(bobs)) == (77, 2)


async def test_two_who_overwrite_one_name_at_once_both_keep_their_own(guarded: World) -> None:
    """Twenty times each, in one go: whose upload comes first is left to chance."""
    numbers = iter(range(10, 250))
    for _ in range(20):
        alices, bobs = png(next(numbers)), png(next(numbers))
        await asyncio.gather(
            guarded.uploaded("a.png", alices, overwrite="true"),
            guarded.uploaded("a.png", bobs, user=BOB, overwrite="true"),
        )
        [hers], [his] = await guarded.carried("a.png"), await guarded.carried("a.png", user=BOB)
        assert (guarded.home.holds(hers), guarded.home.holds(his)) == (alices, bobs)
    assert len(list(guarded.home.inputs.iterdir())) <= 3


async def test_the_same_picture_from_another_is_not_overwritten_at_the_moment_when_it_comes(
    guarded: World,
) -> None:
    for number in range(10, 50, 2):
        name, old, new = f"{number}.png", png(number), png(number + 1)
        await guarded.uploaded(name, old)
        [his, _hers] = await asyncio.gather(
            guarded.uploaded(name, old, user=BOB), guarded.uploaded(name, new, overwrite="true")
        )
        [there] = await guarded.carried(his, user=BOB)
        assert guarded.home.holds(there) == old


async def test_on_a_pod_its_user_overwrites_what_is_there(guarded: World) -> None:
    guarded.move()
    (guarded.pod.inputs / "a.png").write_bytes(X)
    assert await guarded.uploaded("a.png", Y, overwrite="true") == "a.png"
    assert guarded.pod.holds("a.png") == Y


async def test_headers_for_comfyui_are_passed_on(around: World) -> None:
    form = UploadForm("image", (), "a.png", "image/png", await around.keep(X))
    await around.uploads.take(ALICE, PEER, form, {"Comfy-User": "u7"})
    assert around.home.simulator.requests[-1].headers["Comfy-User"] == "u7"


async def test_a_pod_that_dies_during_the_upload_is_replaced_by_the_shared_server(around: World) -> None:
    around.move()
    around.pod.simulator.mood.dead_by = "close"
    around.pod.simulator.mood.delay_s = 0.1
    upload = asyncio.create_task(around.upload("a.png", X))
    await wait_for(around.pod.uploads, "the upload to begin")
    around.pod.simulator.mood.dead = True
    around.move_back()
    taken = await upload
    assert taken.backend == around.home.backend
    assert around.home.holds("a.png") == X


async def test_a_pod_whose_comfyui_is_gone_leaves_the_upload_to_the_shared_server(around: World) -> None:
    around.move()
    around.pod.simulator.mood.dead = True
    taken = await around.upload("a.png", X)
    assert (taken.answer.status, taken.backend) == (200, around.home.backend)
    assert (around.home.inputs / "a.png").read_bytes() == X


async def test_a_server_that_is_away_is_said(around: World) -> None:
    around.home.simulator.mood.dead, around.home.simulator.mood.dead_by = True, "close"
    with pytest.raises(BackendUnavailable):
        await around.upload("a.png", X)
    assert around.book.all_uploads() == []


async def test_a_kept_file_that_vanished_is_said(around: World) -> None:
    form = UploadForm("image", (), "a.png", "image/png", await around.keep(X))
    around.store.path(sha256(X)).unlink()
    with pytest.raises(BackendUnavailable):
        await around.uploads.take(ALICE, PEER, form, {})


async def test_two_uploads_of_one_name_at_once_are_both_usable(around: World) -> None:
    texts = await asyncio.gather(*(around.uploaded("a.png", data) for data in (X, Y, Z)))
    assert len(set(texts)) == 3
    around.move()
    assert [around.pod.holds(text) for text in await around.carried(*texts)] == [X, Y, Z]


# -- masks


def mask() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 77)).save(buffer, format="PNG")
    return buffer.getvalue()


def reference(**names: str) -> str:
    return json.dumps(names)


def alpha_and_red(data: bytes) -> tuple[Any, Any]:
    with Image.open(io.BytesIO(data)) as image:
        pixel: Any = image.convert("RGBA").getpixel((3, 3))
        return pixel[3], pixel[0]


async def test_a_mask_on_a_pod_is_put_on_an_original_from_before_the_move(around: World) -> None:
    await around.uploaded("a.png", X)
    (around.pod.inputs / "a.png").write_bytes(Y)
    around.move()
    original = reference(filename="a.png", subfolder="", type="input")
    text = await around.uploaded("m.png", mask(), kind="mask", original_ref=original, subfolder="clipspace")
    assert text == "clipspace/m.png"
    assert alpha_and_red(around.pod.holds(text)) == (77, 1)
    around.move_back()
    await around.pod.stop.aclose()
    [there] = await around.carried("clipspace/m.png [input]")
    assert alpha_and_red(around.home.holds(there)) == (77, 1)


async def test_a_mask_is_put_on_an_output_of_home_and_on_one_of_the_pod(around: World) -> None:
    around.move()
    (around.home.simulator.folders.output / "x.png").write_bytes(X)
    (around.pod.simulator.folders.output / "x.png").write_bytes(Y)
    for original, red in (
        (reference(filename="x.png"), 1),
        (reference(filename="x.png [output]", type="input"), 1),
        (reference(filename="x.png", subfolder="private-k3", type="output"), 2),
    ):
        text = await around.uploaded("m.png", mask(), kind="mask", original_ref=original)
        assert alpha_and_red(around.pod.holds(text)) == (77, red)


async def test_a_mask_without_an_original_is_answered_by_the_server_alone(around: World) -> None:
    around.move()
    original = reference(filename="nowhere.png", type="input")
    taken = await around.upload("m.png", mask(), kind="mask", original_ref=original)
    assert taken.answer.status == 200  # ComfyUI says so, and stores nothing
    assert around.book.all_uploads() == []


async def test_a_second_mask_of_the_name_does_not_take_the_place_of_the_first(around: World) -> None:
    await around.uploaded("a.png", X)
    original = reference(filename="a.png", type="input")
    first = await around.uploaded("m.png", mask(), kind="mask", original_ref=original)
    around.move()
    second = await around.uploaded("m.png", mask(), kind="mask", original_ref=original)
    assert (first, second) == ("m.png", "m (1).png")


async def test_a_mask_that_cannot_be_kept_makes_the_name_mean_what_the_server_has(around: World) -> None:
    await around.uploaded("a.png", X)
    await around.uploaded("m.png", Y)
    original = reference(filename="a.png", type="input")
    around.store._reserve_bytes = -1
    kept = await around.keep(mask())
    around.store._reserve_bytes = 1 << 60
    form = UploadForm("mask", (("original_ref", original), ("overwrite", "true")), "m.png", "image/png", kept)
    taken = await around.uploads.take(ALICE, PEER, form, {})
    assert taken.answer.status == 200
    assert around.book.meaning((ALICE.key,), named("m.png")) is None
    assert await around.carried("m.png") == ["m.png"]
    assert alpha_and_red(around.home.holds("m.png")) == (77, 1)


async def test_a_mask_whose_original_cannot_be_brought_is_refused(around: World) -> None:
    await around.uploaded("a.png", X)
    await around.store.remove(sha256(X))
    around.move()
    around.home.simulator.mood.dead = True
    with pytest.raises(PromptRefused) as caught:
        await around.upload(
            "m.png", mask(), kind="mask", original_ref=reference(filename="a.png", type="input")
        )
    assert caught.value.refusal.status == 503


# -- what is too large for a pod's proxy


async def test_what_the_pods_proxy_would_refuse_goes_by_the_agent(tmp_path: Path) -> None:
    big, other = b"x" * 3_000_000, b"y" * 3_000_000
    async with world(tmp_path, pod_body_bytes=1_000_000) as around:
        home = around.pod.inputs.parent
        async with agent_at(home) as agent:
            around.agents[around.pod.backend.id] = AgentPlace(f"{agent.url}/metrics", TOKEN)
            around.move()
            assert await around.uploaded("v.mp4", big, subfolder="films") == "films/v.mp4"
            assert around.pod.holds("films/v.mp4") == big
            assert await around.uploaded("v.mp4", other, subfolder="films") == "films/v (1).mp4"
            assert await around.uploaded("v.mp4", other, subfolder="films", overwrite="true") == "films/v.mp4"
            assert around.pod.holds("films/v.mp4") == other
            (around.pod.inputs / "w.mp4").write_bytes(b"the pod's own")
            assert await around.uploaded("w.mp4", big) == "w (1).mp4"
            (around.home.inputs / "shared.mp4").write_bytes(other)
            assert await around.carried("shared.mp4") == ["shared.mp4"]
            assert around.pod.holds("shared.mp4") == other
            name = "Aufnahme 1.00\u202fPM.mp4"  # the agent refuses this name
            (around.home.inputs / name).write_bytes(big)
            [text] = await around.carried(name)
            assert text == f"carried/{sha256(big)[:32]}/file.mp4"
            assert around.pod.holds(text) == big
        assert around.pod.uploads() == 0


@pytest.mark.parametrize("kind", ["image", "mask"])
async def test_what_is_too_large_for_a_pod_without_agent_is_said_as_413(tmp_path: Path, kind: str) -> None:
    async with world(tmp_path, pod_body_bytes=1000) as around:
        around.move()
        with pytest.raises(PromptRefused) as caught:
            await around.upload("v.png", b"x" * 2000, kind=kind, original_ref=reference(filename="a.png"))
        assert caught.value.refusal.status == 413
        (around.home.inputs / "w.png").write_bytes(b"x" * 2000)
        with pytest.raises(PromptRefused) as caught:
            await around.carried("w.png")
        assert caught.value.refusal.status == 413


async def test_an_agent_that_does_not_take_it_is_said(tmp_path: Path) -> None:
    async with world(tmp_path, pod_body_bytes=1000) as around:
        around.move()
        around.agents[around.pod.backend.id] = AgentPlace("http://127.0.0.1:9/metrics", TOKEN)
        with pytest.raises(BackendUnavailable):
            await around.upload("v.png", b"x" * 2000)
        (around.home.inputs / "w.png").write_bytes(b"x" * 2000)
        with pytest.raises(PromptRefused) as caught:
            await around.carried("w.png")
        assert caught.value.refusal.status == 503


def test_a_form_is_read_as_comfyui_reads_it() -> None:
    form = UploadForm(
        "image", (("type", "temp"), ("type", "input"), ("overwrite", "True")), "a.png", "", None
    )
    assert form.file == FileName("a.png", "", "temp")
    assert not form.overwrites
    assert form.changed(type="output", overwrite=None) == (("type", "output"),)
