"""Whose files the shared servers have: the files of everybody whose prompt has named them.

ComfyUI answers a node from its cache with the file of an earlier run, so one file can be several people's. Only files
that an output names in full count; a bare text may be anything that a user has typed.

Remembered in memory, and read again from the kept history of a user, so it outlives the gateway.
"""

from collections import OrderedDict
from typing import Any, Final, Protocol

from comfy_gateway.core.files.files import FileName, files_in
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.prompts.prompts import PromptRecord

MAX_FILES: Final = 100_000
MAX_READ: Final = 5_000
"""Prompts of one user whose kept entries are read."""
READ_AGAIN_S: Final = 60.0
MAX_READERS: Final = 10_000


class Entries(Protocol):
    """Where the history of users is kept: the ledger."""

    async def entries(self, user_key: str | None, *, limit: int) -> list[tuple[PromptRecord, dict[str, Any]]]:
        """A user's prompts with their entries in shown form."""
        ...


class FileOwners:
    """Files by the names under which clients see them."""

    def __init__(self, entries: Entries, clock: Clock, *, max_files: int = MAX_FILES) -> None:
        self._entries = entries
        self._clock = clock
        self._max_files = max_files
        self._owners: OrderedDict[FileName, set[str | None]] = OrderedDict()
        self._read_at_s: OrderedDict[str | None, float] = OrderedDict()

    def note(self, user_key: str | None, shown: FileName) -> None:
        """A prompt of this user has named the file."""
        self._owners.setdefault(shown, set()).add(user_key)
        self._owners.move_to_end(shown)
        while len(self._owners) > self._max_files:
            self._owners.popitem(last=False)

    async def is_of(self, user_key: str | None, shown: FileName) -> bool:
        """Whether the file is this user's. Reads their kept history where memory does not know it."""
        if self._is_noted(user_key, shown):
            return True
        now_s = self._clock.monotonic()
        read_at_s = self._read_at_s.get(user_key)
        if read_at_s is not None and now_s - read_at_s < READ_AGAIN_S:
            return False
        self._read_at_s[user_key] = now_s
        while len(self._read_at_s) > MAX_READERS:
            self._read_at_s.popitem(last=False)
        for _, entry in await self._entries.entries(user_key, limit=MAX_READ):
            for file in files_in(entry.get("outputs")):
                self.note(user_key, file)
        return self._is_noted(user_key, shown)

    def _is_noted(self, user_key: str | None, shown: FileName) -> bool:
        return user_key in self._owners.get(shown, ())
