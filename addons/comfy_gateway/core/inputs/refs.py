"""Input files that a prompt names, and other names put in their place.

ComfyUI reads an input's text by its end (0.3.64, ``folder_paths.annotated_filepath``): ``a.png [output]`` is a file
of the output folder, ``[temp]`` and ``[input]`` alike, and a text without such an end names a file of the input
folder. Which inputs hold such texts is told by the upload flags of ``/object_info``. Beside those, nodes for 3D models,
webcams and recorders hold texts that always bear an annotation, some within an object.
"""

import posixpath
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from unicodedata import category

from comfy_gateway.core.files.files import FileName

FOLDERS: Final = ("input", "output", "temp")
_ANNOTATIONS: Final = tuple(f"[{folder}]" for folder in FOLDERS)
_MOST_PATH_BYTES: Final = 1024
_MOST_NAME_BYTES: Final = 255
_UNWRITABLE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Controls, halves of characters, and line ends."""
_NUMBERS: Final = re.compile(r"(?: \([0-9]+\))+\Z")
_LIKE_A_FILE: Final = re.compile(r"\.[^./\s]{1,12}(?:.\[(?:input|output|temp)\])?\s*\Z", re.DOTALL)
_MOST_NESTING: Final = 2
"""Objects within an input's value in which annotated texts are looked for: Load3D needs one."""

UploadInputs = Callable[[str], Collection[str]]
"""The names of a node class' inputs that bear an upload flag; empty for an unknown class."""


@dataclass(frozen=True, slots=True)
class InputRef:
    """A file that a prompt names."""

    file: FileName
    """In the one form that ``canonical`` gives it."""
    is_annotated: bool
    """The text ends with the folder's annotation, so the node reads annotations."""


def canonical(file: FileName) -> FileName | None:
    """The file with all folders of its path in ``subfolder``, so that equal files are equal.

    None for what is never carried: a path that leaves its folder or could be read in two ways, control characters,
    and unknown folders.
    """
    parts = [part for part in file.path.split("/") if part not in {"", "."}]
    if not parts or file.path.startswith("/") or file.type not in FOLDERS:
        return None
    if not all(_is_ordinary(part) for part in parts):
        return None
    if sum(len(part.encode()) + 1 for part in parts) > _MOST_PATH_BYTES:
        return None
    return FileName(parts[-1], "/".join(parts[:-1]), file.type)


def read(text: str) -> InputRef | None:
    """The file that an input's text names, or None when it names none that is carried."""
    folder, path, is_annotated = "input", text, False
    for name, annotation in zip(FOLDERS, _ANNOTATIONS, strict=True):
        if text.endswith(annotation):
            # The character before the annotation goes as well, whatever it is.
            folder, path, is_annotated = name, text[: -len(annotation) - 1], True
    file = canonical(FileName(path, type=folder)) if path else None
    return None if file is None else InputRef(file, is_annotated)


def written(file: FileName, *, is_annotated: bool) -> str:
    """The text that names the file. An annotation that is needed is written even where it was not wished."""
    if file.type == "input" and not is_annotated and not file.path.endswith(_ANNOTATIONS):
        return file.path
    return f"{file.path} [{file.type}]"


def refs_in(document: Mapping[str, Any], upload_inputs: UploadInputs) -> tuple[InputRef, ...]:
    """Every file that the prompt in the body of ``POST /prompt`` names, each once, in order."""
    found: dict[InputRef, None] = {}

    def note(ref: InputRef) -> str | None:
        found[ref] = None
        return None

    with_refs(document, upload_inputs, note)
    return tuple(found)


def with_refs(
    document: Mapping[str, Any], upload_inputs: UploadInputs, renamed: Callable[[InputRef], str | None]
) -> Mapping[str, Any]:
    """The body with another text wherever ``renamed`` gives one. What does not change is shared, not copied; the very
    same object comes back when nothing does.
    """
    prompt = document.get("prompt")
    if not isinstance(prompt, Mapping):
        return document
    changed = {}
    for node_id, node in prompt.items():
        inputs = node.get("inputs") if isinstance(node, Mapping) else None
        class_type = node.get("class_type") if isinstance(node, Mapping) else None
        if not isinstance(inputs, Mapping) or not isinstance(class_type, str):
            continue
        flagged = upload_inputs(class_type)
        news = {}
        for name, value in inputs.items():
            new = _visited(value, name in flagged, renamed, _MOST_NESTING)
            if new is not value:
                news[name] = new
        if news:
            changed[node_id] = {**node, "inputs": {**inputs, **news}}
    return {**document, "prompt": {**prompt, **changed}} if changed else document


def strays_in(document: Mapping[str, Any], upload_inputs: UploadInputs) -> Iterator[str]:
    """Texts that name a file by a path which is never carried: one that may lead out of its folder, and the like."""
    prompt = document.get("prompt")
    for node in prompt.values() if isinstance(prompt, Mapping) else ():
        inputs = node.get("inputs") if isinstance(node, Mapping) else None
        class_type = node.get("class_type") if isinstance(node, Mapping) else None
        if not isinstance(inputs, Mapping):
            continue
        flagged = upload_inputs(class_type) if isinstance(class_type, str) else ()
        for name, value in inputs.items():
            for text in _texts_in(value, _MOST_NESTING):
                names_file = name in flagged or text.endswith(_ANNOTATIONS)
                if names_file and text.strip() and read(text) is None:
                    yield text


def may_name_files(document: Mapping[str, Any]) -> bool:
    """Whether some text among a prompt's inputs looks like the name of a file, whatever node it is for."""
    prompt = document.get("prompt")
    for node in prompt.values() if isinstance(prompt, Mapping) else ():
        inputs = node.get("inputs") if isinstance(node, Mapping) else None
        for value in inputs.values() if isinstance(inputs, Mapping) else ():
            if any(_LIKE_A_FILE.search(text) for text in _texts_in(value, _MOST_NESTING)):
                return True
    return False


def numbered(file: FileName) -> Iterator[FileName]:
    """The file, then the names that ComfyUI tries when it is there with other content: ``a (1).png`` …"""
    yield file
    stem, ending = posixpath.splitext(file.filename)
    number = 1
    while True:
        yield FileName(f"{stem} ({number}){ending}", file.subfolder, file.type)
        number += 1


def first_of_numbered(file: FileName) -> FileName:
    """What ``numbered`` began with to give this name: the same for all names that may clash with one another."""
    stem, ending = posixpath.splitext(file.filename)
    return FileName(_NUMBERS.sub("", stem) + ending, file.subfolder, file.type)


def _is_ordinary(part: str) -> bool:
    if part == ".." or "\\" in part:
        return False
    # Screenshots of macOS bear a narrow no-break space, emoji are joined by marks: neither counts as printable.
    is_text = part.isprintable() or not any(category(letter) in _UNWRITABLE for letter in part)
    return is_text and len(part.encode()) <= _MOST_NAME_BYTES


def _visited(
    value: Any, is_flagged: bool, renamed: Callable[[InputRef], str | None], most_nesting: int
) -> Any:
    if isinstance(value, str):
        if not is_flagged and not value.endswith(_ANNOTATIONS):
            return value
        ref = read(value)
        new = None if ref is None else renamed(ref)
        return value if new is None else new
    if not most_nesting:
        return value
    if isinstance(value, Mapping):  # {"__value__": […]} is how a list that is no link is sent
        news = {}
        for key, item in value.items():
            new = _visited(item, is_flagged, renamed, most_nesting - 1)
            if new is not item:
                news[key] = new
        return {**value, **news} if news else value
    if isinstance(value, list) and is_flagged and not _is_link(value):
        items = [_visited(item, is_flagged, renamed, most_nesting - 1) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def _texts_in(value: Any, most_nesting: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif (
        most_nesting
        and isinstance(value, Mapping | list)
        and not (isinstance(value, list) and _is_link(value))
    ):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts_in(item, most_nesting - 1)


def _is_link(value: list[Any]) -> bool:
    """``[node id, number of its output]`` (``comfy_execution.graph_utils.is_link``)."""
    return len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
