"""What is installed on a simulated ComfyUI: node classes, models, and the form in which it tells of them."""

import hashlib
from typing import Any

import pytest

from simulators.comfyui import ComfySimulator, Installation
from simulators.comfyui.model_nodes import painted
from simulators.comfyui.pictures import colour_of
from tests.simulators.comfy_client import Duty, loading, opened, saved, served_as


def with_model(name: str, seed: int = 0) -> dict[str, Any]:
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}},
        "2": {"class_type": "SimPaint", "inputs": {"model": ["1", 0], "seed": seed}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "painted"}},
    }


def showing(loader: str, name: str, file: str) -> dict[str, Any]:
    return {
        "1": {"class_type": loader, "inputs": {name: file}},
        "2": {"class_type": "SimShow", "inputs": {"file": ["1", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "shown"}},
    }


async def colour(duty: Duty, entry: dict[str, Any]) -> Any:
    """Of the lower right corner of the picture that node 9 made; the upper left one is the server's."""
    picture = opened(await duty.picture(**entry["outputs"]["9"]["images"][0]))
    return picture.getpixel((picture.width - 1, picture.height - 1))


async def test_a_node_class_that_was_left_out_is_unknown() -> None:
    installation = Installation(without=frozenset({"ImageInvert"}))
    async for duty in served_as(ComfySimulator(installation=installation)):
        assert "ImageInvert" not in await duty.get("object_info")
        assert await duty.get("object_info/ImageInvert") == {}
        nodes = {**saved(), "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}}
        fault = await duty.refused({"prompt": nodes})
        assert fault["error"]["message"] == "Cannot execute because node ImageInvert does not exist."
        assert (await duty.run(saved()))["status"]["completed"]


def test_leaving_out_a_class_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(ValueError, match="LoadImag"):
        ComfySimulator(installation=Installation(without=frozenset({"LoadImag"}))).app()


async def test_models_are_offered_listed_and_wanted_by_name() -> None:
    models = {"checkpoints": ("b.safetensors", "a.safetensors"), "embeddings": ("e.pt",)}
    async for duty in served_as(ComfySimulator(installation=Installation(models=models))):
        told = (await duty.get("object_info/CheckpointLoaderSimple"))["CheckpointLoaderSimple"]
        assert told["input"]["required"]["ckpt_name"][0] == ["a.safetensors", "b.safetensors"]
        lora = (await duty.get("object_info/LoraLoaderModelOnly"))["LoraLoaderModelOnly"]
        assert lora["input"]["required"]["lora_name"] == [[], {}]
        assert await duty.get("models/checkpoints") == ["a.safetensors", "b.safetensors"]
        assert await duty.get("embeddings") == ["e"]
        fault = await duty.refused({"prompt": with_model("sd15.safetensors")})
        (told,) = fault["node_errors"]["1"]["errors"]
        assert told["details"] == ("ckpt_name: 'sd15.safetensors' not in ['a.safetensors', 'b.safetensors']")
        entry = await duty.run(with_model("b.safetensors", 3))
        assert await colour(duty, entry) == painted("model of b.safetensors", 3)


async def test_a_long_list_of_models_is_not_written_out() -> None:
    """execution.py:866 of 0.3.64."""
    models = {"checkpoints": tuple(f"{number:02}.safetensors" for number in range(21))}
    async for duty in served_as(ComfySimulator(installation=Installation(models=models))):
        fault = await duty.refused({"prompt": with_model("x")})
        (told,) = fault["node_errors"]["1"]["errors"]
        assert told["details"] == "ckpt_name: 'x' not in (list of length 21)"
        assert told["extra_info"]["input_config"] is None


async def test_a_chain_of_loaders_shows_in_the_picture(duty: Duty) -> None:
    nodes = with_model("sd15.safetensors")
    lora = {"model": ["1", 0], "lora_name": "detail.safetensors", "strength_model": 0.5}
    nodes["3"] = {"class_type": "LoraLoaderModelOnly", "inputs": lora}
    nodes["2"]["inputs"]["model"] = ["3", 0]
    entry = await duty.run(nodes)
    assert await colour(duty, entry) == painted("model of sd15.safetensors with detail.safetensors at 0.5", 0)


@pytest.mark.parametrize(
    ("loader", "name", "file"), [("LoadAudio", "audio", "s.mp3"), ("LoadVideo", "file", "v.mp4")]
)
async def test_a_sound_or_a_film_shows_by_its_bytes(duty: Duty, loader: str, name: str, file: str) -> None:
    kind = loader.removeprefix("Load").lower()
    fault = await duty.refused({"prompt": showing(loader, name, file)})
    assert fault["node_errors"]["1"]["errors"][0]["details"] == f"{name} - Invalid {kind} file: {file}"
    for body in (b"one", b"two"):
        await duty.upload(file, body, overwrite="true", subfolder="deep")
        entry = await duty.run(showing(loader, name, f"deep/{file} [input]"))
        assert await colour(duty, entry) == colour_of(hashlib.sha256(body).hexdigest())


async def test_lists_of_choices_may_come_in_the_newer_form() -> None:
    async for duty in served_as(ComfySimulator(installation=Installation(combo_objects=True))):
        await duty.upload("a.png", b"a")
        told = await duty.get("object_info")
        assert told["LoadImage"]["input"]["required"]["image"] == [
            "COMBO",
            {"multiselect": False, "options": ["a.png"], "image_upload": True},
        ]
        assert told["LoadImageMask"]["input"]["required"]["channel"] == [
            "COMBO",
            {"multiselect": False, "options": ["alpha", "red", "green", "blue"]},
        ]
        assert told["EmptyImage"]["input"]["required"]["width"][0] == "INT"
        name, _ = told["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"]
        assert name == "COMBO"
        assert (await duty.run(with_model("sd15.safetensors")))["status"]["completed"]


@pytest.mark.parametrize(("newer", "accepted"), [(False, True), (True, False)])
async def test_only_newer_cores_look_into_the_newer_form(newer: bool, accepted: bool) -> None:
    """execution.py:858 of 0.3.64 knows lists only; 0.38.1 also looks at "options"."""
    installation = Installation(newer=newer, combo_objects=True)
    async for duty in served_as(ComfySimulator(installation=installation)):
        async with duty.http.post("prompt", json={"prompt": with_model("unheard-of")}) as answer:
            assert (answer.status == 200) is accepted
            told = await answer.json()
        if not accepted:
            (fault,) = told["node_errors"]["1"]["errors"]
            assert fault["details"].startswith("ckpt_name: 'unheard-of' not in ['sd15")


async def test_newer_cores_name_a_missing_class_apart() -> None:
    """execution.py, validate_prompt, of 0.38.1."""
    async for duty in served_as(ComfySimulator(installation=Installation(newer=True))):
        node = {"class_type": "NobodyHas", "inputs": {}, "_meta": {"title": "Mine"}}
        fault = await duty.refused({"prompt": {"7": node}})
        assert fault["error"] == {
            "type": "missing_node_type",
            "message": "Node 'Mine' not found. The custom node may not be installed.",
            "details": "Node ID '#7'",
            "extra_info": {"node_id": "7", "class_type": "NobodyHas", "node_title": "Mine"},
        }
        fault = await duty.refused({"prompt": {"7": {"inputs": {}}}})
        assert fault["error"]["extra_info"] == {"node_id": "7", "class_type": None, "node_title": None}
        assert (await duty.get("system_stats"))["system"]["comfyui_version"] == "0.38.1"
        assert (await duty.get("object_info/LoadImage"))["LoadImage"]["is_input_list"] is False


async def test_an_installation_holds_from_the_next_life_on() -> None:
    sim = ComfySimulator()
    async for duty in served_as(sim):
        sim.installation = Installation(without=frozenset({"LoadImage"}))
        assert await duty.get("object_info/LoadImage")
    async for duty in served_as(sim):
        assert not await duty.get("object_info/LoadImage")
        assert (await duty.refused({"prompt": loading("a.png")}))["error"]["type"] == "invalid_prompt"
