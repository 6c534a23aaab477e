"""A ledger that is only in memory."""

from collections.abc import Sequence
from typing import Any

from comfy_gateway.core.ports import Entries
from comfy_gateway.core.prompts import Hiding, LedgerChange, LedgerRow, PromptRecord


class NoLedgerStore:
    """Implements ``core.ports.LedgerStore`` and keeps nothing."""

    async def write(
        self, changes: Sequence[LedgerChange], hidings: Sequence[Hiding] = ()
    ) -> Sequence[LedgerRow]:
        return []

    async def load(self, newest: int) -> Sequence[LedgerRow]:
        return []

    async def highest_position(self) -> int:
        return 0

    async def find(self, prompt_id: str) -> LedgerRow | None:
        return None

    async def body(self, prompt_id: str) -> bytes | None:
        return None

    async def entry(self, prompt_id: str) -> dict[str, Any] | None:
        return None

    async def entries(
        self, user_key: str | None, *, limit: int, before: PromptRecord | None = None
    ) -> Entries:
        return []

    async def prune(self, keep: int) -> int:
        return 0
