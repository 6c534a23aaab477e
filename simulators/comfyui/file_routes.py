"""/view, /upload/image and /upload/mask."""

import asyncio
import io
import json
import mimetypes
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from simulators.comfyui.folders import Folders, below, split_annotation

UNSAFE_TYPES = {"text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css"}


class FileRoutes:
    def __init__(self, folders: Folders) -> None:
        self._folders = folders

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/view", self.view),
            web.post("/upload/image", self.upload_image),
            web.post("/upload/mask", self.upload_mask),
        ]

    async def view(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        if "filename" not in query:
            return web.Response(status=404)
        path = self._existing(query["filename"], query.get("type", "output"), query.get("subfolder", ""))
        disposition = {"Content-Disposition": f'filename="{path.name}"'}
        channel = query.get("channel", "rgba")
        if "preview" in query:
            picture, kind = await asyncio.to_thread(
                _preview, path, query["preview"], query.get("channel", "")
            )
            return web.Response(body=picture, content_type=f"image/{kind}", headers=disposition)
        if channel in ("rgb", "a"):
            picture = await asyncio.to_thread(_only, path, channel)
            return web.Response(body=picture, content_type="image/png", headers=disposition)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        safe = "application/octet-stream" if kind in UNSAFE_TYPES else kind
        return web.FileResponse(path, headers={**disposition, "Content-Type": safe})

    def _existing(self, annotated: str, kind: str, subfolder: str) -> Path:
        """Raises the answer where there is no file: 400 for a bad name or type, 403 outside, 404 else."""
        name, annotation = split_annotation(annotated)
        if not name or name.startswith("/") or ".." in name:
            raise web.HTTPBadRequest(text="")
        root = self._folders.of_type(annotation or kind)
        if root is None:
            raise web.HTTPBadRequest(text="")
        folder = below(root, subfolder)
        if folder is None:
            raise web.HTTPForbidden(text="")
        path = folder / Path(name).name
        if not path.is_file():
            raise web.HTTPNotFound(text="")
        return path

    async def upload_image(self, request: web.Request) -> web.Response:
        return await self._upload(request, lambda body, path, form: path.write_bytes(body))

    async def upload_mask(self, request: web.Request) -> web.Response:
        return await self._upload(request, self._write_masked)

    async def _upload(self, request: web.Request, write: "Writer") -> web.Response:
        post = await request.post()
        image = post.get("image")
        kind = _text(post.get("type")) or "input"
        root = self._folders.of_type(kind)
        if root is None or not isinstance(image, web.FileField) or not image.filename:
            raise web.HTTPBadRequest(text="")
        subfolder = _text(post.get("subfolder"))
        path = below(root, subfolder, image.filename)
        if path is None:
            raise web.HTTPBadRequest(text="")
        overwrite = _text(post.get("overwrite")) in ("true", "1")
        form = {name: value for name, value in post.items() if isinstance(value, str)}
        body = await asyncio.to_thread(image.file.read)
        name = await asyncio.to_thread(
            _stored, path, body, overwrite, lambda body, path: write(body, path, form)
        )
        return web.json_response({"name": name, "subfolder": subfolder, "type": kind})

    def _write_masked(self, body: bytes, path: Path, form: dict[str, str]) -> None:
        """Stores the picture that `original_ref` names, with the uploaded picture's alpha.

        Without such an original nothing is stored and nobody told, as in ComfyUI.
        """
        reference = json.loads(form["original_ref"])
        original = self._existing_or_none(reference)
        if original is None:
            return
        with Image.open(original) as image, Image.open(io.BytesIO(body)) as mask:
            info = PngInfo()
            for key, value in getattr(image, "text", {}).items():
                info.add_text(key, value)
            masked = image.convert("RGBA")
            masked.putalpha(mask.convert("RGBA").getchannel("A"))
            masked.save(path, compress_level=4, pnginfo=info)

    def _existing_or_none(self, reference: dict[str, str]) -> Path | None:
        try:
            return self._existing(
                reference["filename"], reference.get("type", "output"), reference.get("subfolder", "")
            )
        except web.HTTPException:
            return None


type Writer = Callable[[bytes, Path, dict[str, str]], object]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _stored(path: Path, body: bytes, overwrite: bool, write: Callable[[bytes, Path], object]) -> str:
    """The name it has now: `name (1).png` after a clash with other content, else the name itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stem, suffix, number = path.stem, path.suffix, 1
    while not overwrite and path.exists():
        if path.read_bytes() == body:
            return path.name
        path = path.with_name(f"{stem} ({number}){suffix}")
        number += 1
    write(body, path)
    return path.name


def _preview(path: Path, wish: str, channel: str) -> tuple[bytes, str]:
    """`wish` is `webp;90` or `jpeg;80`; returns the picture and its format."""
    words = wish.split(";")
    kind = words[0] if words[0] in ("webp", "jpeg") and "a" not in channel else "webp"
    quality = int(words[-1]) if words[-1].isdecimal() else 90
    with Image.open(path) as image:
        picture: Image.Image = image.convert("RGB") if kind == "jpeg" or channel == "rgb" else image
        buffer = io.BytesIO()
        picture.save(buffer, format=kind, quality=quality)
    return buffer.getvalue(), kind


def _only(path: Path, channel: str) -> bytes:
    """The picture as PNG with its colours only ("rgb"), or its alpha only ("a")."""
    with Image.open(path) as image:
        if channel == "rgb":
            picture = image.convert("RGB")
        else:
            alpha = image.getchannel("A") if image.mode == "RGBA" else Image.new("L", image.size, 255)
            picture = Image.new("RGBA", image.size)
            picture.putalpha(alpha)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
