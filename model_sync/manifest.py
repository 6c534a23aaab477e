"""The manifest as read: a list of entries, each of them one file (or, in ComfyUI-Manager's lists, one repository)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from model_sync import addresses, manager_list, names
from model_sync.errors import BadManifest, SyncError

SCHEMA = Path(__file__).parent / "manifest.schema.json"
DEFAULT_GROUP = "base"


@dataclass(frozen=True)
class Entry:
    """One file. `sha256` is lower case; it and `size_bytes` are None where nobody published them.

    `about_bytes` is the rounded size of ComfyUI-Manager's lists, good for an estimate only.
    `labels` are what `--group` may name: the group, and the family ("SD1.5") of ComfyUI-Manager's lists.
    `repository` is "owner/name" where the entry stands for all files of a Hugging Face repository below `path`.
    """

    name: str
    path: str
    urls: tuple[str, ...]
    sha256: str | None = None
    size_bytes: int | None = None
    about_bytes: int | None = None
    group: str = DEFAULT_GROUP
    labels: frozenset[str] = frozenset({DEFAULT_GROUP})
    optional: bool = False
    repository: str | None = None


@dataclass(frozen=True)
class Manifest:
    """`set_aside` holds one line for each entry of a foreign list that cannot lie below a models folder."""

    entries: tuple[Entry, ...]
    set_aside: tuple[str, ...] = ()

    def selected(self, groups: frozenset[str], *, everything: bool, optional: bool) -> tuple[Entry, ...]:
        """In the manifest's order, what is required first. Raises BadManifest for a group that no entry has."""
        known = {label for entry in self.entries for label in entry.labels}
        if unknown := sorted(groups - known):
            raise BadManifest(
                [f"no entry has the group {', '.join(unknown)}; there is {', '.join(sorted(known))}"]
            )
        chosen = [entry for entry in self.entries if everything or entry.labels & groups]
        required = [entry for entry in chosen if not entry.optional]
        return (*required, *(entry for entry in chosen if entry.optional and optional))


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def load(file: Path) -> Manifest:
    """Raises BadManifest with a line for each fault, naming the entry."""
    return parsed(load_json(file), where=str(file))


def load_json(file: Path) -> dict[str, Any]:
    """The document, valid by the schema. Raises BadManifest."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadManifest([f"{file}: {error.strerror or type(error).__name__}"]) from error
    except ValueError as error:
        raise BadManifest([f"{file}: no JSON: {error}"]) from error
    if faults := [
        f"{file}: {fault.json_path}: {_reason(fault)}" for fault in _validator().iter_errors(document)
    ]:
        raise BadManifest(faults)
    assert isinstance(document, dict)
    return document


def _reason(fault: Any) -> str:
    """The innermost reason: "is not valid under any of the given schemas" helps nobody."""
    inner = best_match([fault])
    return str((inner or fault).message)[:300]


def parsed(document: Mapping[str, Any], *, where: str = "manifest") -> Manifest:
    """`document` is valid by the schema. Raises BadManifest for paths and addresses that no schema can judge."""
    entries: list[Entry] = []
    set_aside: list[str] = []
    faults: list[str] = []
    seen: dict[str, str] = {}
    for number, model in enumerate(document["models"]):
        try:
            entry = _own(model) if "path" in model else _managers(model)
            if entry is None:
                set_aside.append(f"{model.get('name', model['filename'])}: lies outside the models folder")
                continue
            names.checked(entry.path)
            for url in entry.urls:
                addresses.read(url)
        except SyncError as error:
            faults.append(f"{where}: $.models[{number}]: {error}")
            continue
        key = names.same_file_key(entry.path)
        if key in seen:
            faults.append(f"{where}: $.models[{number}]: path {entry.path!r} is also that of {seen[key]!r}")
        seen[key] = entry.name
        entries.append(entry)
    for key, name in seen.items():
        if parent := next((seen[above] for above in _folders_of(key) if above in seen), None):
            faults.append(f"{where}: {name!r} would lie in a folder that is the file of {parent!r}")
    if faults:
        raise BadManifest(faults)
    return Manifest(tuple(entries), tuple(set_aside))


def _folders_of(key: str) -> list[str]:
    segments = key.split("/")
    return ["/".join(segments[:length]) for length in range(1, len(segments))]


def _sha256(model: Mapping[str, Any]) -> str | None:
    return str(model["sha256"]).lower() if model.get("sha256") else None


def _own(model: Mapping[str, Any]) -> Entry:
    group = model.get("group", DEFAULT_GROUP)
    return Entry(
        name=model.get("name", model["path"].rsplit("/", maxsplit=1)[-1]),
        path=model["path"],
        urls=tuple(model["urls"]),
        sha256=_sha256(model),
        size_bytes=model.get("size_bytes"),
        group=group,
        labels=frozenset({group}),
        optional=model.get("optional", False),
    )


def _managers(model: Mapping[str, Any]) -> Entry | None:
    folder = manager_list.folder(model.get("save_path", "default"), model.get("type", ""))
    if folder is None:
        return None
    group = model.get("group", DEFAULT_GROUP)
    whole = manager_list.repository(model["filename"], model["url"])
    name = model["filename"] if whole is None else whole.rsplit("/", maxsplit=1)[-1]
    return Entry(
        name=model.get("name", name),
        path=f"{folder}/{name}",
        urls=() if whole else (model["url"],),
        sha256=_sha256(model),
        size_bytes=model.get("size_bytes"),
        about_bytes=manager_list.rounded_size_bytes(model.get("size", "")),
        group=group,
        labels=frozenset({group, model["base"]} if model.get("base") else {group}),
        optional=model.get("optional", False),
        repository=whole,
    )
