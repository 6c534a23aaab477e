"""The node classes that the server knows: those of ComfyUI that need no model, and two of our own for tests.

`SimSleep` works for a while and shows progress and previews; `SimFail` raises. Like a sampler, an unchanged
SimSleep is answered from the cache: give another `seed` to make it work again.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image, ImageOps

from simulators.comfyui.folders import Folders
from simulators.comfyui.pictures import save_numbered

MOST_PX = 16384
SCALE_METHODS = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

type Images = list[Image.Image]
type Inputs = dict[str, Any]
type InputSpec = tuple[str | list[str], dict[str, Any]]
type InputSpecs = Mapping[str, Mapping[str, InputSpec]]
"""By "required" and "optional", then by name: a type such as "INT" or a list of choices, and the options."""


class Work(Protocol):
    """What a node may ask of the server while it runs."""

    server: str
    folders: Folders
    temp_prefix: str
    metadata: Mapping[str, Any]

    async def step(self, least_s: float = 0.0) -> None:
        """Takes the time of one step, or least_s where that is longer. Raises Interrupted."""

    def progress(self, value: float, maximum: float, preview: Image.Image | None = None) -> None:
        """Tells the prompt's owner how far the node is."""


@dataclass(frozen=True)
class Result:
    """`outputs` in the order of the class's `returns`; `ui` is what `executed` and history show, or None."""

    outputs: tuple[Any, ...] = ()
    ui: dict[str, Any] | None = None


@dataclass(frozen=True)
class NodeClass:
    """`fault` says what is wrong with the checked input (ComfyUI's VALIDATE_INPUTS), or None.

    A new `fingerprint` makes a node run again although its inputs look the same (IS_CHANGED).
    """

    name: str
    category: str
    inputs: Callable[[Folders], InputSpecs]
    returns: tuple[str, ...]
    run: Callable[[Work, Inputs], Awaitable[Result]]
    is_output: bool = False
    description: str = ""
    checked_input: str | None = None
    fault: Callable[[Folders, Any], str | None] = lambda folders, value: None
    fingerprint: Callable[[Folders, Inputs], str] = lambda folders, inputs: ""


async def _empty_image(work: Work, inputs: Inputs) -> Result:
    await work.step()
    colour = inputs["color"]
    pixel = (colour >> 16 & 0xFF, colour >> 8 & 0xFF, colour & 0xFF)
    image = Image.new("RGB", (inputs["width"], inputs["height"]), pixel)
    return Result(([image] * inputs["batch_size"],))


async def _image_scale(work: Work, inputs: Inputs) -> Result:
    await work.step()
    method = SCALE_METHODS[inputs["upscale_method"]]

    def scaled(image: Image.Image) -> Image.Image:
        width, height = inputs["width"], inputs["height"]
        if not width and not height:
            return image
        size = (
            width or max(1, round(image.width * height / image.height)),
            height or max(1, round(image.height * width / image.width)),
        )
        return ImageOps.fit(image, size, method) if inputs["crop"] == "center" else image.resize(size, method)

    return Result((await asyncio.to_thread(lambda: [scaled(image) for image in inputs["image"]]),))


async def _image_invert(work: Work, inputs: Inputs) -> Result:
    await work.step()
    return Result((await asyncio.to_thread(lambda: [ImageOps.invert(image) for image in inputs["image"]]),))


async def _load_image(work: Work, inputs: Inputs) -> Result:
    await work.step()
    path = work.folders.named(inputs["image"], work.folders.input)
    if path is None:
        raise FileNotFoundError(inputs["image"])

    def load() -> tuple[Images, Images]:
        with Image.open(path) as image:
            mask = image.getchannel("A") if "A" in image.getbands() else Image.new("L", image.size, 255)
            return [image.convert("RGB")], [ImageOps.invert(mask)]

    return Result(await asyncio.to_thread(load))


async def _save_image(work: Work, inputs: Inputs) -> Result:
    await work.step()
    return await _saved(work, inputs["images"], "output", inputs["filename_prefix"])


async def _preview_image(work: Work, inputs: Inputs) -> Result:
    await work.step()
    return await _saved(work, inputs["images"], "temp", f"ComfyUI{work.temp_prefix}")


async def _saved(work: Work, images: Images, kind: str, prefix: str) -> Result:
    root = work.folders.output if kind == "output" else work.folders.temp
    saved = await asyncio.to_thread(save_numbered, images, root, prefix, work.server, work.metadata)
    ui = {"images": [{"filename": name, "subfolder": subfolder, "type": kind} for name, subfolder in saved]}
    return Result(ui=ui)


async def _sim_sleep(work: Work, inputs: Inputs) -> Result:
    steps = inputs["steps"]
    images = inputs.get("image") or [Image.new("RGB", (64, 64), (40, 40, 60))]
    for step in range(1, steps + 1):
        await work.step(inputs["seconds"] / steps)
        fading = Image.blend(Image.new("RGB", images[0].size), images[0].convert("RGB"), step / steps)
        work.progress(step, steps, fading)
    return Result((images,))


async def _sim_fail(work: Work, inputs: Inputs) -> Result:
    await work.step()
    raise RuntimeError(inputs.get("message", "this node always fails"))


def _fixed(
    required: Mapping[str, InputSpec], optional: Mapping[str, InputSpec] | None = None
) -> Callable[[Folders], InputSpecs]:
    specs = {"required": required} | ({"optional": optional} if optional else {})
    return lambda folders: specs


def _missing_file(folders: Folders, value: Any) -> str | None:
    path = folders.named(str(value), folders.input)
    return None if path is not None and path.is_file() else f"Invalid image file: {value}"


def _file_digest(folders: Folders, inputs: Inputs) -> str:
    path = folders.named(str(inputs["image"]), folders.input)
    if path is None or not path.is_file():
        return "missing"
    return hashlib.sha256(path.read_bytes()).hexdigest()


_IMAGE: InputSpec = ("IMAGE", {})


def _pixels(least: int) -> InputSpec:
    return ("INT", {"default": 512, "min": least, "max": MOST_PX, "step": 1})


_CLASSES = (
    NodeClass(
        "EmptyImage",
        "image",
        _fixed(
            {
                "width": _pixels(1),
                "height": _pixels(1),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 4096}),
                "color": ("INT", {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}),
            }
        ),
        ("IMAGE",),
        _empty_image,
    ),
    NodeClass(
        "ImageScale",
        "image/upscaling",
        _fixed(
            {
                "image": _IMAGE,
                "upscale_method": (list(SCALE_METHODS), {}),
                "width": _pixels(0),
                "height": _pixels(0),
                "crop": (["disabled", "center"], {}),
            }
        ),
        ("IMAGE",),
        _image_scale,
    ),
    NodeClass("ImageInvert", "image", _fixed({"image": _IMAGE}), ("IMAGE",), _image_invert),
    NodeClass(
        "LoadImage",
        "image",
        lambda folders: {"required": {"image": (folders.input_images(), {"image_upload": True})}},
        ("IMAGE", "MASK"),
        _load_image,
        checked_input="image",
        fault=_missing_file,
        fingerprint=_file_digest,
    ),
    NodeClass(
        "SaveImage",
        "image",
        _fixed({"images": _IMAGE, "filename_prefix": ("STRING", {"default": "ComfyUI"})}),
        (),
        _save_image,
        is_output=True,
        description="Saves the input images to your ComfyUI output directory.",
    ),
    NodeClass("PreviewImage", "image", _fixed({"images": _IMAGE}), (), _preview_image, is_output=True),
    NodeClass(
        "SimSleep",
        "simulator",
        _fixed(
            {
                "seconds": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 86400.0}),
                "steps": ("INT", {"default": 4, "min": 1, "max": 10_000}),
            },
            {"image": _IMAGE, "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1})},
        ),
        ("IMAGE",),
        _sim_sleep,
        is_output=True,
        description="Works for so many seconds, with progress and previews.",
    ),
    NodeClass(
        "SimFail",
        "simulator",
        _fixed({}, {"message": ("STRING", {"default": "this node always fails"}), "image": _IMAGE}),
        ("IMAGE",),
        _sim_fail,
        is_output=True,
        description="Raises a RuntimeError.",
    ),
)
NODE_CLASSES: Mapping[str, NodeClass] = {node_class.name: node_class for node_class in _CLASSES}


def described(node_class: NodeClass, folders: Folders) -> dict[str, Any]:
    """The entry of /object_info."""
    specs = node_class.inputs(folders)
    return {
        "input": specs,
        "input_order": {group: list(names) for group, names in specs.items()},
        "output": list(node_class.returns),
        "output_is_list": [False] * len(node_class.returns),
        "output_name": list(node_class.returns),
        "name": node_class.name,
        "display_name": node_class.name,
        "description": node_class.description,
        "python_module": "nodes",
        "category": node_class.category,
        "output_node": node_class.is_output,
    }


def is_link(value: Any) -> bool:
    """Whether an input's value is `[node_id, slot]`, the output of another node."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
    )
