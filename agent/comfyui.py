"""Asks ComfyUI on loopback, trusting it with nothing: bounded in time and size."""

import json
from dataclasses import dataclass
from typing import Any

import aiohttp

TIMEOUT_S = 2.0
MOST_BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Queue:
    running: int
    pending: int

    @property
    def is_empty(self) -> bool:
        return self.running + self.pending == 0


class ComfyUI:
    """The session stays its owner's."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def queue(self) -> Queue | None:
        """None where ComfyUI gives no sensible answer within two seconds.

        From GET /prompt, which tells one number, and not from GET /queue, which writes out every workflow that waits:
        megabytes a second in ComfyUI's own process. ComfyUI executes one prompt at a time (one worker thread in its
        main.py), so the first of them runs and the others wait.
        """
        told = await self._told("/prompt")
        count = _within(told, "exec_info", "queue_remaining")
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            return None
        return Queue(min(count, 1), max(0, count - 1))

    async def version(self) -> str | None:
        """ComfyUI's own version, None where it does not say."""
        told = _within(await self._told("/system_stats"), "system", "comfyui_version")
        return told if isinstance(told, str) else None

    async def _told(self, path: str) -> Any:
        try:
            async with self._session.get(
                self._url + path, allow_redirects=False, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)
            ) as response:
                body = await response.content.read(MOST_BODY_BYTES)
                while chunk := await response.content.read(MOST_BODY_BYTES):
                    body += chunk
                    if len(body) > MOST_BODY_BYTES:
                        return None
                return json.loads(body) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None


def _within(told: Any, *names: str) -> Any:
    for name in names:
        told = told.get(name) if isinstance(told, dict) else None
    return told
