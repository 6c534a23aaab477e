"""Writes down which custom nodes a ComfyUI has, each at its version, for the pod's image (container/custom_nodes.txt).

    python scripts/export_custom_nodes.py http://localhost:3000 --output container/custom_nodes.txt
    python scripts/export_custom_nodes.py --folder /path/to/ComfyUI/custom_nodes

ComfyUI's own API does not know versions. ComfyUI-Manager's does: its snapshot is asked for. Where there is no Manager
(exit code 3), read the folder of the nodes instead. What cannot be pinned is a comment in the list and a line on
standard error.
"""

import argparse
import asyncio
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

SNAPSHOTS: Final = ("/v2/snapshot/get_current", "/snapshot/get_current")
"""Of ComfyUI-Manager 4 (a part of ComfyUI) and of 3 (a custom node)."""
TIMEOUT_S: Final = 60.0

COMMIT: Final = re.compile(r"[0-9a-f]{40}")
REGISTRY_WORD: Final = re.compile(r"[A-Za-z0-9._+-]+")
SCP_ADDRESS: Final = re.compile(r"(?:ssh://)?git@(?P<host>[A-Za-z0-9.-]+)[:/](?P<path>[^\s]+)")


class NoAnswer(Exception):
    """There is no snapshot to be had: nothing listens, or there is no Manager."""


@dataclass
class NodeList:
    """`lines` as install_custom_nodes.sh reads them; `left_out` says what is not in them, and why."""

    lines: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add_git(self, address: str, commit: str) -> None:
        url = public_address(address)
        if url is None:
            self.left_out.append(f"{without_secret(address)}: not an address that a build can fetch from")
        elif not COMMIT.fullmatch(commit):
            self.left_out.append(f"{url}: no commit is known")
        else:
            self.lines.append(f"git {url} {commit}")

    def add_registry(self, name: str, version: str) -> None:
        if REGISTRY_WORD.fullmatch(name) and REGISTRY_WORD.fullmatch(version):
            self.lines.append(f"registry {name} {version}")
        else:
            self.left_out.append(f"{name!r} {version!r}: no name and version of the registry")

    def text(self) -> str:
        """The file: sorted, what was left out as comments at its end."""
        head = "# Written by scripts/export_custom_nodes.py. What a line means: docs/container.md\n"
        comments = [f"# left out: {one}" for one in sorted(self.left_out)]
        return head + "".join(f"{line}\n" for line in [*sorted(self.lines), *comments])


def without_secret(address: str) -> str:
    """The address without the user and password that somebody cloned it with."""
    return re.sub(r"//[^/@\s]*@", "//", address)


def public_address(address: str) -> str | None:
    """As https, without a user, a password, a query; None for anything that is no address of a server."""
    if scp := SCP_ADDRESS.fullmatch(address):
        address = f"https://{scp['host']}/{scp['path']}"
    parts = urlsplit(without_secret(address))
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", address):
        return None
    return f"https://{parts.netloc}{parts.path}"


def from_snapshot(snapshot: dict[str, Any]) -> NodeList:
    """Reads `{"git_custom_nodes": {url: {"hash", "disabled"}}, "cnr_custom_nodes": {id: version},
    "file_custom_nodes": [{"filename", "disabled"}]}`. Disabled ones are passed over."""
    nodes = NodeList()
    for address, state in (snapshot.get("git_custom_nodes") or {}).items():
        if not state.get("disabled"):
            nodes.add_git(address, str(state.get("hash", "")))
    for name, version in (snapshot.get("cnr_custom_nodes") or {}).items():
        nodes.add_registry(name, str(version))
    for file in snapshot.get("file_custom_nodes") or []:
        if not file.get("disabled"):
            nodes.left_out.append(
                f"{file.get('filename')}: a single file has no version; copy it into the image"
            )
    return nodes


async def ask(comfyui_url: str, headers: dict[str, str]) -> NodeList:
    """Raises NoAnswer."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as client:
        for path in SNAPSHOTS:
            try:
                async with client.get(comfyui_url.rstrip("/") + path) as answer:
                    if answer.status != 200:
                        continue
                    snapshot = await answer.json(content_type=None)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise NoAnswer(f"{comfyui_url} does not answer: {error}") from error
            if isinstance(snapshot, dict) and "git_custom_nodes" in snapshot:
                return from_snapshot(snapshot)
    raise NoAnswer(f"{comfyui_url} has no ComfyUI-Manager that tells a snapshot; use --folder on its machine")


def _git(folder: Path, *arguments: str) -> str:
    """What git says, "" where it fails."""
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)  # noqa: S607
    return done.stdout.strip() if done.returncode == 0 else ""


def from_folder(folder: Path) -> NodeList:
    """Reads a `custom_nodes` folder: git checkouts, and those that the Manager fetched from the registry."""
    nodes = NodeList()
    for place in sorted(folder.iterdir()):
        name = place.name
        if name.startswith((".", "__")) or name.endswith(".disabled"):
            continue
        if place.is_file():
            if place.suffix == ".py":
                nodes.left_out.append(f"{name}: a single file has no version; copy it into the image")
        elif (place / ".git").exists():
            nodes.add_git(_git(place, "remote", "get-url", "origin"), _git(place, "rev-parse", "HEAD"))
            if _git(place, "status", "--porcelain", "--untracked-files=no"):
                nodes.left_out.append(f"{name}: changes beside its commit")
        elif (place / ".tracking").exists() and (project := place / "pyproject.toml").exists():
            told = tomllib.loads(project.read_text()).get("project", {})
            nodes.add_registry(str(told.get("name", "")), str(told.get("version", "")))
        else:
            nodes.left_out.append(
                f"{name}: neither a git checkout nor from the registry; copy it into the image"
            )
    return nodes


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("url", nargs="?", help="the ComfyUI to ask")
    source.add_argument("--folder", type=Path, help="its folder custom_nodes, read instead")
    parser.add_argument("--output", type=Path, help="the file to write (default: standard output)")
    parser.add_argument(
        "--header", action="append", default=[], help="'Name: value', sent along; may be repeated"
    )
    options = parser.parse_args()
    try:
        if options.folder is None:
            headers = dict(header.split(": ", 1) for header in options.header)
            nodes = asyncio.run(ask(options.url, headers))
        else:
            nodes = from_folder(options.folder)
    except NoAnswer as error:
        sys.stderr.write(f"export_custom_nodes: {error}\n")
        return 3
    except (OSError, ValueError) as error:
        sys.stderr.write(f"export_custom_nodes: {error}\n")
        return 2
    for one in nodes.left_out:
        sys.stderr.write(f"left out: {one}\n")
    if options.output is None:
        sys.stdout.write(nodes.text())
    else:
        options.output.write_text(nodes.text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
