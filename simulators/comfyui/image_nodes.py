"""Nodes that make and change pictures."""

import asyncio
from typing import Any

from PIL import Image, ImageOps

from simulators.comfyui.node_class import IMAGE, Images, Inputs, InputSpec, NodeClass, Result, Work, fixed

MOST_PX = 16384
SCALE_METHODS = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


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


async def _mask_to_image(work: Work, inputs: Inputs) -> Result:
    await work.step()
    masks: Images = inputs["mask"]
    return Result(([mask.convert("RGB") for mask in masks],))


def _pixels(least: int) -> InputSpec:
    return ("INT", {"default": 512, "min": least, "max": MOST_PX, "step": 1})


_COLOUR: dict[str, Any] = {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}

CLASSES = (
    NodeClass(
        "EmptyImage",
        "image",
        fixed(
            {
                "width": _pixels(1),
                "height": _pixels(1),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 4096}),
                "color": ("INT", _COLOUR),
            }
        ),
        ("IMAGE",),
        _empty_image,
    ),
    NodeClass(
        "ImageScale",
        "image/upscaling",
        fixed(
            {
                "image": IMAGE,
                "upscale_method": (list(SCALE_METHODS), {}),
                "width": _pixels(0),
                "height": _pixels(0),
                "crop": (["disabled", "center"], {}),
            }
        ),
        ("IMAGE",),
        _image_scale,
        display_name="Upscale Image",
    ),
    NodeClass(
        "ImageInvert",
        "image",
        fixed({"image": IMAGE}),
        ("IMAGE",),
        _image_invert,
        display_name="Invert Image",
    ),
    NodeClass(
        "MaskToImage",
        "mask",
        fixed({"mask": ("MASK", {})}),
        ("IMAGE",),
        _mask_to_image,
        display_name="Convert Mask to Image",
    ),
)
