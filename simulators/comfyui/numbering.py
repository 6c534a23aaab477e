"""How saved files are named: `<prefix>_00001_.png`, counting on from what lies in the folder."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from simulators.comfyui.folders import below


@dataclass(frozen=True)
class Series:
    """`folder` exists; `subfolder` is its name below the root, "" for the root itself."""

    folder: Path
    stem: str
    next_number: int
    subfolder: str

    def filename(self, index: int, suffix: str) -> str:
        """The name of the index-th file that is saved at once."""
        return f"{self.stem.replace('%batch_num%', str(index))}_{self.next_number + index:05}_{suffix}"


def series(root: Path, prefix: str, size_px: tuple[int, int] = (0, 0)) -> Series:
    """Where the next file with this prefix goes (folder_paths.py:361, get_save_image_path).

    A prefix with a slash names a subfolder; %width%, %height% and the parts of the date are filled in. As in
    the original an empty prefix, or one that ends with a slash, always begins at 1 and overwrites.
    Raises PermissionError for a prefix that leads out of root.
    """
    prefix = _filled_in(prefix, size_px)
    clean = os.path.normpath(prefix)
    subfolder, stem = os.path.split(clean)
    folder = below(root, subfolder)
    if folder is None:
        raise PermissionError("**** ERROR: Saving image outside the output folder is not allowed.")
    folder.mkdir(parents=True, exist_ok=True)
    length = len(os.path.basename(prefix))  # noqa: PTH119 - of the prefix as it was told, see above
    taken = [path.name for path in folder.iterdir() if path.name[: length + 1] == f"{stem}_"]
    numbers = [_number(name[length + 1 :]) for name in taken]
    return Series(folder, stem, max(numbers, default=0) + 1, subfolder)


def _number(rest: str) -> int:
    try:
        return int(rest.partition("_")[0])
    except ValueError:
        return 0


def _filled_in(prefix: str, size_px: tuple[int, int]) -> str:
    if "%" not in prefix:
        return prefix
    now = time.localtime()
    for name, value in {
        "width": str(size_px[0]),
        "height": str(size_px[1]),
        "year": str(now.tm_year),
        "month": f"{now.tm_mon:02}",
        "day": f"{now.tm_mday:02}",
        "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}",
        "second": f"{now.tm_sec:02}",
    }.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix
