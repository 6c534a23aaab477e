"""New packages do not slip past the tools."""

import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
# Not part of the product: tests import everything, benchmarks and scripts drive it from outside.
OUTSIDE = {"tests", "benchmarks", "scripts", "container", "config", "docs"}


def test_every_package_is_checked_by_import_linter() -> None:
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    folders = [*PROJECT.iterdir(), *(PROJECT / "addons").iterdir()]
    packages = {folder.name for folder in folders if (folder / "__init__.py").exists()} - OUTSIDE
    assert packages == set(pyproject["tool"]["importlinter"]["root_packages"])


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-demo.lock", "requirements-dev.lock"])
def test_a_lock_names_no_place_and_hashes_every_package(lock: str) -> None:
    text = (PROJECT / lock).read_text()
    assert "://" not in text
    assert "index-url" not in text
    for entry in text.replace("\\\n", "").splitlines():
        if entry and not entry.lstrip().startswith("#"):
            assert "==" in entry
            assert "--hash=sha256:" in entry


def test_each_lock_holds_the_versions_of_the_smaller_one() -> None:
    def pinned(lock: str) -> set[str]:
        lines = (PROJECT / lock).read_text().splitlines()
        return {line.removesuffix(" \\") for line in lines if "==" in line and not line.startswith(" ")}

    assert pinned("requirements.lock") < pinned("requirements-demo.lock") < pinned("requirements-dev.lock")


def test_requirements_and_lock_agree() -> None:
    """A version changed in requirements*.txt without scripts/refresh_locks.sh would never be installed."""
    lock = (PROJECT / "requirements-dev.lock").read_text().lower()
    for name in (
        "requirements.txt",
        "requirements-dev.txt",
        "simulators/requirements.txt",
        "model_sync/requirements.txt",
    ):
        for line in (PROJECT / name).read_text().lower().splitlines():
            if "==" in line and not line.startswith("#"):
                wanted = line.split(";")[0].split("[")[0].split("==")[0].strip().replace("_", "-")
                version = line.split(";")[0].split("==")[1].strip()
                assert f"\n{wanted}=={version} " in lock, f"{wanted} of {name}"
