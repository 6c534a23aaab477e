"""`python -m model_sync`."""

import sys

from model_sync.command_line import main

if __name__ == "__main__":
    sys.exit(main())
