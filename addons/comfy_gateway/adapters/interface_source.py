"""Asks the shared server for files of its front end, as somebody without cookie or credential."""

from collections.abc import Callable, Mapping
from typing import Final

import aiohttp
from yarl import URL

from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.interface.files import Told
from comfy_gateway.core.requests.upstream import Backend, front_door_headers

MOST_BYTES: Final = 32 * 1024 * 1024
SILENCE_S: Final = 10.0
WHOLE_S: Final = 60.0


class HomeInterface:
    """Implements ``InterfaceSource``. The http session stays its owner's."""

    def __init__(self, http: aiohttp.ClientSession, home: Callable[[], Backend]) -> None:
        self._http = http
        self._home = home

    async def fetch(self, path: str, known: Mapping[str, str]) -> Told:
        """See the port. What is too large is told as such (413)."""
        home = self._home()
        headers = {"Accept-Encoding": "identity", **front_door_headers(home.token), **known}
        try:
            async with self._http.get(
                URL(home.upstream.url(path), encoded=True),
                headers=headers,
                allow_redirects=False,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=WHOLE_S, sock_connect=SILENCE_S, sock_read=SILENCE_S),
            ) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MOST_BYTES:
                        return Told(413, {})
                told = {name.lower(): value for name, value in response.headers.items()}
                return Told(response.status, told, bytes(body))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise BackendUnavailable(f"{home.id} gave no usable answer ({type(error).__name__})") from None
