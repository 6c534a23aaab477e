"""Kept files do not stay for ever: by age, and by what all of them together may take."""

import logging
from datetime import timedelta
from typing import Final

from comfy_gateway.core.errors import StorageUnavailable, StoreError
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.vault.ports import VaultDisk, VaultRows
from comfy_gateway.core.vault.vault import StoredFile
from comfy_gateway.service.vault.trouble import VaultStats

logger = logging.getLogger(__name__)

LOOK_S: Final = 60.0
EVERY_S: Final = 3600.0
AT_ONCE: Final = 200


class VaultRetention:
    """Removes the oldest kept files. A limit of None is none."""

    def __init__(
        self,
        *,
        disk: VaultDisk,
        rows: VaultRows,
        clock: Clock,
        stats: VaultStats,
        max_bytes: int | None,
        max_age_s: float | None,
    ) -> None:
        self._disk = disk
        self._rows = rows
        self._clock = clock
        self._stats = stats
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s

    async def run(self) -> None:
        """Look every hour, and within a minute when the vault has become too large; for ever."""
        last_s = -EVERY_S
        while True:
            now_s = self._clock.monotonic()
            is_too_large = self._max_bytes is not None and self._stats.size_bytes > self._max_bytes
            if is_too_large or now_s - last_s >= EVERY_S:
                last_s = now_s
                try:
                    await self.sweep()
                except (StoreError, StorageUnavailable) as error:
                    logger.warning("old kept files are not removed yet: %s", error)
                except Exception:
                    logger.exception("retention failed once")
            await self._clock.sleep(LOOK_S)

    async def sweep(self) -> int:
        """Remove what is too old, then the oldest until the rest is small enough; returns how many files.

        Raises StoreUnavailable and StorageUnavailable.
        """
        removed = 0
        if self._max_age_s is not None:
            before = self._clock.now() - timedelta(seconds=self._max_age_s)
            while old := await self._rows.oldest(AT_ONCE, before=before):
                for stored in old:
                    await self._remove(stored)
                removed += len(old)
        self._stats.size_bytes = await self._rows.total_bytes()
        while self._max_bytes is not None and self._stats.size_bytes > self._max_bytes:
            oldest = await self._rows.oldest(AT_ONCE)
            if not oldest:
                break
            for stored in oldest:
                if self._stats.size_bytes <= self._max_bytes:
                    break
                await self._remove(stored)
                removed += 1
        if removed:
            logger.info("%d kept files were removed, for they were the oldest", removed)
        return removed

    async def _remove(self, stored: StoredFile) -> None:
        """The file first: one without a row would never be found again."""
        await self._disk.remove(stored.path)
        await self._rows.remove(stored)
        self._stats.size_bytes -= stored.size_bytes
        self._stats.files_expired += 1
