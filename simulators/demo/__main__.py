"""`python -m simulators.demo`: see the package."""

import argparse
import asyncio
import os
import sys

from simulators.demo.performance import perform
from simulators.demo.scenery import DEFAULT_PORT


def port_number(text: str) -> int:
    """Raises ArgumentTypeError for what is no port."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no port: a number from 0 to 65535 (it can come from PORT)"
        )
    return int(text)


def parser() -> argparse.ArgumentParser:
    told = argparse.ArgumentParser(
        prog="./run_gateway.sh demo",
        description="The gateway with a simulated ComfyUI and a simulated RunPod. Nothing is bought, nothing leaves "
        "this machine, and no setting of yours is used but PORT. Ctrl-C ends it.",
    )
    told.add_argument(
        "--port",
        type=port_number,
        # A text, so that a PORT that is none is told like an option that is none.
        default=os.environ.get("PORT", "").strip() or str(DEFAULT_PORT),
        help=f"where the gateway listens; PORT says it too, otherwise {DEFAULT_PORT}; 0 takes a free one",
    )
    told.add_argument(
        "--script",
        action="store_true",
        help="take alice through burst, move and reaping by itself, then end: "
        "exit code 0 when that worked within a minute",
    )
    told.add_argument(
        "--api",
        choices=("sdk", "v2"),
        default="sdk",
        help="how the gateway speaks to the simulated RunPod (RUNPOD_API)",
    )
    return told


def main() -> int:
    """Exit code: 0 after Ctrl-C, SIGTERM or a script that worked; 1 when something failed, 2 for wrong options."""
    options = parser().parse_args()
    return asyncio.run(perform(options.port, is_scripted=options.script, api=options.api))


if __name__ == "__main__":
    sys.exit(main())
