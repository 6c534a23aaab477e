"""``config/users.yaml``: who signs in by a token."""

import logging
import stat
from pathlib import Path
from typing import Final

import yaml

from comfy_gateway.core.people.accounts import Accounts, AccountsUnreadable

logger = logging.getLogger(__name__)

MAX_BYTES: Final = 4 * 1024 * 1024


class UsersFile:
    """Implements ``core.people.sign_in.AccountFile``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def version(self) -> object:
        """Changes with every write; None while there is no file."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def read(self) -> Accounts:
        """All accounts. A file that others may read is made its owner's alone.

        Raises AccountsUnreadable, which names the file, and OSError.
        """
        try:
            self._tighten()
            with self._path.open("rb") as file:
                text = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return Accounts()
        if len(text) > MAX_BYTES:
            raise AccountsUnreadable(f"{self._path} has more than {MAX_BYTES} bytes")
        try:
            return Accounts.parse(yaml.safe_load(text))
        except AccountsUnreadable as error:
            raise AccountsUnreadable(f"{self._path}: {error}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            # The parser's own words quote the line, which may hold a hash.
            mark = getattr(error, "problem_mark", None)
            line = "" if mark is None else f", line {mark.line + 1}"
            raise AccountsUnreadable(f"{self._path}{line}: this is no YAML") from None

    def _tighten(self) -> None:
        mode = stat.S_IMODE(self._path.stat().st_mode)
        if not mode & 0o077:
            return
        try:
            self._path.chmod(mode & 0o700)
        except OSError:
            logger.warning(
                "%s can be read by others (mode %04o), and that cannot be changed", self._path, mode
            )
        else:
            logger.warning("%s could be read by others (mode %04o); now it cannot", self._path, mode)
