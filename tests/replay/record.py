"""Records what a real ComfyUI and its clients say to one another, through the gateway.

    python -m tests.replay.record --duty http://127.0.0.1:3000 --scene api --out tests/replay/api.mitm

The file can be opened with mitmweb. It holds what clients sent and what ComfyUI answered, not what the gateway made
of it; secrets, folders of the machine and ComfyUI's own files are taken out (``clean``).
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

import aiohttp
from mitmproxy import http
from mitmproxy.io import FlowReader, FlowWriter

from tests.e2e.gateway_process import mitmdump, running_gateway
from tests.replay import original
from tests.replay.clean import clean, thinned
from tests.replay.drive import SCENES, Client

KEEP_MB: Final = "64"
"""Bodies and frames that are longer than this are not in the file."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.replay.record",
        description=(__doc__ or "").partition("\n")[0],
        epilog="It works in the ComfyUI as a user: it makes two small pictures and an upload there.",
    )
    parser.add_argument("--duty", required=True, help="address of a ComfyUI, say http://127.0.0.1:3000")
    parser.add_argument("--out", required=True, type=Path, help="file to write, say tests/replay/api.mitm")
    parser.add_argument("--scene", choices=SCENES, default="api", help="what is done (default: api)")
    parser.add_argument(
        "--page", dest="scene", action="store_const", const="page", help="the same as --scene page"
    )
    parser.add_argument(
        "--chromium", type=Path, default=Path("/usr/bin/chromium"), help="for the page (default: %(default)s)"
    )
    return parser.parse_args()


async def record(duty: str, scene: str, chromium: Path) -> list[http.HTTPFlow]:
    """Do the scene with a gateway of its own; returns its flows, cleaned, in the order of their requests."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.mitm"
        await _drive(duty, scene, chromium, raw)
        with raw.open("rb") as file:
            flows = [flow for flow in FlowReader(file).stream() if isinstance(flow, http.HTTPFlow)]
    flows = [clean(flow) for flow in flows if original.REQUEST in flow.metadata]
    flows.sort(key=lambda flow: flow.request.timestamp_start)
    return thinned(flows)


async def _drive(duty: str, scene: str, chromium: Path, raw: Path) -> None:
    settings = {"DUTY_POD_URL": duty, "GATEWAY_KEEP_MB": KEEP_MB}
    command = mitmdump("-w", str(raw), confdir=raw.parent)
    place = command.index("-s")
    command[place:place] = ["-s", original.__file__]
    async with running_gateway(
        settings, state_dir=raw.parent, confdir=raw.parent, command=command
    ) as gateway:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http_client:
            await SCENES[scene](Client(http_client, gateway.url), gateway.url, chromium)
        assert await gateway.stop() == 0, gateway.log


def write(flows: list[http.HTTPFlow], out: Path) -> None:
    """Write the flows as mitmproxy does."""
    with out.open("wb") as file:
        writer = FlowWriter(file)
        for flow in flows:
            writer.add(flow)


def main() -> int:
    """Record and say what came of it."""
    given = arguments()
    flows = asyncio.run(record(given.duty, given.scene, given.chromium))
    write(flows, given.out)
    frames = sum(len(flow.websocket.messages) for flow in flows if flow.websocket is not None)
    sys.stdout.write(
        f"{given.out}: {len(flows)} requests, {frames} frames, {given.out.stat().st_size} bytes\n"
    )
    return 0 if flows else 1


if __name__ == "__main__":
    sys.exit(main())
