"""Custom nodes from a shared ComfyUI to an image: the export, and the installation of what it wrote."""

import asyncio
import io
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from scripts import export_custom_nodes
from tests.container.pod import CONTAINER
from tests.programs import require_program

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def node(folder: Path, **files: str) -> str:
    """A repository with these files; the id of its first commit, after which another one follows."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet")
    (folder / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    for name, text in files.items():
        (folder / name.replace("_txt", ".txt")).write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "First")
    first = git(folder, "rev-parse", "HEAD")
    (folder / "later.py").write_text("")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "Later")
    git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")  # as the large hosts have it
    return first


# --- the export -------------------------------------------------------------------------------------------------------


SNAPSHOT: dict[str, Any] = {
    "comfyui": COMMIT,
    "git_custom_nodes": {
        "https://user:hunter2@github.com/owner/b-nodes": {"hash": COMMIT, "disabled": False},
        "git@github.com:owner/a-nodes.git": {"hash": COMMIT, "disabled": False},
        "https://github.com/owner/off": {"hash": COMMIT, "disabled": True},
        "/srv/local": {"hash": COMMIT, "disabled": False},
        "https://github.com/owner/unknown": {"hash": "", "disabled": False},
    },
    "cnr_custom_nodes": {"comfyui-impact-pack": "8.15.3", "evil; rm": "1"},
    "file_custom_nodes": [
        {"filename": "own.py", "disabled": False},
        {"filename": "old.py", "disabled": True},
    ],
    "pips": {},
}


@asynccontextmanager
async def served(routes: dict[str, object]) -> AsyncIterator[str]:
    app = web.Application()

    async def answer(request: web.Request) -> web.Response:
        told = routes.get(request.path)
        if isinstance(told, bytes):
            return web.Response(body=told)
        return web.json_response(told) if told is not None else web.Response(status=404)

    app.router.add_get("/{rest:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("path", ["/snapshot/get_current", "/v2/snapshot/get_current"])
async def test_the_managers_snapshot_becomes_a_list(path: str) -> None:
    async with served({path: SNAPSHOT}) as url:
        nodes = await export_custom_nodes.ask(url, {})
    text = nodes.text()
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        f"git https://github.com/owner/a-nodes.git {COMMIT}",
        f"git https://github.com/owner/b-nodes {COMMIT}",
        "registry comfyui-impact-pack 8.15.3",
    ]
    assert "# left out: own.py" in text
    assert "# left out: /srv/local" in text
    assert "unknown: no commit" in text
    for absent in ("hunter2", "old.py", "/off"):
        assert absent not in text


async def test_a_comfyui_without_manager_says_what_to_do_instead() -> None:
    async with served({}) as url:
        with pytest.raises(export_custom_nodes.NoAnswer, match="use --folder"):
            await export_custom_nodes.ask(url, {})


async def test_nobody_at_home_is_no_answer(free_port: int) -> None:
    with pytest.raises(export_custom_nodes.NoAnswer, match="does not answer"):
        await export_custom_nodes.ask(f"http://127.0.0.1:{free_port}", {})


def test_a_folder_is_read_where_there_is_no_manager(tmp_path: Path) -> None:
    nodes = tmp_path / "custom_nodes"
    node(nodes / "pinned")
    git(nodes / "pinned", "remote", "add", "origin", "https://secret@github.com/owner/pinned.git")
    node(nodes / "changed")
    git(nodes / "changed", "remote", "add", "origin", "https://github.com/owner/changed.git")
    (nodes / "changed" / "__init__.py").write_text("changed")
    node(nodes / "lonely")
    packed = nodes / "from-registry"
    packed.mkdir()
    (packed / ".tracking").write_text("")
    (packed / "pyproject.toml").write_text('[project]\nname = "comfyui-some"\nversion = "1.2.0"\n')
    (nodes / "by-hand").mkdir()
    (nodes / "old.disabled").mkdir()
    (nodes / "__pycache__").mkdir()
    (nodes / "single.py").write_text("")
    (nodes / "readme.md").write_text("")
    output = tmp_path / "list.txt"
    script = Path(export_custom_nodes.__file__)
    ended = subprocess.run(
        [sys.executable, str(script), "--folder", str(nodes), "--output", str(output)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in output.read_text().splitlines() if not line.startswith("#")]
    assert lines == [
        f"git https://github.com/owner/changed.git {git(nodes / 'changed', 'rev-parse', 'HEAD')}",
        f"git https://github.com/owner/pinned.git {git(nodes / 'pinned', 'rev-parse', 'HEAD')}",
        "registry comfyui-some 1.2.0",
    ]
    for left_out in ("changed: changes beside its commit", "by-hand", "single.py", "not an address"):
        assert left_out in ended.stderr
    assert "secret" not in output.read_text() + ended.stderr


# --- the installation -------------------------------------------------------------------------------------------------


def install(
    tmp_path: Path, lines: list[str], registry: str = "http://127.0.0.1:9"
) -> subprocess.CompletedProcess[str]:
    listed = tmp_path / "list.txt"
    listed.write_text("# comment\n\n" + "".join(f"{line}\n" for line in lines))
    nodes, packages = tmp_path / "nodes", tmp_path / "packages"
    return subprocess.run(
        [
            "bash",
            str(CONTAINER / "install_custom_nodes.sh"),
            str(listed),
            str(nodes),
            sys.executable,
            str(packages),
        ],
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "COMFY_REGISTRY_URL": registry, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_a_node_is_installed_at_its_commit_and_not_a_later_one(tmp_path: Path) -> None:
    commit = node(tmp_path / "repository", requirements_txt="aiohttp\n")
    ended = install(tmp_path, [f"git file://{tmp_path}/repository {commit} chosen-name"])
    assert ended.returncode == 0, ended.stderr
    installed = tmp_path / "nodes/chosen-name"
    assert {path.name for path in installed.iterdir()} == {"__init__.py", "requirements.txt"}
    # ComfyUI's packages were enough: nothing was installed beside them.
    assert not list((tmp_path / "packages").rglob("*"))


def test_a_node_that_wants_another_version_of_comfyuis_packages_fails_the_build(tmp_path: Path) -> None:
    commit = node(tmp_path / "repository", requirements_txt="aiohttp==0.0.1\n")
    ended = install(tmp_path, [f"git file://{tmp_path}/repository {commit}"])
    assert ended.returncode != 0
    assert "aiohttp" in ended.stderr + ended.stdout


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"git ssh://github.com/a/b {COMMIT}", "only https addresses"),
        (f"git --upload-pack=evil {COMMIT}", "cannot be a source"),
        ("git https://example.invalid/a main", "is no full commit id"),
        (f"git https://example.invalid/a {COMMIT} ../up", "cannot be a folder's name"),
        (f"git https://example.invalid/a {COMMIT} a b", "more words than expected"),
        ("git https://example.invalid/a", "a version is missing"),
        (f"svn https://example.invalid/a {COMMIT}", "is neither git nor registry"),
        ("registry a/../b 1", "not a registry id"),
    ],
)
def test_a_line_that_is_not_understood_fails_the_build(tmp_path: Path, line: str, said: str) -> None:
    ended = install(tmp_path, [line])
    assert ended.returncode != 0
    assert said in ended.stderr


async def test_a_node_comes_from_the_registry_at_its_version(tmp_path: Path) -> None:
    require_program("curl")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("__init__.py", "NODE_CLASS_MAPPINGS = {}\n")
    routes: dict[str, object] = {"/packed.zip": archive.getvalue()}
    async with served(routes) as url:
        routes["/nodes/comfyui-some/install"] = {"downloadUrl": f"{url}/packed.zip"}
        ended = await asyncio.to_thread(install, tmp_path, ["registry comfyui-some 1.2.0"], url)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "nodes/comfyui-some/__init__.py").exists()
