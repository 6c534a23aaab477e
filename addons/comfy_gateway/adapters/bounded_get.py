"""One GET that trusts the server with nothing: bounded in time and size, redirects not followed."""

from collections.abc import Mapping

import aiohttp
from yarl import URL


class NoUsableAnswer(Exception):
    """Why there is no body, in words fit for the log: no address, no token, nothing that the server wrote."""


async def bounded_get(
    session: aiohttp.ClientSession,
    url: str,
    *,
    headers: Mapping[str, str],
    timeout_s: float,
    max_body_bytes: int,
) -> bytes:
    """The body of a 2xx answer; the path of ``url`` is sent with its percent-encoding as it is.

    ``timeout_s`` bounds the whole exchange. A redirect is no answer: it could lead the token to another host.
    Raises NoUsableAnswer.
    """
    try:
        async with session.get(
            URL(url, encoded=True),
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout_s),
        ) as response:
            if not 200 <= response.status < 300:
                raise NoUsableAnswer(f"answered {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > max_body_bytes:
                    raise NoUsableAnswer(f"answered more than {max_body_bytes} bytes")
            return bytes(body)
    except TimeoutError:
        reason = f"gave no full answer within {timeout_s:g} s"
    except aiohttp.ClientConnectorError:
        reason = "cannot be connected to"
    except aiohttp.ClientError as error:
        reason = f"broke off ({type(error).__name__})"
    except (OSError, ValueError) as error:
        reason = f"cannot be asked ({type(error).__name__})"
    raise NoUsableAnswer(reason)
