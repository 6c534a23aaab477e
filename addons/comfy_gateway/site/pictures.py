"""``preview=`` and ``channel=`` of ``/view``, as ComfyUI renders them (0.3.64, ``server.py``).

``preview`` is ``webp;90`` or ``jpeg;80``: the picture in that format and quality. ``channel=rgb`` is the picture
without its alpha, ``channel=a`` its alpha alone. What is no picture, and what has too many pixels to be taken into this
process, is sent as it is.
"""

import asyncio
import io
import logging
from collections.abc import Callable, Mapping
from typing import BinaryIO, Final

from aiohttp import web
from PIL import Image, UnidentifiedImageError

from comfy_gateway.site.file_headers import disposition

logger = logging.getLogger(__name__)

MAX_PIXELS: Final = 2**25
USUAL_QUALITY: Final = 90


def wants_rendering(query: Mapping[str, str]) -> bool:
    """Whether the query asks for something else than the file."""
    return "preview" in query or query.get("channel") in {"rgb", "a"}


class Pictures:
    """Renders one at a time: a picture of so many pixels takes some hundred MB meanwhile."""

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        self._max_pixels = max_pixels
        self._slot = asyncio.Semaphore(1)

    async def rendered(
        self, opened: Callable[[], BinaryIO], filename: str, query: Mapping[str, str]
    ) -> web.Response | None:
        """What the query asks for, or None where the file itself is to be sent.

        ``opened`` is called in a thread, and what it returns is closed there. Raises what it raises.
        """
        if not wants_rendering(query):
            return None
        async with self._slot:
            found = await asyncio.to_thread(_render, opened, dict(query), self._max_pixels)
        if found is None:
            return None
        body, kind = found
        headers = {"Content-Disposition": disposition(filename)}
        return web.Response(body=body, content_type=kind, headers=headers)


def _render(
    opened: Callable[[], BinaryIO], query: Mapping[str, str], max_pixels: int
) -> tuple[bytes, str] | None:
    with opened() as file:
        try:
            with Image.open(file) as image:
                if image.width * image.height > max_pixels:
                    return None
                return _previewed(image, query) if "preview" in query else _channel(image, query["channel"])
        except (
            UnidentifiedImageError,
            Image.DecompressionBombError,
            Image.DecompressionBombWarning,
            OSError,
            ValueError,
            SyntaxError,  # Pillow's word for a broken PNG
        ) as error:
            logger.info("a kept file is not rendered: %s", type(error).__name__)
            return None


def _previewed(image: Image.Image, query: Mapping[str, str]) -> tuple[bytes, str]:
    words, channel = query["preview"].split(";"), query.get("channel", "")
    kind = words[0] if words[0] in {"webp", "jpeg"} and "a" not in channel else "webp"
    quality = min(int(words[-1]), 100) if words[-1].isdecimal() and len(words[-1]) < 4 else USUAL_QUALITY
    picture = image.convert("RGB") if kind == "jpeg" or channel == "rgb" else image
    return _written(picture, kind, quality), f"image/{kind}"


def _channel(image: Image.Image, channel: str) -> tuple[bytes, str]:
    if channel == "rgb":
        return _written(image.convert("RGB"), "png"), "image/png"
    alpha = image.getchannel("A") if image.mode == "RGBA" else Image.new("L", image.size, 255)
    picture = Image.new("RGBA", image.size)
    picture.putalpha(alpha)
    return _written(picture, "png"), "image/png"


def _written(picture: Image.Image, kind: str, quality: int | None = None) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **({} if quality is None else {"quality": quality}))
    return buffer.getvalue()
