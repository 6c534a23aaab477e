"""Pictures that tell which server made them: the same file name on two servers is a different picture."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from simulators.comfyui.numbering import series

STAMP_PX = 16
TEXT_FROM_PX = 96


def stamped(image: Image.Image, server: str, number: int) -> Image.Image:
    """A copy whose upper left corner has a colour made of server and number; large ones also say both."""
    picture = image.convert("RGB")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, STAMP_PX - 1, STAMP_PX - 1), fill=colour_of(f"{server}/{number}"))
    if picture.width >= TEXT_FROM_PX and picture.height >= STAMP_PX:
        draw.text(
            (STAMP_PX + 4, 2),
            f"{server} {number}",
            fill=(255, 255, 255),
            stroke_width=1,
            stroke_fill=(0, 0, 0),
        )
    return picture


def colour_of(text: str) -> tuple[int, int, int]:
    """A colour for a text: another text has another one, nearly always."""
    red, green, blue = hashlib.sha256(text.encode()).digest()[:3]
    return red, green, blue


def save_numbered(
    images: list[Image.Image], root: Path, prefix: str, server: str, metadata: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Writes the images as PNG with the metadata as text in them (nodes.py:1588); see numbering.series.

    Returns (filename, subfolder) of each.
    """
    place = series(root, prefix, images[0].size)
    info = PngInfo()
    for key, value in metadata.items():
        info.add_text(key, json.dumps(value))
    saved = []
    for index, image in enumerate(images):
        filename = place.filename(index, ".png")
        picture = stamped(image, server, place.next_number + index)
        picture.save(place.folder / filename, pnginfo=info, compress_level=1)
        saved.append((filename, place.subfolder))
    return saved


def preview_bytes(image: Image.Image, most_px: int = 512) -> bytes:
    small = image.convert("RGB")
    small.thumbnail((most_px, most_px))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()
