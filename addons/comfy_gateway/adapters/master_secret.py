"""The gateway's one master secret: made at the first start, read at every other.

Losing it makes the tokens of living pods and the identity cookies worthless, so it is never replaced
silently: a file that cannot be used stops the start.
"""

import os
import secrets
import stat
from pathlib import Path

from comfy_gateway.core.errors import GatewayError
from comfy_gateway.core.keys import MASTER_SECRET_BYTES

_MAX_BYTES = 4096


class MasterSecretUnusable(GatewayError):
    """The start has to stop: the secret's file is unreadable, too short, or cannot be made."""


def load_or_create(state_dir: Path) -> bytes:
    """The content of ``<state_dir>/secrets/master.key``: 32 random bytes, or what an operator put there.

    The folders are made with mode 0700 and the file with 0600; looser modes are tightened. Gateways that
    start at once on the same folder get the same secret. Reads and writes the disk.
    Raises MasterSecretUnusable, which names the file.
    """
    path = state_dir / "secrets" / "master.key"
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _tighten(path.parent, 0o700)
        if not path.exists():
            _create(path)
        _tighten(path, 0o600)
        with path.open("rb") as file:
            secret = file.read(_MAX_BYTES)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise MasterSecretUnusable(f"{path} cannot be used: {reason}") from error
    if len(secret) < MASTER_SECRET_BYTES:
        raise MasterSecretUnusable(
            f"{path} holds {len(secret)} bytes and needs at least {MASTER_SECRET_BYTES}; "
            "bring the old file back, or delete it: living pods and identity cookies are lost then"
        )
    return secret


def _create(path: Path) -> None:
    """Put a complete file in place, or leave the one that another gateway was first to put there.

    Written aside and linked: a file that is opened with O_EXCL at its final name could be read by the other
    gateway while it is still empty.
    """
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(MASTER_SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            return
    finally:
        aside.unlink()


def _tighten(path: Path, mode: int) -> None:
    """Take away every right beyond ``mode``."""
    current = stat.S_IMODE(path.stat().st_mode)
    if current & ~mode:
        path.chmod(current & mode)
