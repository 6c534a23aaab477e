"""`add URL`: an entry for the manifest, with what the publisher says about the file."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from filelock import FileLock
from yarl import URL

from model_sync import addresses, atomic, civitai, hugging_face, manifest, names
from model_sync.errors import BadManifest, BadSetting, Passing, SourceError
from model_sync.sources import Published, Source
from model_sync.tokens import Tokens
from model_sync.web import Web


async def published(url: URL, source: Source, web: Web, tokens: Tokens) -> Published:
    """What is known of the file without fetching it: its head, and the publisher's own word where there is one.

    Raises Passing or Useless when nothing answers at that address.
    """
    if hugging_face.is_hub(url):
        with suppress(Passing):
            said = await hugging_face.published(url, tokens)
            # Into the manifest goes the address that people know, not that of today's commit.
            return Published(hugging_face.file_url(url), said.size_bytes, said.sha256, said.filename)
        url = hugging_face.file_url(url)
    said = Published(url)
    if civitai.is_download(url):
        with suppress(SourceError):
            said = await civitai.published(url, web)
    async with source.open(url, offset=0, only_if=None) as answer:
        filename = said.filename or answer.filename or unquote(url.name)
        return Published(url, answer.total_bytes, said.sha256, filename, said.folder)


def entry(
    said: Published,
    *,
    path: str | None,
    folder: str | None,
    name: str | None,
    sha256: str | None,
    group: str,
    optional: bool,
) -> dict[str, Any]:
    """As it stands in the manifest. Raises BadSetting when nobody says where the file belongs, UnsafePath."""
    if path is None:
        folder = folder or said.folder
        if folder is None or not said.filename:
            raise BadSetting("say where it belongs: --path checkpoints/x.safetensors or --folder checkpoints")
        path = f"{folder.strip('/')}/{said.filename}"
    found: dict[str, Any] = {
        "name": name or Path(path).stem,
        "path": names.checked(path),
        "urls": [str(said.url)],
    }
    if sha256 or said.sha256:
        found["sha256"] = sha256 or said.sha256
    if said.size_bytes is not None:
        found["size_bytes"] = said.size_bytes
    return {**found, "group": group, "optional": optional}


def write(file: Path, added: dict[str, Any]) -> bool:
    """Adds to the manifest, which is made if need be, or replaces the entry of the same path. Blocking.

    True if there was one. What the manifest holds besides stays as it is. Raises BadManifest.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock"), timeout=30):
        document: dict[str, Any] = {"version": 1, "models": []}
        if file.exists():
            document = manifest.load_json(file)
        models = document["models"]
        key = names.same_file_key(added["path"])
        at = next(
            (n for n, model in enumerate(models) if names.same_file_key(model.get("path", "")) == key), None
        )
        if at is None:
            models.append(added)
        else:
            models[at] = added
        # What would not be read again is not written.
        manifest.parsed(json.loads(json.dumps(document)), where=str(file))
        atomic.write_json(file, document, indent=2)
    return at is not None


def read(text: str) -> URL:
    """Raises BadManifest where `text` is no address to fetch from."""
    try:
        return addresses.read(text)
    except SourceError as error:
        raise BadManifest([str(error)]) from error
