"""The script for ``mitmdump -s addons/gateway.py``: builds the list ``addons``, nothing else."""

import sys

try:
    from comfy_gateway.wiring import build_addons
except ModuleNotFoundError as error:
    sys.stderr.write(
        f"The gateway needs the Python package {error.name!r}, which is not installed beside mitmproxy.\n"
        "Install what it needs with: pip install -r requirements.txt (or start it with ./run_gateway.sh)\n"
    )
    sys.exit(1)

addons = build_addons()
