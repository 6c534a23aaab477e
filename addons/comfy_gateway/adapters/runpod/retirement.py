"""Whether RunPod has ended the API that the SDK speaks, which it has announced for early 2027.

The SDK does not tell the status of an answer: a 410 looks like any other that cannot be read. So after one of those the
API is asked once more, by the SDK's own HTTP library.
"""

import threading
from collections.abc import Callable
from typing import Any, Final

from comfy_gateway.core.errors import CloudUnavailable

UNREADABLE: Final = (KeyError, ValueError)
"""What the SDK raises for an answer without ``data``, and for one that is no JSON."""
_GONE: Final = 410
_ASK_EVERY_S: Final = 60.0
_TIMEOUT_S: Final = 10.0


def retired() -> CloudUnavailable:
    """What whoever reads the log or the doctor has to know."""
    return CloudUnavailable(
        "RunPod has ended the API that its SDK speaks (410 Gone): set RUNPOD_API=v2 and start the gateway again"
    )


class Retirement:
    """Asks at most once a minute; in between the last word holds."""

    def __init__(self, api_base: str, api_key: str, monotonic: Callable[[], float]) -> None:
        self._address = f"{api_base}/graphql"
        self._api_key = api_key
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._asked_s: float | None = None
        self._is_told = False

    def is_told(self, sdk: Any) -> bool:
        """Whether the API answers 410 Gone. Blocks."""
        with self._lock:
            now_s = self._monotonic()
            if self._asked_s is None or now_s - self._asked_s >= _ASK_EVERY_S:
                self._asked_s = now_s
                self._is_told = self._ask(sdk)
            return self._is_told

    def _ask(self, sdk: Any) -> bool:
        http = sdk.api.graphql.requests
        try:
            answer = http.post(
                self._address,
                json={"query": "query { __typename }"},
                headers={
                    "Authorization": f"Bearer {self._api_key}",
                    "User-Agent": sdk.api.graphql.USER_AGENT,
                },
                timeout=_TIMEOUT_S,
                allow_redirects=False,
            )
        except (http.RequestException, OSError):
            return False
        return bool(answer.status_code == _GONE)
