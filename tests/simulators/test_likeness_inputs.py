"""The simulated ComfyUI checks and loads the files that a prompt names as a real one does.

Each test holds for both. Lines are those of ComfyUI 0.3.64.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.simulators.comfy_client import Duty, empty, loading, opened, png, saved
from tests.simulators.likeness import BOTH, fresh, one_of

pytestmark = BOTH


@pytest.fixture
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Duty]:
    async with one_of(request.param) as duty:
        yield duty


def masked(name: str, channel: str, loader: str = "LoadImageMask", slot: int = 0) -> dict[str, Any]:
    """A workflow that shows a mask."""
    inputs = {"image": name, "channel": channel} if loader == "LoadImageMask" else {"image": name}
    return {
        "1": {"class_type": loader, "inputs": inputs},
        "2": {"class_type": "MaskToImage", "inputs": {"mask": ["1", slot]}},
        "9": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }


async def shown(server: Duty, nodes: dict[str, Any]) -> Any:
    """The picture that node 9 made."""
    entry = await server.run(nodes)
    assert entry["status"]["completed"], entry["status"]["messages"][-1]
    return opened(await server.picture(**entry["outputs"]["9"]["images"][0]))


async def faults(server: Duty, nodes: dict[str, Any], node_id: str = "1") -> list[dict[str, Any]]:
    answer = await server.refused({"prompt": nodes})
    assert answer["error"]["type"] == "prompt_outputs_failed_validation"
    told: list[dict[str, Any]] = answer["node_errors"][node_id]["errors"]
    return told


@pytest.mark.parametrize(
    "place",
    [
        ({}, "{stem}.png"),
        ({}, "{stem}.png [input]"),
        ({"subfolder": "{stem}"}, "{stem}/{stem}.png"),
        ({"subfolder": "{stem}"}, "{stem}/{stem}.png [input]"),
        ({"type": "output"}, "{stem}.png [output]"),
        ({"type": "output", "subfolder": "{stem}"}, "{stem}/{stem}.png [output]"),
        ({"type": "temp"}, "{stem}.png [temp]"),
        ({"type": "output"}, "../output/{stem}.png"),
    ],
    ids=lambda place: place[1],
)
async def test_a_picture_is_loaded_from_where_its_name_says(
    server: Duty, place: tuple[dict[str, str], str]
) -> None:
    """folder_paths.py:167 and :183. A name may lead out of the folder."""
    stem = fresh()
    fields = {name: value.format(stem=stem) for name, value in place[0].items()}
    colour = (1, 2, 3)
    await server.upload(f"{stem}.png", png("#010203", (40, 40)), **fields)
    picture = await shown(server, loading(place[1].format(stem=stem)))
    assert picture.getpixel((39, 39)) == colour


@pytest.mark.parametrize("loader", ["LoadImage", "LoadImageMask", "LoadImageOutput"])
async def test_a_missing_picture_is_told_alike(server: Duty, loader: str) -> None:
    """nodes.py:1701, execution.py:905."""
    node = {"class_type": loader, "inputs": {"image": "no-such.png [output]", "channel": "red"}}
    outputs = {
        "2": {"class_type": "MaskToImage", "inputs": {"mask": ["1", 0 if loader == "LoadImageMask" else 1]}},
        "9": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
    answer = await server.refused({"prompt": {"1": node, **outputs}})
    assert answer == {
        "error": {
            "type": "prompt_outputs_failed_validation",
            "message": "Prompt outputs failed validation",
            "details": "",
            "extra_info": {},
        },
        "node_errors": {
            "1": {
                "errors": [
                    {
                        "type": "custom_validation_failed",
                        "message": "Custom validation failed for node",
                        "details": "image - Invalid image file: no-such.png [output]",
                        "extra_info": {"input_name": "image"},
                    }
                ],
                "dependent_outputs": ["9"],
                "class_type": loader,
            }
        },
    }


@pytest.mark.parametrize(
    ("inputs", "details"),
    [
        ({}, "missing 1 required positional argument: 'image'"),
        ({"image": ["9", 0]}, "tuple index out of range"),
        ({"image": ["3", 0]}, "'NoneType' object has no attribute 'endswith'"),
        ({"image": 7}, "'int' object has no attribute 'endswith'"),
    ],
    ids=["missing", "no such output", "of another type", "a number"],
)
async def test_an_input_that_cannot_be_checked_is_told_alike(
    server: Duty, inputs: dict[str, Any], details: str
) -> None:
    """execution.py:891: the class's own check raises."""
    nodes = {**loading("x.png"), "1": {"class_type": "LoadImage", "inputs": inputs}, "3": empty()}
    (fault,) = await faults(server, nodes)
    assert fault["type"] == "exception_during_inner_validation"
    assert fault["details"].endswith(details)
    assert fault["extra_info"].keys() == {
        "input_name",
        "input_config",
        "exception_message",
        "exception_type",
        "traceback",
        "linked_node",
    }


async def test_a_folder_passes_for_a_file_until_it_is_opened(server: Duty) -> None:
    """folder_paths.py:193 asks for existence only."""
    stem = fresh()
    await server.upload("a.png", png("red"), subfolder=stem)
    entry = await server.run(loading(stem))
    assert entry["status"]["messages"][-1][0] == "execution_error"
    assert entry["status"]["messages"][-1][1]["exception_type"] == "IsADirectoryError"


async def test_masks_are_made_of_channels(server: Duty) -> None:
    """nodes.py:1671 and :1721: what is transparent is white, other channels are as they are."""
    stem = fresh()
    await server.upload(f"{stem}.png", png("#0a141e40", (40, 40), mode="RGBA"))
    seen = {
        channel: (await shown(server, masked(f"{stem}.png", channel))).getpixel((39, 39))[0]
        for channel in ("alpha", "red", "green", "blue")
    }
    assert seen == {"alpha": 191, "red": 10, "green": 20, "blue": 30}
    of_image = await shown(server, masked(f"{stem}.png", "", "LoadImage", 1))
    assert of_image.getpixel((39, 39))[0] == 191
    await server.upload(f"{stem}-opaque.png", png("red", (100, 100)))
    nothing = await shown(server, masked(f"{stem}-opaque.png", "", "LoadImage", 1))
    assert (nothing.size, nothing.getpixel((63, 63))) == ((64, 64), (0, 0, 0))


async def test_choices_are_checked_alike(server: Duty) -> None:
    """execution.py:858."""
    stem = fresh()
    await server.upload(f"{stem}.png", png("red"))
    (fault,) = await faults(server, masked(f"{stem}.png", "yellow"))
    assert fault == {
        "type": "value_not_in_list",
        "message": "Value not in list",
        "details": "channel: 'yellow' not in ['alpha', 'red', 'green', 'blue']",
        "extra_info": {
            "input_name": "channel",
            "input_config": [["alpha", "red", "green", "blue"], {}],
            "received_value": "yellow",
        },
    }


async def test_models_are_checked_alike(server: Duty) -> None:
    """execution.py:858: a checkpoint that this server lacks."""
    nodes = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "nobody-has.safetensors"}},
        "2": {
            "class_type": "VAEDecode" if await knows(server, "VAEDecode") else "SimPaint",
            "inputs": {"model": ["1", 0], "seed": 0, "vae": ["1", 2], "samples": ["1", 0]},
        },
        "9": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
    (fault,) = await faults(server, nodes)
    assert (fault["type"], fault["message"]) == ("value_not_in_list", "Value not in list")
    assert fault["details"].startswith("ckpt_name: 'nobody-has.safetensors' not in [")
    assert fault["extra_info"]["received_value"] == "nobody-has.safetensors"


async def knows(server: Duty, node_class: str) -> bool:
    return bool(await server.get(f"object_info/{node_class}"))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            {"class_type": "NobodyHas", "inputs": {}},
            "Cannot execute because node NobodyHas does not exist.",
        ),
        ({"inputs": {}}, "Cannot execute because a node is missing the class_type property."),
    ],
)
async def test_an_unknown_class_is_told_alike(server: Duty, node: dict[str, Any], message: str) -> None:
    """execution.py:943 and :953."""
    assert await server.refused({"prompt": {**saved(), "7": node}}) == {
        "error": {
            "type": "invalid_prompt",
            "message": message,
            "details": "Node ID '#7'",
            "extra_info": {},
        },
        "node_errors": {},
    }


async def test_the_lists_of_files_are_those_of_this_moment(server: Duty) -> None:
    """nodes.py:1633 and :1709, nodes_audio.py:322, nodes_video.py:170: by ending, the input folder alone."""
    stem = fresh()
    for suffix in ("png", "webp", "mp3", "mp4", "txt"):
        await server.upload(f"{stem}.{suffix}", suffix.encode())
    await server.upload(f"{stem}.png", b"elsewhere", subfolder=stem)

    async def offered(node_class: str, name: str) -> tuple[set[str], dict[str, Any]]:
        kind, options = (await server.get(f"object_info/{node_class}"))[node_class]["input"]["required"][name]
        offered = options.pop("options", kind if isinstance(kind, list) else [])
        assert offered == sorted(offered)
        return {choice.removeprefix(f"{stem}.") for choice in offered if choice.startswith(stem)}, options

    flag = {"image_upload": True}
    assert await offered("LoadImage", "image") == ({"png", "webp"}, flag)
    assert await offered("LoadImageMask", "image") == ({"png", "webp", "mp3", "mp4", "txt"}, flag)
    assert (await offered("LoadImageOutput", "image"))[1] == {
        "image_upload": True,
        "image_folder": "output",
        "remote": {
            "route": "/internal/files/output",
            "refresh_button": True,
            "control_after_refresh": "first",
        },
    }
    if await knows(server, "LoadVideo"):
        assert await offered("LoadVideo", "file") == ({"mp4"}, {"multiselect": False, "video_upload": True})
    if await knows(server, "LoadAudio"):
        assert await offered("LoadAudio", "audio") == ({"mp3", "mp4"}, {"audio_upload": True})


async def test_the_catalogue_describes_nodes_alike(server: Duty) -> None:
    """server.py:590."""
    told = await server.get("object_info")
    described = {
        name: [told[name][key] for key in ("display_name", "output", "output_node", "category")]
        for name in ("SaveImage", "PreviewImage", "LoadImage", "LoadImageMask", "EmptyImage", "ImageScale")
    }
    assert described == {
        "SaveImage": ["Save Image", [], True, "image"],
        "PreviewImage": ["Preview Image", [], True, "image"],
        "LoadImage": ["Load Image", ["IMAGE", "MASK"], False, "image"],
        "LoadImageMask": ["Load Image (as Mask)", ["MASK"], False, "mask"],
        "EmptyImage": ["EmptyImage", ["IMAGE"], False, "image"],
        "ImageScale": ["Upscale Image", ["IMAGE"], False, "image/upscaling"],
    }
    assert told["SaveImage"]["input_order"] == {
        "required": ["images", "filename_prefix"],
        "hidden": ["prompt", "extra_pnginfo"],
    }
    assert told["LoadImage"].keys() == {
        "input",
        "input_order",
        "output",
        "output_is_list",
        "output_name",
        "name",
        "display_name",
        "description",
        "python_module",
        "category",
        "output_node",
    }
