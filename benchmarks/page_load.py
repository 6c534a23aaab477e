"""ComfyUI's own page in Chromium: how long until it can be used, and how often the server is asked for it.

Each load is by a browser that has never been here, and then reloaded. Whatever stands between has been asked for the
page before: what is measured is the second visitor and those after. A tap before the server counts what reaches it.
"""

import asyncio
import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from playwright.async_api import Browser, Page, async_playwright

from benchmarks.machine import cores
from benchmarks.peers import PEERS, missing, started
from benchmarks.processes import free_port, running
from benchmarks.upstream import Upstream

REFERENCE = "direct"
WITHOUT = {"gateway, FAST_PATH=0", "fastapi-proxy-lib"}
"""The latter does not take part in the page's socket."""
USABLE = "window.app?.extensionManager?.workflow?.activeWorkflow && window.app.api.clientId"
WITHIN_MS = 60_000
_TAP = """daemon off; worker_processes 1; pid {folder}/tap.pid; error_log stderr;
events {{ worker_connections 1024; }}
http {{
  log_format line '$request_method $uri'; access_log {folder}/tap.log line; keepalive_requests 1000000;
  client_body_temp_path {folder}/tap_body; proxy_temp_path {folder}/tap_temp;
  map $http_upgrade $upgrade {{ default upgrade; '' ''; }}
  upstream comfyui {{ server {server}; keepalive 64; }}
  server {{ listen 127.0.0.1:{port}; client_max_body_size 100m;
    location / {{ proxy_pass http://comfyui; proxy_http_version 1.1; proxy_set_header Host {server};
      proxy_set_header Origin ""; proxy_set_header Connection $upgrade; proxy_set_header Upgrade $http_upgrade; }} }}
}}
"""


@dataclass(frozen=True)
class Line:
    """Between browser and the rest; nothing set: the machine's own loopback."""

    name: str
    megabit_per_s: float = 0
    latency_ms: float = 0


LINES = (Line("20 Mbit/s, 40 ms", 20, 40), Line("loopback"))


@dataclass(frozen=True)
class Load:
    """One load of the page."""

    usable_s: float
    reached_server: int
    """Requests."""


@dataclass(frozen=True)
class Tap:
    """Counts what goes through it to the server."""

    upstream: Upstream
    log: Path

    def count(self) -> int:
        """Requests that have ended so far."""
        return len(self.log.read_text().splitlines())


@contextmanager
def tapped(server: str, folder: Path) -> Iterator[Tap]:
    """Raises RuntimeError when nginx does not start."""
    port = free_port()
    config = folder / "tap.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""
    config.write_text(user + _TAP.format(folder=folder, port=port, server=urlsplit(server).netloc))
    with running(["nginx", "-c", str(config)], port=port, core=0, folder=folder, name="tap"):
        yield Tap(Upstream(port), folder / "tap.log")


async def _loaded(page: Page, tap: Tap, url: str | None) -> Load:
    """``url`` None: a reload."""
    before, began_s = tap.count(), time.monotonic()
    if url is None:
        await page.reload(timeout=WITHIN_MS)
    else:
        await page.goto(url, timeout=WITHIN_MS)
    await page.wait_for_function(USABLE, timeout=WITHIN_MS, polling=20)
    usable_s = time.monotonic() - began_s
    await page.wait_for_load_state("networkidle", timeout=WITHIN_MS)
    return Load(usable_s, tap.count() - before)


async def _visit(browser: Browser, tap: Tap, port: int, line: Line) -> tuple[Load, Load]:
    """The first load of a new browser, and a reload."""
    context = await browser.new_context()
    try:
        page = await context.new_page()
        if line.megabit_per_s:
            bytes_per_s = line.megabit_per_s * 1e6 / 8
            session = await context.new_cdp_session(page)
            await session.send("Network.enable")
            await session.send(
                "Network.emulateNetworkConditions",
                {
                    "offline": False,
                    "latency": line.latency_ms,
                    "downloadThroughput": bytes_per_s,
                    "uploadThroughput": bytes_per_s,
                },
            )
        cold = await _loaded(page, tap, f"http://127.0.0.1:{port}/?user_id=bench")
        return cold, await _loaded(page, tap, None)
    finally:
        await context.close()


async def _measured(
    peers: list[str], tap: Tap, folder: Path, line: Line, rounds: int, program: str
) -> dict[str, list[tuple[Load, Load]]]:
    found: defaultdict[str, list[tuple[Load, Load]]] = defaultdict(list)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program,
            args=[
                "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
                "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            ],
        )  # fmt: skip
        try:
            for number in range(rounds):
                for name in peers:
                    sys.stderr.write(f"\rpage, {line.name}: round {number + 1} of {rounds}, {name:30}")
                    with started(name, tap.upstream, folder, core=len(cores()) - 1) as port:
                        await _visit(browser, tap, port, Line("to warm up"))
                        found[name].append(await _visit(browser, tap, port, line))
        finally:
            await browser.close()
    sys.stderr.write("\r" + " " * 90 + "\r")
    return found


def _table(line: Line, found: dict[str, list[tuple[Load, Load]]]) -> str:
    def seconds(name: str, which: int) -> float:
        return median(visit[which].usable_s for visit in found[name])

    def asked(name: str, which: int) -> float:
        return median(visit[which].reached_server for visit in found[name])

    lines = [
        f"### the page in Chromium, {line.name}",
        "",
        f"| | cold s | x {REFERENCE} | reload s (lowest to highest) | x {REFERENCE} "
        "| requests that reach the server: cold | reload |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in sorted(found, key=lambda peer: seconds(peer, 0)):
        reloads = [reload.usable_s for _, reload in found[name]]
        lines.append(
            f"| {name} | {seconds(name, 0):.2f} | {seconds(name, 0) / seconds(REFERENCE, 0):.2f} "
            f"| {seconds(name, 1):.2f} ({min(reloads):.2f} to {max(reloads):.2f}) "
            f"| {seconds(name, 1) / seconds(REFERENCE, 1):.2f} | {asked(name, 0):.0f} | {asked(name, 1):.0f} |"
        )
    return "\n".join(lines) + "\n"


def tables(server: str, folder: Path, rounds: int) -> Iterator[str]:
    """One for each line. ``server``: address of a running ComfyUI. Raises RuntimeError for what is missing."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise RuntimeError("page loads need chromium")
    peers = [name for name in PEERS if name not in WITHOUT and missing(name) is None]
    with tapped(server, folder) as tap:
        for line in LINES:
            found = asyncio.run(_measured(peers, tap, folder, line, rounds, program))
            yield f"{_table(line, found)}\n"
