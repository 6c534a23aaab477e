"""`python -m simulators.comfyui --port 3000` runs one simulated ComfyUI until SIGTERM or Ctrl-C."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from simulators.comfyui import ComfySimulator, serve
from simulators.comfyui.options import add_installation, installation


async def run(options: argparse.Namespace) -> None:
    simulator = ComfySimulator(
        options.name,
        options.step_s,
        options.output_dir,
        base_dir=options.base_dir,
        installation=installation(options),
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serve(simulator, options.host, options.port, options.prefix) as served:
        sys.stdout.write(f"ComfyUI simulator {simulator.name}: {served.url}\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m simulators.comfyui", description="A stand-in for ComfyUI 0.3.64."
    )
    parser.add_argument(
        "--port", type=int, default=8188, help="0 takes a free one; the first line printed says which"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--name", default="duty", help="is drawn into every picture")
    parser.add_argument(
        "--step-s", type=float, default=0.0, help="seconds that each node takes (each step of SimSleep)"
    )
    parser.add_argument(
        "--output-dir", type=Path, help="where pictures stay; without it they go when the server goes"
    )
    parser.add_argument(
        "--base-dir", type=Path, help="where output, input and user stay; without it they go as well"
    )
    add_installation(parser)
    parser.add_argument("--prefix", default="", help="serve below this path")
    options = parser.parse_args()
    try:
        asyncio.run(run(options))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
