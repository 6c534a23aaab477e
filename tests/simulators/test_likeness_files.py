"""Files of the simulated ComfyUI are what a real one makes of them: names, folders, views and uploads.

Each test holds for both. Lines are those of ComfyUI 0.3.64.
"""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.simulators.comfy_client import Duty, empty, opened, png, saved
from tests.simulators.likeness import BOTH, fresh, one_of

pytestmark = BOTH


@pytest.fixture
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Duty]:
    async with one_of(request.param) as duty:
        yield duty


def names(entry: dict[str, Any], node_id: str = "2") -> list[tuple[str, str, str]]:
    return [
        (image["subfolder"], image["filename"], image["type"])
        for image in entry["outputs"][node_id]["images"]
    ]


async def status(duty: Duty, path: str, **query: str) -> int:
    async with duty.http.get(path, params=query) as answer:
        return answer.status


async def sent(duty: Duty, route: str, form: aiohttp.FormData) -> Any:
    """The answer's JSON, or its status where it is no 200."""
    async with duty.http.post(route, data=form) as answer:
        return await answer.json() if answer.status == 200 else answer.status


async def test_files_are_numbered_by_looking_at_the_folder(server: Duty) -> None:
    """folder_paths.py:361, nodes.py:1605: one above the highest number of this very prefix."""
    stem = fresh()
    first = await server.run(saved(1, f"{stem}/a", batch_size=2))
    assert names(first) == [(stem, "a_00001_.png", "output"), (stem, "a_00002_.png", "output")]
    assert names(await server.run(saved(2, f"{stem}/a_b"))) == [(stem, "a_b_00001_.png", "output")]
    assert names(await server.run(saved(3, f"{stem}/a"))) == [(stem, "a_00003_.png", "output")]
    upload = await server.upload("a_00041_.png", png("red"), type="output", subfolder=stem)
    assert upload["name"] == "a_00041_.png"
    assert names(await server.run(saved(4, f"{stem}/a"))) == [(stem, "a_00042_.png", "output")]
    batch = await server.run(saved(5, f"{stem}/n%batch_num%-%width%x%height%", batch_size=2))
    assert [name for _, name, _ in names(batch)] == ["n0-64x48_00001_.png", "n1-64x48_00002_.png"]


async def test_a_prefix_that_ends_with_a_slash_overwrites(server: Duty) -> None:
    """folder_paths.py:363 measures the last part of the prefix as it was told, and finds no earlier file."""
    stem = fresh()
    for color in (1, 2):
        assert names(await server.run(saved(color, f"{stem}/a/"))) == [(stem, "a_00001_.png", "output")]


async def test_a_node_that_previews_keeps_its_random_name_while_prompts_have_it(server: Duty) -> None:
    """nodes.py:1620: chosen when the node's object is made; execution.py:657 drops objects of other prompts."""

    def nodes(color: int, node_id: str) -> dict[str, Any]:
        return {
            "1": empty(color),
            node_id: {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        }

    ((_, one, kind),) = names(await server.run(nodes(1, "2")))
    ((_, two, _),) = names(await server.run(nodes(2, "2")))
    ((_, three, _),) = names(await server.run(nodes(3, "3")), "3")
    assert kind == "temp"
    prefix = one[: -len("00001_.png")]
    assert re.fullmatch(r"ComfyUI_temp_[a-z]{5}_", prefix)
    assert (one, two) == (f"{prefix}00001_.png", f"{prefix}00002_.png")
    assert not three.startswith(prefix)


async def test_pictures_of_other_prompts_have_other_bytes(server: Duty) -> None:
    stem = fresh()
    bodies = set()
    for color in (1, 2):
        await server.run(saved(color, f"{stem}/{color}"))
        bodies.add(await server.picture(filename=f"{color}_00001_.png", subfolder=stem))
    assert len(bodies) == 2
    assert all(opened(body).format == "PNG" for body in bodies)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, 404),
        ({"filename": ""}, 400),
        ({"filename": "no-such.png"}, 404),
        ({"filename": "/etc/hostname"}, 400),
        ({"filename": "a..b.png"}, 400),
        ({"filename": "x.png", "type": "elsewhere"}, 400),
        ({"filename": "x.png", "type": ""}, 400),
        ({"filename": "x.png", "subfolder": "../user"}, 403),
        ({"filename": "x.png", "subfolder": "/etc"}, 403),
        ({"filename": "[output]"}, 400),
        ({"filename": "x.png [temp]", "type": "elsewhere"}, 404),
    ],
)
async def test_view_refuses_alike(server: Duty, query: dict[str, str], expected: int) -> None:
    """server.py:425."""
    assert await status(server, "view", **query) == expected


async def test_a_view_takes_the_last_part_of_the_name_only(server: Duty) -> None:
    """server.py:453."""
    stem = fresh()
    await server.upload(f"{stem}.png", png("red"))
    assert opened(await server.picture(filename=f"nowhere/{stem}.png", type="input")).size == (8, 8)
    assert opened(await server.picture(filename=f"{stem}.png [input]")).size == (8, 8)


@pytest.mark.parametrize(
    ("query", "told", "mode"),
    [
        ({}, "image/png", "RGBA"),
        ({"channel": "rgba"}, "image/png", "RGBA"),
        ({"channel": "rgb"}, "image/png", "RGB"),
        ({"channel": "a"}, "image/png", "RGBA"),
        ({"preview": "webp;90"}, "image/webp", "RGBA"),
        ({"preview": "jpeg;50"}, "image/jpeg", "RGB"),
        ({"preview": "jpeg"}, "image/jpeg", "RGB"),
        ({"preview": "gif;1"}, "image/webp", "RGBA"),
        ({"preview": "jpeg;50", "channel": "a"}, "image/webp", "RGBA"),
        ({"preview": "webp;90", "channel": "rgb"}, "image/webp", "RGB"),
    ],
)
async def test_previews_and_channels_are_made_alike(
    server: Duty, query: dict[str, str], told: str, mode: str
) -> None:
    """server.py:457 to :513."""
    name = f"{fresh()}.png"
    await server.upload(name, png("#ff000080", mode="RGBA"))
    async with server.http.get("view", params={"filename": name, "type": "input", **query}) as answer:
        assert (answer.status, answer.content_type) == (200, told)
        assert answer.headers["Content-Disposition"] == f'filename="{name}"'
        picture = opened(await answer.read())
    assert picture.mode == mode
    if query.get("channel") == "a" and "preview" not in query:
        assert picture.getpixel((0, 0)) == (0, 0, 0, 128)


async def test_a_range_and_a_revalidation_are_answered_for_files_as_they_are(server: Duty) -> None:
    """server.py:515: aiohttp's FileResponse."""
    name = f"{fresh()}.txt"
    await server.upload(name, b"0123456789")
    query = {"filename": name, "type": "input"}
    for ranges, expected in (("bytes=2-4", b"234"), ("bytes=7-", b"789"), ("bytes=-1", b"9")):
        async with server.http.get("view", params=query, headers={"Range": ranges}) as answer:
            assert (answer.status, await answer.read()) == (206, expected)
            etag = answer.headers["ETag"]
    async with server.http.get("view", params=query, headers={"Range": "bytes=50-"}) as answer:
        assert answer.status == 416
    async with server.http.get("view", params=query, headers={"If-None-Match": etag}) as answer:
        assert answer.status == 304
    async with server.http.head("view", params=query) as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, "10")


async def test_what_could_run_in_a_page_is_sent_as_bytes(server: Duty) -> None:
    """server.py:511."""
    stem = fresh()
    for suffix in ("html", "css"):
        await server.upload(f"{stem}.{suffix}", b"x")
        async with server.http.get(
            "view", params={"filename": f"{stem}.{suffix}", "type": "input"}
        ) as answer:
            assert answer.content_type == "application/octet-stream"


async def test_uploads_that_clash_are_renamed_unless_they_are_the_same(server: Duty) -> None:
    """server.py:371 to :389."""
    stem = fresh()
    assert await server.upload(f"{stem}.tar.png", b"one") == {
        "name": f"{stem}.tar.png",
        "subfolder": "",
        "type": "input",
    }
    said = [
        (await server.upload(f"{stem}.tar.png", body, **fields))["name"]
        for body, fields in [
            (b"two", {}),
            (b"three", {}),
            (b"one", {}),
            (b"two", {"overwrite": "yes"}),
            (b"four", {"overwrite": "true"}),
            (b"five", {"overwrite": "1"}),
        ]
    ]
    assert said == [
        f"{stem}.tar (1).png",
        f"{stem}.tar (2).png",
        f"{stem}.tar.png",
        f"{stem}.tar (1).png",
        f"{stem}.tar.png",
        f"{stem}.tar.png",
    ]
    assert await server.picture(filename=f"{stem}.tar.png", type="input") == b"five"


@pytest.mark.parametrize("kind", ["input", "output", "temp"])
async def test_uploads_go_where_type_and_subfolder_say(server: Duty, kind: str) -> None:
    """server.py:335 and :363; the subfolder is answered as it was asked for."""
    stem = fresh()
    told = await server.upload("a.png", b"a", type=kind, subfolder=f"{stem}//b/")
    assert told == {"name": "a.png", "subfolder": f"{stem}//b/", "type": kind}
    assert await server.picture(filename="a.png", type=kind, subfolder=f"{stem}/b") == b"a"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"subfolder": "../.."}, 400),
        ({"subfolder": "/etc"}, 400),
        ({"type": "elsewhere"}, 500),
        ({"type": ""}, 500),
    ],
)
@pytest.mark.parametrize("route", ["upload/image", "upload/mask"])
async def test_wrong_uploads_are_refused_alike(
    server: Duty, route: str, fields: dict[str, str], expected: int
) -> None:
    """server.py:335 leaves a type that is none of the three undefined, and raises."""
    assert await server.upload("a.png", b"a", route, **fields) == expected


async def test_an_upload_without_a_file_is_refused_alike(server: Duty) -> None:
    """server.py:358 and :410."""
    assert await sent(server, "upload/image", aiohttp.FormData({"type": "input"})) == 400
    assert await sent(server, "upload/image", aiohttp.FormData({"image": "", "type": "input"})) == 400
    assert await sent(server, "upload/image", aiohttp.FormData({"image": "text", "type": "input"})) == 500


async def test_a_name_with_a_slash_needs_its_folder_to_be_there(server: Duty) -> None:
    """server.py:364 makes the subfolder only."""
    stem = fresh()

    def form() -> aiohttp.FormData:
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("image", b"a", filename=f"{stem}/a.png", content_type="image/png")
        return form

    assert await sent(server, "upload/image", form()) == 500
    await server.upload("b.png", b"b", subfolder=stem)
    assert (await sent(server, "upload/image", form()))["name"] == f"{stem}/a.png"
    assert await server.picture(filename="a.png", subfolder=stem, type="input") == b"a"


async def test_a_mask_gives_its_alpha_to_a_copy_of_the_original(server: Duty) -> None:
    """server.py:396 to :421."""
    stem = fresh()
    await server.upload(f"{stem}.png", png("red"), subfolder=stem)
    reference = json.dumps({"filename": f"{stem}.png", "type": "input", "subfolder": stem})
    mask = png("#00000040", mode="RGBA")
    first = await server.upload(f"{stem}-m.png", mask, "upload/mask", original_ref=reference)
    second = await server.upload(f"{stem}-m.png", mask, "upload/mask", original_ref=reference)
    assert (first["name"], second["name"]) == (f"{stem}-m.png", f"{stem}-m (1).png")
    picture = opened(await server.picture(filename=f"{stem}-m.png", type="input"))
    assert picture.getpixel((0, 0)) == (255, 0, 0, 64)


@pytest.mark.parametrize(
    "reference",
    [
        {"filename": "no-such.png", "type": "input"},
        {"filename": "../x.png", "type": "input"},
        {"filename": "x.png", "type": "elsewhere"},
        {"filename": "x.png", "subfolder": "../.."},
    ],
)
async def test_a_mask_without_an_original_is_answered_and_not_stored(
    server: Duty, reference: dict[str, str]
) -> None:
    """server.py:396: what the saving function answers is thrown away."""
    name = f"{fresh()}.png"
    told = await server.upload(
        name, png("red", mode="RGBA"), "upload/mask", original_ref=json.dumps(reference)
    )
    assert told == {"name": name, "subfolder": "", "type": "input"}
    assert await status(server, "view", filename=name, type="input") == 404
    assert await server.upload(name, png("red"), "upload/mask") == 500
