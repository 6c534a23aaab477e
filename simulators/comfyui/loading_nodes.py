"""Nodes that read files: each has an input that /object_info marks with an upload flag.

Whether the file is there is checked before the prompt is accepted, and nothing else of its name: it may lie in
a subfolder, and end with `[input]`, `[output]` or `[temp]` (nodes.py:1700).
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, ImageSequence

from simulators.comfyui.folders import Folders
from simulators.comfyui.node_class import Images, Inputs, NodeClass, Result, Work

CHANNELS = ["alpha", "red", "green", "blue"]
NO_MASK_PX = (64, 64)


@dataclass(frozen=True)
class Recording:
    """A sound or a film, as far as the simulator understands it."""

    sha256: str


async def _load_image(work: Work, inputs: Inputs) -> Result:
    await work.step()
    path = work.folders.named(inputs["image"])

    def load() -> tuple[Images, Images]:
        images: Images = []
        masks: Images = []
        with Image.open(path) as file:
            for raw in ImageSequence.Iterator(file):
                frame = ImageOps.exif_transpose(raw)
                if images and frame.size != images[0].size:
                    continue
                images.append(frame.convert("RGB"))
                masks.append(_mask_of(frame))
        return images, masks

    return Result(await asyncio.to_thread(load))


def _mask_of(frame: Image.Image) -> Image.Image:
    """What is transparent is white; without transparency a small black one (nodes.py:1671)."""
    if "A" in frame.getbands():
        return ImageOps.invert(frame.getchannel("A"))
    if frame.mode == "P" and "transparency" in frame.info:
        return ImageOps.invert(frame.convert("RGBA").getchannel("A"))
    return Image.new("L", NO_MASK_PX, 0)


async def _load_mask(work: Work, inputs: Inputs) -> Result:
    await work.step()
    path = work.folders.named(inputs["image"])
    wanted = inputs["channel"]

    def load() -> Images:
        with Image.open(path) as file:
            channel = ImageOps.exif_transpose(file).convert("RGBA").getchannel(wanted[0].upper())
        return [ImageOps.invert(channel) if wanted == "alpha" else channel]

    return Result((await asyncio.to_thread(load),))


def _load_recording(name: str) -> Callable[[Work, Inputs], Awaitable[Result]]:
    async def load(work: Work, inputs: Inputs) -> Result:
        await work.step()
        path = work.folders.named(inputs[name])
        return Result((Recording(await asyncio.to_thread(_sha256, path)),))

    return load


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _missing(kind: str) -> Callable[[Folders, Any], str | None]:
    def fault(folders: Folders, value: Any) -> str | None:
        return None if folders.named(value).exists() else f"Invalid {kind} file: {value}"

    return fault


def _digest_of(name: str) -> Callable[[Folders, Inputs], str]:
    return lambda folders, inputs: _sha256(folders.named(inputs[name]))


CLASSES = (
    NodeClass(
        "LoadImage",
        "image",
        lambda shelves: {"required": {"image": (shelves.folders.inputs("image"), {"image_upload": True})}},
        ("IMAGE", "MASK"),
        _load_image,
        display_name="Load Image",
        checked_input="image",
        fault=_missing("image"),
        fingerprint=_digest_of("image"),
    ),
    NodeClass(
        "LoadImageMask",
        "mask",
        lambda shelves: {
            "required": {
                "image": (shelves.folders.inputs(), {"image_upload": True}),
                "channel": (CHANNELS, {}),
            }
        },
        ("MASK",),
        _load_mask,
        display_name="Load Image (as Mask)",
        checked_input="image",
        fault=_missing("image"),
        fingerprint=_digest_of("image"),
    ),
    NodeClass(
        "LoadImageOutput",
        "image",
        lambda shelves: {
            "required": {
                "image": (
                    "COMBO",
                    {
                        "image_upload": True,
                        "image_folder": "output",
                        "remote": {
                            "route": "/internal/files/output",
                            "refresh_button": True,
                            "control_after_refresh": "first",
                        },
                    },
                )
            }
        },
        ("IMAGE", "MASK"),
        _load_image,
        display_name="Load Image (from Outputs)",
        description="Load an image from the output folder.",
        checked_input="image",
        fault=_missing("image"),
        fingerprint=_digest_of("image"),
        more={"experimental": True},
    ),
    NodeClass(
        "LoadAudio",
        "audio",
        lambda shelves: {
            "required": {"audio": (shelves.folders.inputs("audio", "video"), {"audio_upload": True})}
        },
        ("AUDIO",),
        _load_recording("audio"),
        display_name="Load Audio",
        checked_input="audio",
        fault=_missing("audio"),
        fingerprint=_digest_of("audio"),
    ),
    NodeClass(
        "LoadVideo",
        "image/video",
        # Described in the newer form already in 0.3.64 (comfy_extras/nodes_video.py:178).
        lambda shelves: {
            "required": {
                "file": (
                    "COMBO",
                    {"multiselect": False, "options": shelves.folders.inputs("video"), "video_upload": True},
                )
            }
        },
        ("VIDEO",),
        _load_recording("file"),
        display_name="Load Video",
        checked_input="file",
        fault=_missing("video"),
        fingerprint=lambda folders, inputs: folders.named(inputs["file"]).stat().st_mtime,
    ),
)
