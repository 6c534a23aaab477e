"""/upload/image and /upload/mask (server.py:327 to :423).

What the original answers with 500, because it never thought of it, is 500 here as well: a type that is none of
the three, and a field `image` that is no file.
"""

import asyncio
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, web
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from simulators.comfyui.folders import Folders, below
from simulators.comfyui.view_routes import existing

type Form = Mapping[str, Any]
"""Texts, and files as ``Uploaded``."""
type Writer = Callable[[bytes, Path, Form], object]


@dataclass(frozen=True)
class Uploaded:
    """A part of a form that has a file name."""

    filename: str
    body: bytes


class UploadRoutes:
    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        # The original stores on its event loop: of two uploads of one name the second sees the first.
        self._one_at_a_time = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/upload/image", self.upload_image),
            web.post("/upload/mask", self.upload_mask),
        ]

    async def upload_image(self, request: web.Request) -> web.Response:
        return await self._upload(request, lambda body, path, form: path.write_bytes(body))

    async def upload_mask(self, request: web.Request) -> web.Response:
        return await self._upload(request, self._write_masked)

    async def _upload(self, request: web.Request, write: Writer) -> web.Response:
        form = await _form_of(request)
        image, kind = form.get("image"), form.get("type", "input")
        root = self._folders.of_type(kind)
        if root is None:
            raise web.HTTPInternalServerError(text="")
        if not image:
            raise web.HTTPBadRequest(text="")
        if not isinstance(image, Uploaded):
            raise web.HTTPInternalServerError(text="")
        subfolder = form.get("subfolder", "")
        path = below(root, subfolder, image.filename)
        if path is None:
            raise web.HTTPBadRequest(text="")
        async with self._one_at_a_time:
            name = await self._folders.write(_stored, root, subfolder, image, form, write)
        return web.json_response({"name": name, "subfolder": subfolder, "type": kind})

    def _write_masked(self, body: bytes, path: Path, form: Form) -> None:
        """Stores the picture that `original_ref` names, with the uploaded picture's alpha.

        Without such an original nothing is stored and nobody told, as in ComfyUI.
        """
        reference = json.loads(form["original_ref"])
        try:
            original = existing(
                self._folders,
                reference["filename"],
                reference.get("type", "output"),
                reference.get("subfolder", ""),
            )
        except web.HTTPException:
            return
        with Image.open(original) as image, Image.open(io.BytesIO(body)) as mask:
            info = PngInfo()
            for key, value in getattr(image, "text", {}).items():
                info.add_text(key, value)
            masked = image.convert("RGBA")
            masked.putalpha(mask.convert("RGBA").getchannel("A"))
            masked.save(path, compress_level=4, pnginfo=info)


async def _form_of(request: web.Request) -> Form:
    """The first value of each name. ``request.post()`` would leave its files open when the client breaks off."""
    form: dict[str, Any] = {}
    if not request.content_type.startswith("multipart/"):
        return await request.post()
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader)
        if part.name is None:
            raise ValueError("a part without a name")
        body = bytes(await part.read(decode=True))
        form.setdefault(part.name, Uploaded(part.filename, body) if part.filename else body.decode())
    return form


def _stored(root: Path, subfolder: str, upload: Uploaded, form: Form, write: Writer) -> str:
    """The name it has now: `name (1).png` after a clash with other content, else the name itself.

    Content is compared with what was uploaded: a mask, stored as part of a picture, never equals itself.
    """
    folder = root / os.path.normpath(subfolder)
    folder.mkdir(parents=True, exist_ok=True)
    filename, body = upload.filename, upload.body
    stem, suffix = os.path.splitext(filename)  # noqa: PTH122 - of the whole name, a folder in it included
    name, number = filename, 1
    while form.get("overwrite") not in ("true", "1") and (folder / name).exists():
        if (folder / name).read_bytes() == body:
            return name
        name = f"{stem} ({number}){suffix}"
        number += 1
    write(body, folder / name, form)
    return name
