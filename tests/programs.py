"""Programs of the system that some tests need: found, or a skip with a reason."""

import os
import shutil
from pathlib import Path

import pytest

REQUIRE_ALL = "GATEWAY_REQUIRE_ALL"

# Names that a program goes by, where it is not the asked one alone.
ALIASES = {
    "chromium": ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
}
# Folders that are not on PATH: Debian's PostgreSQL and nginx, Homebrew, macOS applications. The newest wins.
FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/sbin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Chromium.app/Contents/MacOS",
    "/Applications/Google Chrome.app/Contents/MacOS",
)


def _find(name: str) -> Path | None:
    names = ALIASES.get(name, (name,))
    folders = [
        str(found)
        for pattern in FOLDERS
        for found in sorted(Path("/").glob(pattern.removeprefix("/")), key=_version, reverse=True)
    ]
    for place in (None, os.pathsep.join(folders)):
        for alias in names:
            if found := shutil.which(alias, path=place):
                return Path(found)
    return None


def _version(folder: Path) -> list[int]:
    return [int(word) for word in str(folder).replace("@", "/").split("/") if word.isdigit()]


def require_program(name: str) -> Path:
    """The path of the program, say "chromium", "postgres", "initdb", "psql" or "nginx".

    Skips the test where it is not installed. With GATEWAY_REQUIRE_ALL=1, as CI has it, the test fails
    instead: a check that silently never runs is none.
    """
    if path := _find(name):
        return path
    if os.environ.get(REQUIRE_ALL) == "1":
        pytest.fail(f"{name} is not installed and {REQUIRE_ALL}=1", pytrace=False)
    pytest.skip(f"{name} is not installed")
