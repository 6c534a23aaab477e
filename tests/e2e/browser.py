"""A real Chromium, and what a page in it asked for and what went wrong there."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Page, Request, Response, WebSocket, async_playwright

ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A page that asks somebody outside gets the same answer on every machine: there is no such host.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
)


@asynccontextmanager
async def chromium(program: Path) -> AsyncIterator[Browser]:
    """A browser without a window, with a profile of its own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Watch:
    """What is seen of a page from now on. Addresses of its own origin are kept as path and query."""

    page: Page
    requests: Counter[str] = field(default_factory=Counter)
    """``GET /assets/x.js`` and so on."""
    failures: Counter[str] = field(default_factory=Counter)
    """Requests that got no answer, half an answer, or a status of 400 and more."""
    errors: Counter[str] = field(default_factory=Counter)
    """Errors on the console and exceptions that nobody caught."""
    sockets: list[WebSocket] = field(default_factory=list)
    loads: int = 0
    """How often the page itself was loaded."""
    _answered: set[Request] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.on("request", self._request)
        self.page.on("response", self._response)
        self.page.on("requestfailed", self._failed)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.update([f"uncaught: {error.message}"]))
        self.page.on("websocket", self._socket)
        self.page.on("domcontentloaded", self._loaded)

    def _named(self, request: Request) -> str:
        return f"{request.method} {self._short(request.url)}"

    def _short(self, url: str) -> str:
        """The address without the origin, where that is the page's."""
        parts, own = urlsplit(url), urlsplit(self.page.url)
        if own.netloc and parts.netloc != own.netloc:
            return url
        return f"{parts.path}?{parts.query}" if parts.query else parts.path

    def _request(self, request: Request) -> None:
        self.requests[self._named(request)] += 1

    def _response(self, response: Response) -> None:
        self._answered.add(response.request)
        if response.status >= 400:
            self.failures[f"{response.status} {self._named(response.request)}"] += 1

    def _failed(self, request: Request) -> None:
        # Chromium also says "aborted" when a page drops the body of an answer that it has got.
        if request.failure == "net::ERR_ABORTED" and request in self._answered:
            return
        self.failures[f"{request.failure} {self._named(request)}"] += 1

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors[f"{message.text} {self._short(message.location['url'])}"] += 1

    def _socket(self, socket: WebSocket) -> None:
        self.sockets.append(socket)

    def _loaded(self, _page: Page) -> None:
        self.loads += 1
