"""The lists of input files inside ``/object_info``, with the user's own files in them wherever these are.

An input that takes uploads bears an option such as ``image_upload: true``. Its list is the input's type (``[["a.png"],
{…}]``) or one of its options (``["COMBO", {"options": ["a.png"], …}]``).
"""

from collections.abc import Collection, Container, Mapping
from typing import Any, Final

from comfy_gateway.core.inputs.spaces import without_spaces

_UPLOAD: Final = "_upload"
_IMAGES: Final = frozenset(
    {"png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif", "ico", "svg", "heic", "heif"}
)
_AUDIO: Final = frozenset({"mp3", "wav", "flac", "ogg", "oga", "opus", "m4a", "aac", "aif", "aiff", "weba"})
_VIDEOS: Final = frozenset({"mp4", "m4v", "webm", "mkv", "mov", "avi", "mpg", "mpeg", "ogv", "ts", "wmv"})
_ENDINGS: Final[Mapping[str, frozenset[str]]] = {
    "image_upload": _IMAGES,
    "animated_image_upload": _IMAGES,
    "audio_upload": _AUDIO | _VIDEOS,
    "video_upload": _VIDEOS,
}
"""What ComfyUI's own nodes list for each flag (0.3.64, ``folder_paths.filter_files_content_types``)."""
_MODELS_FOLDER: Final = "3d/"
"""Load3D lists what lies below this folder; all others list the top of the input folder."""


class _Everything:
    """Every name."""

    def __contains__(self, _name: object) -> bool:
        return True


EVERYTHING: Final = _Everything()


def with_files(
    object_info: Mapping[str, Any],
    names: Collection[str],
    hidden: Container[object] = (),
    *,
    shared: str = "",
    hides_spaces: bool = False,
) -> dict[str, Any]:
    """An answer of ``/object_info`` with ``names`` (paths in the input folder) in every list that they fit into, and
    without ``hidden``. What does not change is shared.

    Names in a subfolder fit in only where that is ``shared``, as ComfyUI lists no others. ``hides_spaces``: the folders
    of users (``core.inputs.spaces``) are in no list at all.
    """
    told = {class_type: _with_lists(node, names, hidden, shared) for class_type, node in object_info.items()}
    if hides_spaces:
        for class_type, node in told.items():
            if isinstance(node, Mapping) and isinstance(node.get("input"), Mapping):
                told[class_type] = {**node, "input": without_spaces(node["input"])}
    return told


def listed_names(object_info: Mapping[str, Any]) -> frozenset[str]:
    """All file names that the lists of upload inputs hold."""
    found: set[str] = set()
    for node in object_info.values():
        for group in _groups(node).values():
            for spec in group.values():
                found.update(name for name in _list_of(spec) or () if isinstance(name, str))
    return frozenset(found)


def _with_lists(node: Any, names: Collection[str], hidden: Container[object], shared: str) -> Any:
    groups = {}
    for group_name, group in _groups(node).items():
        specs = {
            name: new
            for name, spec in group.items()
            if (new := _merged(spec, names, hidden, shared)) is not spec
        }
        if specs:
            groups[group_name] = {**group, **specs}
    return {**node, "input": {**node["input"], **groups}} if groups else node


def _groups(node: Any) -> dict[str, Mapping[str, Any]]:
    inputs = node.get("input") if isinstance(node, Mapping) else None
    if not isinstance(inputs, Mapping):
        return {}
    return {name: group for name, group in inputs.items() if isinstance(group, Mapping)}


def _flag_of(spec: Any) -> str | None:
    """The upload flag of an input that lists the input folder, or None."""
    options = spec[1] if isinstance(spec, list) and len(spec) > 1 else None
    if not isinstance(options, Mapping) or options.get("image_folder", "input") != "input":
        return None
    return next((key for key, value in options.items() if key.endswith(_UPLOAD) and value is True), None)


def _list_of(spec: Any) -> list[Any] | None:
    if _flag_of(spec) is None:
        return None
    told = spec[0] if isinstance(spec[0], list) else spec[1].get("options")
    return told if isinstance(told, list) else None


def _merged(spec: Any, names: Collection[str], hidden: Container[object], shared: str) -> Any:
    flag, told = _flag_of(spec), _list_of(spec)
    if flag is None or told is None:
        return spec
    kept = [name for name in told if name not in hidden]
    new = {name for name in names if _fits(name, flag, told, shared)}.difference(kept)
    if not new and len(kept) == len(told):
        return spec
    merged = [*kept, *sorted(new)]
    if all(isinstance(name, str) for name in kept) and kept == sorted(kept):
        merged.sort()
    if isinstance(spec[0], list):
        return [merged, *spec[1:]]
    return [spec[0], {**spec[1], "options": merged}, *spec[2:]]


def _fits(name: str, flag: str, told: list[Any], shared: str) -> bool:
    if flag == "file_upload":
        return name.startswith(_MODELS_FOLDER)
    if "/" in name and not (shared and name.startswith(f"{shared}/")):
        return False
    ending = _ending(name)
    endings = _ENDINGS.get(flag)
    if endings is None:  # of a custom node: what it lists already says what it takes
        endings = frozenset(_ending(other) for other in told if isinstance(other, str))
    return ending in endings


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name else ""
