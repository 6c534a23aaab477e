"""Python and the packages beside it, judged with Python's own library alone."""

import importlib
import importlib.metadata
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from comfy_gateway.adapters.runpod_import import import_sdk
from comfy_gateway.doctor.findings import Finding, fail, ok, skip, warn

LEAST_PYTHON: Final = (3, 12)
IMPORTED_AS: Final = {
    "argon2-cffi": "argon2",
    "argon2-cffi-bindings": "_argon2_cffi_bindings",
    "nvidia-ml-py": "pynvml",
    "pillow": "PIL",
    "python-dotenv": "dotenv",
    "pyyaml": "yaml",
    "sqlalchemy": "sqlalchemy.ext.asyncio",
}
"""Where the module is not called as the package is."""
EXACT: Final = frozenset({"mitmproxy"})
"""Packages of which the gateway takes no other version."""
_PIN: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^\]]*\])?==(?P<version>[^\s;]+)")


def python() -> Finding:
    """Whether this Python is new enough."""
    subject = f"Python {platform.python_version()}"
    if sys.version_info < LEAST_PYTHON:
        return fail(subject, f"at least {'.'.join(map(str, LEAST_PYTHON))} is needed")
    return ok(subject)


def pins(requirements: Path) -> dict[str, list[str]]:
    """Exact versions by package, in lower case. More than one where they depend on the Python. Raises OSError."""
    found: dict[str, list[str]] = {}
    for line in requirements.read_text(encoding="utf-8").splitlines():
        if pin := _PIN.match(line):
            found.setdefault(pin["name"].lower(), []).append(pin["version"])
    return found


def dependencies(requirements: Path) -> Iterator[Finding]:
    """One line when all is as it should be, otherwise one for each package that is not."""
    try:
        wanted = pins(requirements)
    except OSError as error:
        yield skip("dependencies", f"{requirements.name} cannot be read: {error.strerror}")
        return
    findings = [finding for name, versions in wanted.items() if (finding := _judge(name, versions))]
    yield from findings
    if not findings:
        yield ok("dependencies", f"{len(wanted)} packages as {requirements.name} says")


def _judge(name: str, versions: list[str]) -> Finding | None:
    subject, wanted = f"package {name}", " or ".join(versions)
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return fail(subject, f"is not installed; {wanted} is needed")
    try:
        if name == "runpod":
            import_sdk()
        else:
            importlib.import_module(IMPORTED_AS.get(name, name.replace("-", "_")))
    except Exception as error:  # noqa: BLE001 - a broken package may raise anything while it is imported
        return fail(subject, f"{installed} cannot be imported ({type(error).__name__})")
    if installed in versions:
        return None
    text = (
        f"{installed} is installed, {wanted} is needed"
        if name in EXACT
        else f"{installed}, tested was {wanted}"
    )
    return fail(subject, text) if name in EXACT else warn(subject, text)
