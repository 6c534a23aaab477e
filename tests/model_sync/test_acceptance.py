"""One large file through everything at once, in flat memory."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from model_sync.base_folder import file_sha256
from tests.model_sync.mean_server import made_up_sha256
from tests.model_sync.stand import PROJECT, QUICK_ARGUMENTS, environment, process, write_manifest

MB = 1 << 20
PATH = "checkpoints/large.safetensors"


@dataclass
class Server:
    """In a process of its own, so that neither side waits for the other's work."""

    port: int
    counts: dict[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def mean_server(size_bytes: int, cut_bytes: int) -> AsyncIterator[Server]:
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.model_sync.mean_server", str(size_bytes), str(cut_bytes)),
        cwd=PROJECT,
        env=environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert started.stdout is not None
    assert started.stdin is not None
    try:
        server = Server(json.loads(await asyncio.wait_for(started.stdout.readline(), 20))["port"])
        yield server
        started.stdin.close()
        server.counts = json.loads(await asyncio.wait_for(started.stdout.readline(), 20))
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def _peak_bytes(pid: int, ended: asyncio.Event) -> int:
    """Of the resident memory, looked at every 50 ms."""
    peak = 0
    while not ended.is_set():
        try:
            peak = max(peak, psutil.Process(pid).memory_info().rss)
        except psutil.Error:
            break
        await asyncio.sleep(0.05)
    return peak


async def _arrives(size_bytes: int, cut_bytes: int, tmp_path: Path, *, limit_s: float) -> None:
    async with mean_server(size_bytes, cut_bytes) as server:
        address = f"http://127.0.0.1:{server.port}"
        manifest = write_manifest(
            tmp_path / "m.json",
            {
                "path": PATH,
                "urls": [f"{address}/corrupt", f"{address}/file"],
                "sha256": await asyncio.to_thread(made_up_sha256, size_bytes),
                "size_bytes": size_bytes,
            },
        )
        arguments = ("--base-dir", tmp_path / "b", "--manifest", manifest, *QUICK_ARGUMENTS)
        ended = asyncio.Event()
        async with process(*arguments, env={"HF_TOKEN": "geheim", "CIVITAI_TOKEN": "geheim"}) as started:
            watching = asyncio.create_task(_peak_bytes(started.pid, ended))
            async with asyncio.timeout(limit_s):
                out, err = await started.communicate()
            ended.set()
            peak = await watching
    assert started.returncode == 0, (out, err)
    assert "corrupt" in out.decode()
    target = tmp_path / "b" / PATH
    assert target.stat().st_size == size_bytes
    assert await asyncio.to_thread(file_sha256, target) == made_up_sha256(size_bytes)
    assert 10 * MB < peak < 150 * MB, f"{peak / MB:.0f} MB"
    # All the traps were walked into, and the second host was not shown anything.
    assert server.counts["asked"]["/corrupt"] == 1
    assert server.counts["asked"]["/moved"] >= size_bytes // cut_bytes
    assert all(authorization is None for _, _, authorization in server.counts["authorizations"])
    target.unlink()


async def test_200_mb_arrive_whole_through_everything_in_flat_memory(tmp_path: Path) -> None:
    await _arrives(200 * MB, 10 * MB, tmp_path, limit_s=60)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_5_gb_arrive_whole_through_everything_in_flat_memory(tmp_path: Path) -> None:
    await _arrives(5_000_000_000, 50_000_000, tmp_path, limit_s=1500)
