"""The files that images are built from. Nothing here builds one: that needs a Docker engine."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.container.pod import CONTAINER, ROOT

DOCKERFILES = ("Dockerfile", "gateway.Dockerfile")
LINE_OF_LIST = re.compile(r"git https://\S+ [0-9a-f]{40}( \S+)?|registry \S+ \S+( \S+)?|#.*|")


def beside_python(program: str) -> str:
    """A program of the same environment, else the one on PATH."""
    path = Path(sys.executable).with_name(program)
    return str(path) if path.exists() else program


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    ended = subprocess.run(
        [beside_python("hadolint"), str(CONTAINER / name)], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "")


def test_shellcheck_finds_nothing() -> None:
    scripts = sorted(str(path) for path in CONTAINER.glob("*.sh"))
    ended = subprocess.run(
        [beside_python("shellcheck"), "--external-sources", *scripts],
        capture_output=True,
        text=True,
        check=False,
    )
    assert scripts
    assert (ended.returncode, ended.stdout) == (0, "")


@pytest.mark.parametrize("path", sorted(CONTAINER.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_may_be_executed(path: Path) -> None:
    assert os.access(path, os.X_OK)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_exists_and_is_not_ignored(name: str) -> None:
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line[:1] == "!"
    }
    text = (CONTAINER / name).read_text().replace("\\\n", " ")
    copies = [
        line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY") and "--from" not in line
    ]
    assert copies
    for source in (word for words in copies for word in words if not word.startswith("--")):
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in allowed, source


def test_the_build_takes_no_state_and_no_secret() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if not line.startswith("#")) == "*"
    assert "**/.env" in lines


@pytest.mark.parametrize(
    "name", ["agent/requirements.txt", "model_sync/requirements.txt", "container/requirements.txt"]
)
def test_the_lock_has_what_the_pods_programs_ask_for(name: str) -> None:
    """A version changed without container/refresh_locks.sh would never be in the image."""
    lock = (CONTAINER / "pod.lock").read_text().lower()
    pins = [
        line.split(";")[0].strip() for line in (ROOT / name).read_text().lower().splitlines() if "==" in line
    ]
    assert pins
    for pin in pins:
        wanted, version = re.sub(r"\[.*\]", "", pin).replace("_", "-").split("==")
        assert f"\n{wanted}=={version} " in lock, pin


@pytest.mark.parametrize("name", ["pod.lock", "comfyui.lock"])
def test_a_lock_names_no_place_and_hashes_every_package(name: str) -> None:
    text = (CONTAINER / name).read_text()
    assert "://" not in text
    entries = [
        line for line in text.replace("\\\n", "").splitlines() if line and not line.lstrip().startswith("#")
    ]
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9.-]+==\S+ .*--hash=sha256:", entry), entry


def test_the_list_of_custom_nodes_can_be_installed() -> None:
    for line in (CONTAINER / "custom_nodes.txt").read_text().splitlines():
        assert LINE_OF_LIST.fullmatch(line), line


def model_paths() -> dict[str, Any]:
    paths: dict[str, Any] = yaml.safe_load((CONTAINER / "extra_model_paths.yaml").read_text())
    return paths


def test_comfyui_finds_every_folder_of_models_that_start_sh_makes() -> None:
    script = (CONTAINER / "start.sh").read_text()
    match = re.search(r"^kinds=\(([^)]+)\)", script, re.MULTILINE)
    assert match is not None
    paths = model_paths()["workspace"]
    assert paths.pop("base_path") == "${MODELS_DIR}"
    assert paths.pop("is_default") is True
    listed = {folder for folders in paths.values() for folder in folders.split("\n") if folder}
    assert set(match[1].split()) <= listed


def test_both_volumes_have_the_same_layout() -> None:
    workspace, network = model_paths()["workspace"], model_paths()["network_volume"]
    assert set(workspace) - {"is_default"} == set(network)


def test_a_local_try_listens_on_this_machine_only_and_has_no_secret_of_its_own() -> None:
    compose = yaml.safe_load((CONTAINER / "compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"pod-cpu", "pod-gpu", "duty", "gateway"}
    for name, service in services.items():
        assert service["profiles"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert (ROOT / "container" / service["build"]["context"] / service["build"]["dockerfile"]).exists()
    for name in ("pod-cpu", "pod-gpu"):
        assert services[name]["environment"]["GATEWAY_POD_TOKEN"].startswith("${GATEWAY_POD_TOKEN:?")
        assert services[name]["environment"]["AUTH_TOKEN"].startswith("${AUTH_TOKEN:?")
    assert "ports" not in services["duty"]
    assert "deploy" in services["pod-gpu"]
    assert "deploy" not in services["pod-cpu"]
