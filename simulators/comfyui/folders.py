"""Where the server keeps its files, and which names may reach them."""

import os
from dataclasses import dataclass
from pathlib import Path

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
TYPES = ("output", "input", "temp")


@dataclass(frozen=True)
class Folders:
    """Absolute folders, made at start. `temp` and `input` are lost with the server, as on a pod."""

    output: Path
    input: Path
    temp: Path
    user: Path

    def make(self) -> None:
        for folder in (self.output, self.input, self.temp, self.user):
            folder.mkdir(parents=True, exist_ok=True)

    def of_type(self, kind: str) -> Path | None:
        """The folder that `type=output|input|temp` names, or None for another word."""
        return {"output": self.output, "input": self.input, "temp": self.temp}.get(kind)

    def named(self, annotated: str, default: Path) -> Path | None:
        """The file that an input like `b.png` or `b.png [output]` names; None when it leaves its folder."""
        name, kind = split_annotation(annotated)
        return below((self.of_type(kind) if kind else None) or default, name)

    def input_images(self) -> list[str]:
        """Names that LoadImage offers: the images directly in the input folder."""
        return sorted(
            entry.name
            for entry in os.scandir(self.input)
            if entry.is_file() and entry.name.lower().endswith(IMAGE_SUFFIXES)
        )


def split_annotation(name: str) -> tuple[str, str | None]:
    """`b.png [temp]` -> ("b.png", "temp"); a name without an annotation comes back with None."""
    for kind in TYPES:
        if name.endswith(f"[{kind}]"):
            return name[: -len(kind) - 3], kind
    return name, None


def below(root: Path, *parts: str) -> Path | None:
    """The path that the parts name below root, or None when they lead out of it. Root is below root."""
    # Path.resolve would follow links, and out of the folder with them.
    path = os.path.abspath(os.path.join(root, *parts))  # noqa: PTH100, PTH118
    if os.path.commonpath((root, path)) != str(root):
        return None
    return Path(path)
