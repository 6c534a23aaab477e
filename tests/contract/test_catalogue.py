"""What the catalogue says of a prompt, and what the server itself says of it."""

import itertools
from typing import Any

import aiohttp
import orjson
import pytest

from comfy_gateway.adapters.comfyui import HttpComfyServer
from comfy_gateway.core.prompts.catalogue import Catalogue
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from simulators.comfyui import ComfySimulator, Installation, serve

POORER = Installation(
    newer=True,
    combo_objects=True,
    without=frozenset({"ImageScale"}),
    models={"checkpoints": ("sd15.safetensors",)},
)


SCALES = (None, "lanczos", "none")
MODELS = (None, "sd15.safetensors", "sdxl.safetensors", "gone")


def picture(scale: str | None, model: str | None) -> dict[str, Any]:
    """A body of POST /prompt: a picture, painted with a model and scaled."""
    nodes: dict[str, Any] = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}
    }
    if model is not None:
        nodes["1"] = {"class_type": "SimPaint", "inputs": {"model": ["5", 0], "seed": 1}}
        nodes["5"] = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": model}}
    if scale is not None:
        size = {"width": 8, "height": 8, "crop": "disabled"}
        nodes["2"] = {
            "class_type": "ImageScale",
            "inputs": {"image": ["1", 0], "upscale_method": scale, **size},
        }
    last = "1" if scale is None else "2"
    nodes["9"] = {"class_type": "SaveImage", "inputs": {"images": [last, 0], "filename_prefix": "x"}}
    return {"prompt": nodes}


@pytest.mark.parametrize("installation", [Installation(), POORER], ids=["classic", "newer and poorer"])
async def test_a_server_refuses_what_its_catalogue_misses_and_nothing_else(
    session: aiohttp.ClientSession, installation: Installation
) -> None:
    simulator = ComfySimulator(installation=installation)
    async with serve(simulator) as served:
        duty = Backend("duty-0", Source.DUTY, Upstream.parse(served.url))
        server = HttpComfyServer(session, 5)
        catalogue = Catalogue.read(await server.object_info(duty))
        said = set()
        for scale, model in itertools.product(SCALES, MODELS):
            document = picture(scale, model)
            missing = catalogue.missing(document)
            answer = await server.post_prompt(duty, orjson.dumps(document))
            assert (answer.status == 400) == bool(missing), (missing, answer.document)
            said.add(answer.status)
        assert said == {200, 400}
