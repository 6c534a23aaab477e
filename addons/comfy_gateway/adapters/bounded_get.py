"""One request that trusts the server with nothing: bounded in time and size, redirects not followed."""

from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL


class NoUsableAnswer(Exception):
    """Why there is no body, in words fit for the log: no address, no token, nothing that the server wrote."""


class TooLate(NoUsableAnswer):
    """It may come yet."""


class TooMuch(NoUsableAnswer):
    """The body is larger than may be taken in."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of any status but a redirect."""

    status: int
    body: bytes
    retry_after: str | None = None
    """The header of that name, as it came."""


async def bounded_get(
    session: aiohttp.ClientSession,
    url: str,
    *,
    headers: Mapping[str, str],
    timeout_s: float,
    max_body_bytes: int,
) -> bytes:
    """The body of a 2xx answer to a GET. Otherwise as ``bounded_answer``."""
    answer = await bounded_answer(
        session, "GET", url, headers=headers, timeout_s=timeout_s, max_body_bytes=max_body_bytes
    )
    if not 200 <= answer.status < 300:
        raise NoUsableAnswer(f"answered {answer.status}")
    return answer.body


async def bounded_answer(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    timeout_s: float,
    max_body_bytes: int,
    body: bytes | None = None,
    silence_s: float | None = None,
) -> Answer:
    """The answer; the path of ``url`` is sent with its percent-encoding as it is.

    ``timeout_s`` bounds the whole exchange, ``silence_s`` each wait within it. A redirect is no answer: it could lead
    the token to another host. Raises NoUsableAnswer.
    """
    try:
        async with session.request(
            method,
            URL(url, encoded=True),
            headers=headers,
            data=body,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=silence_s, sock_read=silence_s),
        ) as response:
            if 300 <= response.status < 400:
                raise NoUsableAnswer(f"answered {response.status}")
            received = bytearray()
            async for chunk in response.content.iter_any():
                received += chunk
                if len(received) > max_body_bytes:
                    raise TooMuch(f"answered more than {max_body_bytes} bytes")
            return Answer(response.status, bytes(received), response.headers.get("Retry-After"))
    except TimeoutError:
        raise TooLate(f"gave no full answer within {silence_s or timeout_s:g} s") from None
    except aiohttp.ClientConnectorError:
        reason = "cannot be connected to"
    except aiohttp.ClientError as error:
        reason = f"broke off ({type(error).__name__})"
    except (OSError, ValueError) as error:
        reason = f"cannot be asked ({type(error).__name__})"
    raise NoUsableAnswer(reason)
