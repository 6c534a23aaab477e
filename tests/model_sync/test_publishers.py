"""Hugging Face and Civitai by their names and by TLS: what they publish is used, and who sees the tokens."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.model_sync.mean_server import content
from tests.model_sync.stand import command, leftovers, model, write_manifest
from tests.model_sync.web_of_hosts import CIVITAI, CIVITAI_TOKEN, COMMIT, DELIVERY, HF_TOKEN, HUB, WebOfHosts

DATA = content(400_000)
FILE = f"https://{HUB}/owner/name/resolve/main/x.safetensors"
PAGE = f"https://{HUB}/owner/name/blob/main/x.safetensors"
DOWNLOAD = f"https://{CIVITAI}/api/download/models/7"
PATH = "checkpoints/x.safetensors"


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[WebOfHosts]:
    async with WebOfHosts(DATA, tmp_path).running() as running:
        yield running


async def test_each_token_is_seen_by_its_host_and_by_nobody_on_a_redirect(
    hosts: WebOfHosts, tmp_path: Path
) -> None:
    manifest = write_manifest(
        tmp_path / "m.json",
        model(PATH, FILE, data=DATA),
        model("loras/detail.safetensors", DOWNLOAD, data=DATA),
    )
    finished = await command("--base-dir", tmp_path / "b", "--manifest", manifest, env=hosts.env)
    assert finished.code == 0, finished
    assert hosts.hosts_with_a_token == {(HUB, f"Bearer {HF_TOKEN}"), (CIVITAI, f"Bearer {CIVITAI_TOKEN}")}
    assert hosts.paths(DELIVERY) == ["/blob", "/blob"]
    assert "geheim" not in finished.out + finished.err
    kept = "".join(file.read_text(errors="replace") for file in (tmp_path / "b/.model_sync").rglob("*.json"))
    assert "geheim" not in kept


async def test_a_token_in_a_file_serves_as_well(hosts: WebOfHosts, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{HF_TOKEN}\n")
    env = {**hosts.env, "HF_TOKEN_FILE": str(tmp_path / "token")}
    del env["HF_TOKEN"]
    manifest = write_manifest(tmp_path / "m.json", model(PATH, FILE, data=DATA))
    assert (await command("--base-dir", tmp_path / "b", "--manifest", manifest, env=env)).code == 0


async def test_without_a_token_the_reason_names_the_variable(hosts: WebOfHosts, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "m.json", model(PATH, FILE), model("loras/y", DOWNLOAD))
    env = {name: value for name, value in hosts.env.items() if not name.endswith("_TOKEN")}
    finished = await command("--base-dir", tmp_path / "b", "--manifest", manifest, env=env)
    assert finished.code == 1
    reasons = {event["path"]: event["reasons"][0] for event in finished.named("missing")}
    assert "401 (needs HF_TOKEN?)" in reasons[PATH]
    assert "401 (needs CIVITAI_TOKEN?)" in reasons["loras/y"]


async def test_the_checksum_that_the_hub_publishes_holds_where_the_manifest_has_none(
    hosts: WebOfHosts, tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path / "m.json", model(PATH, PAGE))
    arguments = (
        "--base-dir",
        tmp_path / "b",
        "--manifest",
        manifest,
        "--backoff-s",
        "0.01",
        "--retries",
        "2",
    )
    hosts.published_sha256 = "0" * 64
    finished = await command(*arguments, env=hosts.env)
    assert finished.code == 1
    assert "corrupt" in finished.out
    assert PATH not in leftovers(tmp_path / "b")
    hosts.published_sha256 = ""
    async with WebOfHosts(DATA, tmp_path).running() as honest:
        assert (await command(*arguments, env=honest.env)).code == 0
        # The version of this moment, so that a continued file is the same one.
        assert f"/owner/name/resolve/{COMMIT}/x.safetensors" in honest.paths(HUB)


async def test_a_hub_that_publishes_another_file_is_left_before_a_byte_has_come(
    hosts: WebOfHosts, tmp_path: Path
) -> None:
    hosts.published_sha256 = "0" * 64
    manifest = write_manifest(tmp_path / "m.json", model(PATH, FILE, data=DATA))
    finished = await command("--base-dir", tmp_path / "b", "--manifest", manifest, env=hosts.env)
    assert finished.code == 1
    assert "publishes another file" in finished.out
    assert hosts.paths(DELIVERY) == []


async def test_a_hub_that_says_nothing_still_gives_the_file(hosts: WebOfHosts, tmp_path: Path) -> None:
    hosts.hub_answers = False
    manifest = write_manifest(tmp_path / "m.json", model(PATH, FILE, data=DATA))
    finished = await command("--base-dir", tmp_path / "b", "--manifest", manifest, env=hosts.env)
    assert finished.code == 0, finished
    assert finished.named("unpublished")


async def test_a_whole_repository_of_comfyui_managers_list_comes_file_by_file(
    hosts: WebOfHosts, tmp_path: Path
) -> None:
    entry = {
        "name": "all",
        "type": "x",
        "save_path": "diffusers",
        "filename": "<huggingface>",
        "url": "owner/name",
    }
    manifest = write_manifest(tmp_path / "m.json", entry)
    arguments = ("--base-dir", tmp_path / "b", "--manifest", manifest)
    finished = await command(*arguments, env=hosts.env)
    assert finished.code == 0, finished
    assert leftovers(tmp_path / "b") == ["diffusers/name/config.json", "diffusers/name/unet/x.safetensors"]
    assert (await command("verify", *arguments, env=hosts.env)).code == 0
    assert (await command("prune", "--dry-run", *arguments, env=hosts.env)).events == []


async def test_add_takes_size_and_checksum_from_the_publisher(hosts: WebOfHosts, tmp_path: Path) -> None:
    manifest = tmp_path / "m.json"
    for arguments in ((PAGE, "--folder", "checkpoints"), (DOWNLOAD,)):
        finished = await command("add", *arguments, "--manifest", manifest, env=hosts.env)
        assert finished.code == 0, finished
    first, second = json.loads(manifest.read_text())["models"]
    # The address that people know, not that of today's commit nor the page about the file.
    assert (first["path"], first["urls"]) == (PATH, [FILE])
    assert (second["path"], second["urls"]) == ("loras/detail.safetensors", [DOWNLOAD])
    for added in (first, second):
        assert (added["size_bytes"], added["sha256"]) == (len(DATA), model("x", data=DATA)["sha256"])
    refused = await command(
        "add", FILE, "--path", "a/x", "--sha256", "0" * 64, "--manifest", manifest, env=hosts.env
    )
    assert refused.code == 2
