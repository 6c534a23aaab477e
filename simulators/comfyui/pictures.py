"""Pictures that tell which server made them: the same file name on two servers is a different picture."""

import hashlib
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from simulators.comfyui.folders import below

STAMP_PX = 16
TEXT_FROM_PX = 96


def stamped(image: Image.Image, server: str, number: int) -> Image.Image:
    """A copy whose upper left corner has a colour made of server and number; large ones also say both."""
    picture = image.convert("RGB")
    red, green, blue = hashlib.sha256(f"{server}/{number}".encode()).digest()[:3]
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, STAMP_PX - 1, STAMP_PX - 1), fill=(red, green, blue))
    if picture.width >= TEXT_FROM_PX and picture.height >= STAMP_PX:
        draw.text(
            (STAMP_PX + 4, 2),
            f"{server} {number}",
            fill=(255, 255, 255),
            stroke_width=1,
            stroke_fill=(0, 0, 0),
        )
    return picture


def save_numbered(
    images: list[Image.Image], root: Path, prefix: str, server: str, metadata: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Writes `<prefix>_00001_.png`, … below root, counting on from what lies there.

    Returns (filename, subfolder) of each.
    A prefix with a slash names a subfolder; %width% and the date placeholders are filled in.
    Raises PermissionError for a prefix that leads out of root.
    """
    prefix = _filled_in(prefix, images[0])
    path = below(root, prefix)
    if path is None or path == root:
        raise PermissionError("**** ERROR: Saving image outside the output folder is not allowed.")
    path.parent.mkdir(parents=True, exist_ok=True)
    subfolder = path.parent.relative_to(root).as_posix()
    number = _next_number(path.parent, path.name)
    info = PngInfo()
    for key, value in metadata.items():
        info.add_text(key, json.dumps(value))
    saved = []
    for batch_number, image in enumerate(images):
        filename = f"{path.name.replace('%batch_num%', str(batch_number))}_{number:05}_.png"
        stamped(image, server, number).save(path.parent / filename, pnginfo=info, compress_level=1)
        saved.append((filename, "" if subfolder == "." else subfolder))
        number += 1
    return saved


def preview_bytes(image: Image.Image, most_px: int = 512) -> bytes:
    small = image.convert("RGB")
    small.thumbnail((most_px, most_px))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


def _filled_in(prefix: str, image: Image.Image) -> str:
    if "%" not in prefix:
        return prefix
    now = time.localtime()
    for name, value in {
        "width": str(image.width),
        "height": str(image.height),
        "year": str(now.tm_year),
        "month": f"{now.tm_mon:02}",
        "day": f"{now.tm_mday:02}",
        "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}",
        "second": f"{now.tm_sec:02}",
    }.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix


def _next_number(folder: Path, name: str) -> int:
    taken = [0]
    for entry in folder.iterdir():
        if entry.name.startswith(f"{name}_"):
            digits = entry.name[len(name) + 1 :].split("_")[0]
            taken.append(int(digits) if digits.isdecimal() else 0)
    return max(taken) + 1
