"""Asks a server how prompts ended of which its socket said nothing."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from comfy_gateway.core.errors import GatewayError
from comfy_gateway.core.upstream import Backend

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
    try:
        async with http.get(
            URL(backend.upstream.url(path), encoded=True),
            headers=token_header(backend),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
        ) as response:
            response.raise_for_status()
            content = orjson.loads(await response.read())
    except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as error:
        raise Unanswered(f"{path.split('/')[1]}: {type(error).__name__}") from error
    if not isinstance(content, dict):
        raise Unanswered(f"{path.split('/')[1]}: no object")
    return content


def token_header(backend: Backend) -> dict[str, str]:
    """What the pod's front door asks for; nothing for a duty server."""
    return {} if backend.token is None else {"X-Comfy-Gateway-Token": backend.token}
