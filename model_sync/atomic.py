"""Small files that are either the old or the new one, whatever is interrupted."""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path


def write_json(
    path: Path, content: Mapping[str, object], *, indent: int | None = None, durable: bool = True
) -> None:
    """Replaces `path`. With `durable` it is on the disk when this returns."""
    # A name of its own: two processes may write the same record.
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=indent, ensure_ascii=False)
            file.write("\n")
            if durable:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames in `folder` survive a loss of power, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except (PermissionError, IsADirectoryError):  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems cannot; the rename itself has happened
        return
    finally:
        os.close(descriptor)
