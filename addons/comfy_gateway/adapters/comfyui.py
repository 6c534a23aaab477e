"""Questions of ours to a ComfyUI server: what runs there, and how a prompt ended."""

from typing import Any, Final
from urllib.parse import quote

import aiohttp
import orjson

from comfy_gateway.adapters.bounded_get import NoUsableAnswer, bounded_get
from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.prompts import Outcome, outcome_of_history
from comfy_gateway.core.upstream import Backend, front_door_headers

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024


class HttpPromptStates:
    """Implements ``core.ports.PromptStates``. The session stays its owner's and is not closed here."""

    def __init__(self, session: aiohttp.ClientSession, timeout_s: float) -> None:
        self._session = session
        self._timeout_s = timeout_s

    async def queued_ids(self, backend: Backend) -> frozenset[str]:
        """Ids in ``/queue``, whose entries are ``[number, prompt_id, …]``."""
        answer = await self._get(backend, "/queue")
        try:
            return frozenset(str(entry[1]) for entry in (*answer["queue_running"], *answer["queue_pending"]))
        except (KeyError, TypeError, IndexError):
            raise BackendUnavailable("the queue has an unknown shape") from None

    async def ending(self, backend: Backend, prompt_id: str) -> Outcome | None:
        """The outcome in ``/history/{id}``, which is ``{}`` for an unknown prompt."""
        answer = await self._get(backend, f"/history/{quote(prompt_id, safe='')}")
        if not isinstance(answer, dict):
            raise BackendUnavailable("the history has an unknown shape")
        entry = answer.get(prompt_id)
        return None if entry is None else outcome_of_history(entry)

    async def _get(self, backend: Backend, path: str) -> Any:
        try:
            body = await bounded_get(
                self._session,
                backend.upstream.url(path),
                headers=front_door_headers(backend.token),
                timeout_s=self._timeout_s,
                max_body_bytes=MAX_ANSWER_BYTES,
            )
            return orjson.loads(body)
        except NoUsableAnswer as failure:
            raise BackendUnavailable(str(failure)) from None
        except orjson.JSONDecodeError:
            raise BackendUnavailable("answered something that is no JSON") from None
