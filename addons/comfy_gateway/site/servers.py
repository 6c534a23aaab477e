"""Asks the ComfyUI servers of a user, all at once, each trusted with nothing."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from comfy_gateway.adapters.bounded_get import NoUsableAnswer, TooLate, TooMuch, bounded_answer
from comfy_gateway.core.requests.refusals import UPSTREAM_LATE, UPSTREAM_UNREACHABLE, Refusal
from comfy_gateway.core.requests.upstream import Backend, front_door_headers

SILENCE_S: Final = 5.0
"""A server that says nothing for so long does not hold up what the others say."""
WHOLE_S: Final = 60.0
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Said:
    """What one server said."""

    backend: Backend
    status: int = 0
    """0 where there was no usable answer."""
    body: bytes = field(default=b"", repr=False)
    content_type: str = "application/json"
    is_late: bool = False
    is_too_much: bool = False

    @property
    def is_ok(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.status < 300


class Servers:
    """The http session stays its owner's."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        *,
        silence_s: float = SILENCE_S,
        whole_s: float = WHOLE_S,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._http = http
        self._silence_s = silence_s
        self._whole_s = whole_s
        self._max_answer_bytes = max_answer_bytes

    async def ask(
        self, backend: Backend, path: str, *, method: str = "GET", body: bytes | None = None
    ) -> Said:
        """One server's answer. Never raises for what a server does. ``path`` is percent-encoded."""
        headers = front_door_headers(backend.token)
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            answer = await bounded_answer(
                self._http,
                method,
                backend.upstream.url(path),
                headers=headers,
                timeout_s=self._whole_s,
                silence_s=self._silence_s,
                max_body_bytes=self._max_answer_bytes,
                body=body,
            )
        except NoUsableAnswer as failure:
            return Said(
                backend, is_late=isinstance(failure, TooLate), is_too_much=isinstance(failure, TooMuch)
            )
        return Said(backend, answer.status, answer.body)

    async def ask_all(self, backends: Iterable[Backend], path: str) -> list[Said]:
        """What each of them says to a GET."""
        return list(await asyncio.gather(*(self.ask(backend, path) for backend in backends)))

    async def tell_all(self, orders: Iterable[tuple[Backend, bytes]], path: str) -> list[Said]:
        """What each of them says to its order."""
        return list(
            await asyncio.gather(
                *(self.ask(backend, path, method="POST", body=body) for backend, body in orders)
            )
        )


def refusal_of(said: Sequence[Said]) -> Refusal:
    """Why there is nothing to tell when no server gave a usable answer."""
    return UPSTREAM_LATE if any(one.is_late for one in said) else UPSTREAM_UNREACHABLE


async def off_the_loop[T](size_bytes: int, work: Callable[[], T]) -> T:
    """The result of ``work``, done in a thread when so many bytes would keep the event loop busy."""
    return work() if size_bytes < SMALL_BYTES else await asyncio.to_thread(work)


SMALL_BYTES: Final = 256 * 1024
