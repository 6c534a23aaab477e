"""``python -m comfy_gateway.settings --check``, ``--listen`` or ``--markdown``."""

import argparse
import sys

from comfy_gateway.settings.describe import markdown
from comfy_gateway.settings.load import SettingsError, load


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 when the settings can be used (warnings are printed), 2 when not (faults are printed)."""
    parser = argparse.ArgumentParser(
        prog="python -m comfy_gateway.settings", description="Settings of the gateway."
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="print faults or warnings, one a line")
    action.add_argument(
        "--listen", action="store_true", help="the same, and print host and port to listen on, one a line"
    )
    action.add_argument("--markdown", action="store_true", help="print docs/configuration.md")
    chosen = parser.parse_args(arguments)
    if chosen.markdown:
        sys.stdout.write(markdown())
        return 0
    try:
        settings = load()
    except SettingsError as error:
        sys.stderr.write("".join(f"{fault}\n" for fault in error.faults))
        return 2
    sys.stderr.write("".join(f"warning: {warning}\n" for warning in settings.warnings))
    if chosen.listen:
        sys.stdout.write(f"{settings.listen.host}\n{settings.listen.port}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
