"""The script for ``mitmdump -s addons/gateway.py``: builds the list ``addons``, nothing else."""

import gc
import sys

# What is imported here lives as long as the process. Looking through it for garbage costs a third of the start, and
# afterwards each full collection would hold the event loop up for it.
gc.disable()
try:
    from comfy_gateway.wiring import build_addons
except ModuleNotFoundError as error:
    sys.stderr.write(
        f"The gateway needs the Python package {error.name!r}, which is not installed beside mitmproxy.\n"
        "Install what it needs with: pip install -r requirements.txt (or start it with ./run_gateway.sh)\n"
    )
    sys.exit(1)

try:
    addons = build_addons()
finally:
    gc.freeze()
    gc.enable()
