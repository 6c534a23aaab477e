"""What Civitai says about a download (https://developer.civitai.com/site/reference/model-versions)."""

import re
from collections.abc import Mapping
from typing import Any

from yarl import URL

from model_sync.errors import Useless
from model_sync.sources import Published
from model_sync.tokens import HOSTS
from model_sync.web import Web

_DOWNLOAD = re.compile(r"/api/download/models/(\d+)/?")
# Civitai's model types and ComfyUI's folders.
_FOLDERS = {
    "Checkpoint": "checkpoints",
    "LORA": "loras",
    "LoCon": "loras",
    "DoRA": "loras",
    "TextualInversion": "embeddings",
    "VAE": "vae",
    "Controlnet": "controlnet",
    "Upscaler": "upscale_models",
    "Hypernetwork": "hypernetworks",
}


def is_download(url: URL) -> bool:
    return url.host in HOSTS["CIVITAI_TOKEN"] and _DOWNLOAD.fullmatch(url.path) is not None


async def published(url: URL, web: Web) -> Published:
    """Of the file that `url` downloads; `is_download(url)` holds. Raises Passing or Useless.

    The size is not taken: Civitai gives kibibytes, rounded.
    """
    found = _DOWNLOAD.fullmatch(url.path)
    assert found is not None
    said = await web.json(url.origin() / "api/v1/model-versions" / found.group(1))
    if not isinstance(said, Mapping):
        raise Useless(f"{url.host}: no description of version {found.group(1)}")
    file = _file(said.get("files"), url)
    model = said.get("model")
    sha256 = str((file.get("hashes") or {}).get("SHA256", "")).lower()
    return Published(
        url=url,
        sha256=sha256 if re.fullmatch(r"[0-9a-f]{64}", sha256) else None,
        filename=file.get("name"),
        folder=_FOLDERS.get(str(model.get("type"))) if isinstance(model, Mapping) else None,
    )


def _file(files: object, url: URL) -> Mapping[str, Any]:
    """The one that is served: with a query (`?type=…&format=…`) the one of that address, else the primary one."""
    listed = [file for file in files if isinstance(file, Mapping)] if isinstance(files, list) else []
    if url.query:
        return next((file for file in listed if file.get("downloadUrl") == str(url)), {})
    return next((file for file in listed if file.get("primary")), {})
