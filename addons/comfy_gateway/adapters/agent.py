"""Asks the telemetry agent in a pod, over HTTP."""

from typing import Final
from urllib.parse import urljoin

import aiohttp
import orjson

from comfy_gateway.adapters.bounded_get import NoUsableAnswer, bounded_get
from comfy_gateway.core.errors import AgentUnavailable
from comfy_gateway.core.life.telemetry import Sample, parse_sample

LEASE_HEADER: Final = "X-Comfy-Gateway-Lease"
MAX_BODY_BYTES: Final = 1024 * 1024
MAX_LOG_BYTES: Final = 8 * MAX_BODY_BYTES
"""A log of one MiB, with escapes."""


class HttpAgent:
    """Implements ``core.ports.Agent``. The session stays its owner's and is not closed here."""

    def __init__(
        self, session: aiohttp.ClientSession, timeout_s: float, *, max_body_bytes: int = MAX_BODY_BYTES
    ) -> None:
        self._session = session
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes

    async def sample(self, url: str, *, token: str) -> Sample:
        """One sample; the lease header on the authenticated request is what keeps the pod from ending itself.

        Raises AgentUnavailable, whose text holds neither the address nor the token.
        """
        try:
            body = await bounded_get(
                self._session,
                url,
                headers={"Authorization": f"Bearer {token}", LEASE_HEADER: "1"},
                timeout_s=self._timeout_s,
                max_body_bytes=self._max_body_bytes,
            )
            return parse_sample(orjson.loads(body))
        except NoUsableAnswer as failure:
            reason = str(failure)
        except orjson.JSONDecodeError:
            reason = "answered something that is no JSON"
        except ValueError as fault:
            reason = f"answered nonsense: {fault}"
        raise AgentUnavailable(f"the agent {reason}")

    async def log(self, url: str, *, token: str, lines: int) -> list[str]:
        """``/logs`` beside the telemetry: ``{"lines": ["…"], …}``. It renews no lease.

        Raises AgentUnavailable, whose text holds neither the address nor the token.
        """
        try:
            body = await bounded_get(
                self._session,
                urljoin(url, f"logs?lines={lines}"),
                headers={"Authorization": f"Bearer {token}"},
                timeout_s=self._timeout_s,
                max_body_bytes=MAX_LOG_BYTES,
            )
            told = orjson.loads(body)
        except NoUsableAnswer as failure:
            raise AgentUnavailable(f"the agent {failure}") from None
        except orjson.JSONDecodeError:
            raise AgentUnavailable("the agent answered something that is no JSON") from None
        found = told.get("lines") if isinstance(told, dict) else None
        if not isinstance(found, list) or not all(isinstance(line, str) for line in found):
            raise AgentUnavailable("the agent answered nonsense: field 'lines' is no list of texts")
        return found[-lines:]

    async def version(self, url: str, *, token: str) -> str | None:
        """``/version`` beside the telemetry: ``{"agent": "0.1.0", …}``. None for an agent that lacks it."""
        try:
            body = await bounded_get(
                self._session,
                urljoin(url, "version"),
                headers={"Authorization": f"Bearer {token}"},
                timeout_s=self._timeout_s,
                max_body_bytes=self._max_body_bytes,
            )
            told = orjson.loads(body)
        except (NoUsableAnswer, orjson.JSONDecodeError):
            return None
        version = told.get("agent") if isinstance(told, dict) else None
        return version if isinstance(version, str) else None
