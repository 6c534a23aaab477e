"""`python -m comfy_gateway.doctor`: see the package."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Final

from comfy_gateway.doctor import packages
from comfy_gateway.doctor.findings import Finding, Status, fail, ok, skip

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
        "Exit code 1 when something is wrong. Without --launch nothing is bought or ended.",
    )
    parser.add_argument("--json", action="store_true", help="the same as one JSON object a line")
    parser.add_argument(
        "--launch",
        action="store_true",
        help="then buy one pod on the account that is set, look at it and end it; says the price and asks before",
    )
    parser.add_argument("--yes", action="store_true", help="with --launch: do not ask")
    options = parser.parse_args(arguments)
    if options.yes and not options.launch:
        parser.error("--yes belongs to --launch")
    report = Report(is_json=options.json)
    report.tell(packages.python())
    for finding in packages.dependencies(REQUIREMENTS):
        report.tell(finding)
    try:
        asyncio.run(_examine(report))
        is_through = _try_a_pod(report, is_agreed=options.yes) if options.launch else True
    except KeyboardInterrupt:
        return 130
    return 130 if not is_through else 1 if report.has_failed else 0


def _try_a_pod(report: Report, *, is_agreed: bool) -> bool:
    """`--launch`. False when it was interrupted."""
    if report.has_failed:
        report.tell(skip("trial", "nothing is bought before all of the above is right"))
        return True
    # Not above: they need the packages that were judged just now.
    from comfy_gateway.doctor.launch import launch, offers_of, question  # noqa: PLC0415
    from comfy_gateway.settings import load  # noqa: PLC0415

    settings = load()
    offers = asyncio.run(offers_of(settings, report.tell))
    if not offers:
        return True
    told = question(offers, settings)
    if is_agreed:
        report.tell(ok("trial", told))
    elif not sys.stdin.isatty():
        report.tell(fail("trial", f"{told} Nobody is there to be asked: --yes buys without asking"))
        return True
    elif not _agrees(told):
        report.tell(skip("trial", "not wanted; nothing was bought"))
        return True
    return asyncio.run(launch(settings, offers, report.tell))


def _agrees(told: str) -> bool:
    sys.stderr.write(f"{told}\nGo on? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


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
