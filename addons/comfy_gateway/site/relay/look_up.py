"""Asks a server how prompts ended of which its socket said nothing."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import orjson

from comfy_gateway.adapters.bounded_get import NoUsableAnswer, bounded_get
from comfy_gateway.core.errors import GatewayError
from comfy_gateway.core.upstream import Backend, front_door_headers

MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
"""``/queue`` carries every waiting graph whole; as much as a socket message from a server may have."""

type Fates = Mapping[str, Mapping[str, Any] | None]
"""Entry of ``/history`` by prompt id, None for an unknown one; those in the queue are left out."""


class Unanswered(GatewayError):
    """The server gave no usable answer: nothing is known."""


async def look_up(
    http: aiohttp.ClientSession, backend: Backend, prompt_ids: Sequence[str], *, timeout_s: float
) -> Fates:
    """The fate of each prompt that neither runs nor waits. Raises Unanswered.

    The queue is read first: a prompt goes from there into the history and never back, so one that is in
    neither answer is lost.
    """
    queue = await _get(http, backend, "/queue", timeout_s)
    try:
        alive = {item[1] for name in ("queue_running", "queue_pending") for item in queue[name]}
    except (KeyError, IndexError, TypeError) as error:
        raise Unanswered("the queue has no known shape") from error
    fates: dict[str, Mapping[str, Any] | None] = {}
    for prompt_id in prompt_ids:
        if prompt_id not in alive:
            history = await _get(http, backend, f"/history/{quote(prompt_id, safe='')}", timeout_s)
            entry = history.get(prompt_id)
            fates[prompt_id] = entry if isinstance(entry, dict) else None
    return fates


async def _get(http: aiohttp.ClientSession, backend: Backend, path: str, timeout_s: float) -> dict[str, Any]:
    question = path.split("/")[1]
    try:
        body = await bounded_get(
            http,
            backend.upstream.url(path),
            headers=front_door_headers(backend.token),
            timeout_s=timeout_s,
            max_body_bytes=MAX_ANSWER_BYTES,
        )
        content = orjson.loads(body)
    except NoUsableAnswer as failure:
        raise Unanswered(f"{question}: {failure}") from None
    except orjson.JSONDecodeError:
        raise Unanswered(f"{question}: no JSON") from None
    if not isinstance(content, dict):
        raise Unanswered(f"{question}: no object")
    return content
