"""An answer whose bytes come from elsewhere, piece by piece."""

from collections.abc import AsyncIterator

from aiohttp import web


async def stream(
    request: web.Request,
    response: web.StreamResponse,
    chunks: AsyncIterator[bytes],
    failures: tuple[type[BaseException], ...],
) -> web.StreamResponse:
    """Send them. The first are read before the headers go out: what is raised then is the caller's to answer.

    Of ``failures`` a later one cuts the connection, which says that this was not all; it is too late for a status.
    """
    first = await anext(chunks, b"")
    await response.prepare(request)
    await response.write(first)
    try:
        async for chunk in chunks:
            await response.write(chunk)
    except failures:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the source broke off") from None
    await response.write_eof()
    return response
