"""A run of model_sync, within the test or as a process of its own."""

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from model_sync import manifest
from model_sync.bandwidth import Bandwidth
from model_sync.manifest import Entry
from model_sync.options import Pace
from model_sync.progress import Amount, Report, StatusFile
from model_sync.s3 import Bucket
from model_sync.sources import Source
from model_sync.sync import Outcome, Sync
from model_sync.tokens import Tokens
from model_sync.transfer import Transfer
from model_sync.web import Web

PROJECT = Path(__file__).parents[2]
FAST = Pace(
    retries=3,
    backoff_s=0.005,
    backoff_max_s=0.02,
    retry_after_max_s=0.2,
    stall_s=1.0,
    slow_window_s=0.2,
    look_again_s=0.02,
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(path: str, *urls: str, data: bytes | None = None, **fields: Any) -> Entry:
    """With size and checksum of `data` where it is given."""
    known = {} if data is None else {"size_bytes": len(data), "sha256": sha256(data)}
    return Entry(name=path, path=path, urls=urls, **{**known, **fields})


@dataclass
class Told:
    """A screen that keeps what it is told."""

    every_s: float = 0.02
    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    ticks: list[Amount] = field(default_factory=list)

    def event(self, name: str, fields: dict[str, object]) -> None:
        self.events.append((name, fields))

    def tick(self, files: dict[str, Amount], whole: Amount) -> None:
        self.ticks.append(whole)

    def reasons(self, name: str) -> str:
        return "\n".join(str(fields) for event, fields in self.events if event == name)

    def count(self, name: str) -> int:
        return sum(event == name for event, _ in self.events)


async def run(
    base: Path,
    *entries: Entry,
    pace: Pace = FAST,
    tokens: Tokens | None = None,
    told: Told | None = None,
    connector: aiohttp.BaseConnector | None = None,
) -> Outcome:
    """Raises what `Sync.run` raises."""
    tokens = tokens or Tokens()
    base.mkdir(parents=True, exist_ok=True)
    report = Report(told or Told(), StatusFile(None))
    bandwidth = Bandwidth(pace.max_bytes_per_s)
    async with Web.running(
        tokens, stall_s=pace.stall_s, block_bytes=bandwidth.block_bytes, connector=connector
    ) as web:
        bucket = Bucket(block_bytes=bandwidth.block_bytes)

        def source(url: URL) -> Source:
            return bucket if url.scheme == "s3" else web

        transfer = Transfer(
            base.resolve(), source, tokens=tokens, bandwidth=bandwidth, pace=pace, report=report
        )
        sync = Sync(base.resolve(), source, transfer, tokens=tokens, pace=pace, report=report)
        return await sync.run(entries)


def leftovers(base: Path) -> list[str]:
    """Every file below `base` but model_sync's own records."""
    return sorted(
        str(file.relative_to(base))
        for file in base.rglob("*")
        if file.is_file() and ".model_sync" not in file.parts
    )


# ---------------------------------------------------------------------------------------------- as a process of its own

QUICK_ARGUMENTS = ("--backoff-s", "0.01", "--retries", "4", "--stall-s", "2")


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    def named(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == name]


def write_manifest(file: Path, *models: Mapping[str, Any]) -> Path:
    file.write_text(json.dumps({"version": 1, "models": list(models)}))
    return file


def model(path: str, *urls: str, data: bytes | None = None, **fields: Any) -> dict[str, Any]:
    """An entry as it stands in a manifest."""
    known = {} if data is None else {"size_bytes": len(data), "sha256": sha256(data)}
    return {"name": path, "path": path, "urls": list(urls), **known, **fields}


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Without anything of the person who runs the tests, but what measures coverage."""
    kept = {
        name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("COVERAGE")
    }
    return {**kept, "NO_PROXY": "127.0.0.1,localhost", **(extra or {})}


@asynccontextmanager
async def process(
    *arguments: str | Path, env: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m model_sync …`, killed at the end if it still runs."""
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "model_sync",
        *map(str, arguments),
        cwd=PROJECT,
        env=environment(env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def finish(started: asyncio.subprocess.Process) -> Finished:
    async with asyncio.timeout(60):
        out, err = await started.communicate()
    assert started.returncode is not None
    return Finished(started.returncode, out.decode(), err.decode())


async def command(*arguments: str | Path, env: Mapping[str, str] | None = None) -> Finished:
    async with process(*arguments, env=env) as started:
        return await finish(started)


def parsed(*models: Mapping[str, Any]) -> tuple[Entry, ...]:
    return manifest.parsed({"models": list(models)}).entries
