"""Questions and orders of ours to a ComfyUI server: what runs there, how a prompt ended, one more prompt."""

from collections.abc import Collection
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import orjson

from comfy_gateway.adapters.bounded_get import Answer, NoUsableAnswer, bounded_answer
from comfy_gateway.core import loose_json
from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.ports import Fates, PromptAnswer, QueueIds
from comfy_gateway.core.requests.upstream import Backend, front_door_headers
from comfy_gateway.core.results.history import item_number

MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
"""``/queue`` carries every waiting graph whole; as much as a socket message from a server may have."""
SUBMIT_TIMEOUT_S: Final = 60.0
"""A prompt is answered when its graph has been checked, which custom nodes can make slow."""
OBJECT_INFO_TIMEOUT_S: Final = 30.0
"""Every node is asked for its inputs, which takes seconds with many custom nodes and slow folders of models."""


class HttpComfyServer:
    """Implements ``core.ports.ComfyServer``. The session stays its owner's and is not closed here."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        timeout_s: float,
        *,
        submit_timeout_s: float = SUBMIT_TIMEOUT_S,
        object_info_timeout_s: float = OBJECT_INFO_TIMEOUT_S,
    ) -> None:
        self._session = session
        self._timeout_s = timeout_s
        self._submit_timeout_s = submit_timeout_s
        self._object_info_timeout_s = object_info_timeout_s

    async def queue(self, backend: Backend) -> QueueIds:
        """Ids in ``/queue``, whose entries are ``[number, prompt_id, …]``."""
        answer = await self._ask(backend, "/queue")
        try:
            running, pending = answer["queue_running"], answer["queue_pending"]
            return QueueIds(_ids(running), _ids(pending), _numbers([*running, *pending]))
        except (KeyError, TypeError, IndexError):
            raise BackendUnavailable("queue: unknown shape") from None

    async def entry(self, backend: Backend, prompt_id: str) -> dict[str, Any] | None:
        """The entry in ``/history/{id}``, which is ``{}`` for an unknown prompt."""
        answer = await self._ask(backend, f"/history/{quote(prompt_id, safe='')}")
        entry = answer.get(prompt_id)
        return entry if isinstance(entry, dict) else None

    async def fates(self, backend: Backend, prompt_ids: Collection[str]) -> Fates:
        """By one ``/queue`` and one ``/history/{id}`` for each prompt that is not in it."""
        if not prompt_ids:
            return {}
        alive = await self.queue(backend)
        return {
            prompt_id: await self.entry(backend, prompt_id)
            for prompt_id in prompt_ids
            if prompt_id not in alive
        }

    async def post_prompt(self, backend: Backend, body: bytes) -> PromptAnswer:
        """A yes, or a no that ComfyUI itself has said; what a proxy before it says is no answer."""
        answer = await self._exchange(backend, "POST", "/prompt", body, timeout_s=self._submit_timeout_s)
        if answer.status >= 500:
            raise BackendUnavailable(f"prompt: answered {answer.status}")
        return PromptAnswer(answer.status, _document(answer.body, "prompt"))

    async def delete_queued(self, backend: Backend, prompt_ids: Collection[str]) -> None:
        """By ``POST /queue``."""
        await self._order(backend, "/queue", {"delete": list(prompt_ids)})

    async def interrupt(self, backend: Backend, prompt_id: str | None) -> None:
        """By ``POST /interrupt``."""
        await self._order(backend, "/interrupt", {} if prompt_id is None else {"prompt_id": prompt_id})

    async def object_info(self, backend: Backend) -> bytes:
        """By ``GET /object_info``, unread."""
        path = "/object_info"
        answer = await self._exchange(backend, "GET", path, None, timeout_s=self._object_info_timeout_s)
        _check_status(answer, path)
        return answer.body

    async def _ask(self, backend: Backend, path: str) -> dict[str, Any]:
        answer = await self._exchange(backend, "GET", path, None, timeout_s=self._timeout_s)
        _check_status(answer, path)
        return _document(answer.body, _topic(path))

    async def _order(self, backend: Backend, path: str, order: dict[str, Any]) -> None:
        answer = await self._exchange(backend, "POST", path, orjson.dumps(order), timeout_s=self._timeout_s)
        _check_status(answer, path)

    async def _exchange(
        self, backend: Backend, method: str, path: str, body: bytes | None, *, timeout_s: float
    ) -> Answer:
        headers = front_door_headers(backend.token)
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            return await bounded_answer(
                self._session,
                method,
                backend.upstream.url(path),
                headers=headers,
                timeout_s=timeout_s,
                max_body_bytes=MAX_ANSWER_BYTES,
                body=body,
            )
        except NoUsableAnswer as failure:
            raise BackendUnavailable(f"{_topic(path)}: {failure}") from None


def _topic(path: str) -> str:
    return path.split("/")[1]


def _check_status(answer: Answer, path: str) -> None:
    if not 200 <= answer.status < 300:
        raise BackendUnavailable(f"{_topic(path)}: answered {answer.status}")


def _document(body: bytes, topic: str) -> dict[str, Any]:
    try:
        document = loose_json.read(body)
    except ValueError:
        raise BackendUnavailable(f"{topic}: no JSON") from None
    if not isinstance(document, dict):
        raise BackendUnavailable(f"{topic}: no object")
    return document


def _ids(items: Any) -> frozenset[str]:
    return frozenset(str(item[1]) for item in items)


def _numbers(items: list[Any]) -> dict[str, float]:
    numbers = ((str(item[1]), item_number(item)) for item in items)
    return {prompt_id: number for prompt_id, number in numbers if number is not None}
