"""`python -m agent`: run until SIGTERM or SIGINT. Exit code 2 for settings that are wrong."""

import asyncio
import logging
import os
import sys

from agent.program import run
from agent.settings import WrongSettings, read_settings, unknown_names

logger = logging.getLogger("agent")


def main() -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(name)s: %(message)s")
    try:
        settings = read_settings(os.environ)
    except WrongSettings as wrong:
        for fault in wrong.faults:
            print(f"agent: {fault}", file=sys.stderr)
        return 2
    for name in unknown_names(os.environ):
        logger.warning("%s is no setting of the agent", name)
    try:
        asyncio.run(run(settings))
    except OSError as error:
        print(f"agent: cannot listen on {settings.host}:{settings.port}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
