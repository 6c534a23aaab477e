"""`python -m comfy_gateway.doctor`: see the package."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Final

from comfy_gateway.doctor import packages
from comfy_gateway.doctor.findings import Finding, Status, fail, skip

REQUIREMENTS: Final = Path(__file__).resolve().parents[3] / "requirements.txt"


class Report:
    """Prints each finding when it is made, and remembers whether something is wrong."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self.has_failed = False

    def tell(self, finding: Finding) -> None:
        """One line."""
        self.has_failed |= finding.status is Status.FAIL
        sys.stdout.write(f"{finding.json() if self._is_json else finding.line()}\n")
        sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 1 when something is wrong, 0 otherwise."""
    parser = argparse.ArgumentParser(
        prog="./run_gateway.sh doctor",
        description="Looks at Python, dependencies, settings, the shared ComfyUI and RunPod: one line each. "
        "Exit code 1 when something is wrong. Nothing is bought or ended.",
    )
    parser.add_argument("--json", action="store_true", help="the same as one JSON object a line")
    report = Report(is_json=parser.parse_args(arguments).json)
    report.tell(packages.python())
    for finding in packages.dependencies(REQUIREMENTS):
        report.tell(finding)
    try:
        asyncio.run(_examine(report))
    except KeyboardInterrupt:
        return 130
    return 1 if report.has_failed else 0


async def _examine(report: Report) -> None:
    try:
        # Not above: it needs the packages that were judged just now.
        from comfy_gateway.doctor.examination import examine  # noqa: PLC0415
    except ImportError as error:
        if not report.has_failed:
            report.tell(fail("dependencies", f"{error.name or 'a module'} cannot be imported"))
        report.tell(skip("everything else", "install the packages first: pip install -r requirements.txt"))
        return
    async for finding in examine():
        report.tell(finding)


if __name__ == "__main__":
    sys.exit(main())
