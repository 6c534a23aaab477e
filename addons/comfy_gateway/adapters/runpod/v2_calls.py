"""Calls of RunPod's REST API: bounded in number, time and size, and quiet for as long as RunPod asks."""

import asyncio
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlencode, urlsplit

import aiohttp
import orjson

from comfy_gateway.adapters.bounded_get import NoUsableAnswer, bounded_answer
from comfy_gateway.adapters.runpod.binding import is_loopback
from comfy_gateway.core.errors import CloudUnavailable

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""A list holds the env of every pod."""
USER_AGENT: Final = "comfy-runpod-gateway"
"""Cloudflare, in front of RunPod, turns away the names of well-known HTTP libraries."""
USUAL_PAUSE_S: Final = 5.0
"""After a 429 that does not say how long."""
LEAST_PAUSE_S: Final = 1.0
MOST_PAUSE_S: Final = 3600.0
"""Then it is tried again, whatever the last answer said."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of any status but a redirect."""

    status: int
    document: Any
    """Its JSON; None where it is none."""

    @property
    def is_success(self) -> bool:
        """A 2xx."""
        return 200 <= self.status < 300

    @property
    def detail(self) -> str | None:
        """RunPod's own words for a refusal. None where this is no refusal, or nobody says that it is RunPod's."""
        told = self.document
        if not isinstance(told, dict) or told.get("status") != self.status or self.is_success:
            return None
        detail = told.get("detail")
        if not isinstance(detail, str):
            return None
        errors = told.get("errors")
        more = [error for error in errors if isinstance(error, str)] if isinstance(errors, list) else []
        return "; ".join([detail, *more[:5]])


class RestCalls:
    """One connection for each call, as the SDK does it: an idle one that the server has closed meanwhile would leave
    the outcome of a create unknown.

    After a 429 nothing is sent before the time that RunPod names; who cannot wait so long gets CloudUnavailable.
    """

    def __init__(
        self,
        *,
        base: str,
        api_key: str,
        timeout_s: float,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._base = base
        self._headers = {
            "Authorization": f"Bearer {api_key}",
            "Accept": "application/json",
            "User-Agent": USER_AGENT,
        }
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False
        self._quiet_until_s = 0.0

    async def ask(
        self,
        method: Literal["GET", "POST", "DELETE"],
        path: str,
        *,
        turns: asyncio.Semaphore,
        until_s: float,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Reply:
        """Send it when it is its turn; ``until_s`` is when nobody waits any more.

        A GET and a DELETE that met a 429 are sent again when RunPod allows it, and once by aiohttp when the connection
        broke; a POST never is. Raises CloudUnavailable when there is no answer.
        """
        async with turns:
            while True:
                await self._keep_quiet(until_s)
                reply, retry_after = await self._send(method, path, query, body)
                if reply.status != 429:
                    return reply
                self._quiet_until_s = self._monotonic() + _pause_s(retry_after)
                if method == "POST":
                    return reply

    def refuse_closed(self) -> None:
        """Raises CloudUnavailable after ``aclose``."""
        if self._is_closed:
            raise CloudUnavailable("the connection to RunPod is closed")

    async def aclose(self) -> None:
        """Break off what is under way; nothing is sent any more."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    async def _keep_quiet(self, until_s: float) -> None:
        while (pause_s := self._quiet_until_s - self._monotonic()) > 0:
            if self._quiet_until_s >= until_s:
                raise CloudUnavailable(f"RunPod answers 429 and asks for {pause_s:.0f} s without calls")
            await self._sleep(pause_s)

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Mapping[str, Any] | None
    ) -> tuple[Reply, str | None]:
        self.refuse_closed()
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                # Not by trust_env: an entry in ~/.netrc for the host would replace our Authorization header.
                trust_env=False,
                proxy=_proxy_for(self._base),
            )
        address = f"{self._base}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            answer = await bounded_answer(
                self._session,
                method,
                address,
                headers=self._headers | ({} if body is None else {"Content-Type": "application/json"}),
                timeout_s=self._timeout_s,
                max_body_bytes=MAX_BODY_BYTES,
                body=None if body is None else orjson.dumps(body),
            )
        except NoUsableAnswer as fault:
            reason = str(fault)
        else:
            return Reply(answer.status, _json(answer.body)), answer.retry_after
        # Raised out here, so that no __context__ leads back to the request and its Authorization header.
        raise CloudUnavailable(f"RunPod {reason}")


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _pause_s(retry_after: str | None) -> float:
    """RunPod says whole seconds."""
    if retry_after is None or not retry_after.isascii() or not retry_after.isdigit():
        return USUAL_PAUSE_S
    return min(max(LEAST_PAUSE_S, float(retry_after)), MOST_PAUSE_S)


def _proxy_for(base: str) -> str | None:
    """The proxy that the environment names for this address, as the SDK would find it; none for this machine."""
    parts = urlsplit(base)
    host = parts.hostname or ""
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(parts.scheme)
