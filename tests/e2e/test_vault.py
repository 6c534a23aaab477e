"""What a pod has made outlives it: mitmdump as a process, a simulated RunPod, the real agent in its pods."""

import hashlib
import json
import signal
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from simulators.comfyui.big_file import big_file_sha256
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import StartGateway
from tests.e2e.world import Duty, Person, eventually, picture


async def on_pod(alice: Person) -> None:
    for _ in range(5):
        await alice.prompt()
    await eventually(alice.is_ready, "alice is on her pod")


async def files_of(person: Person, prompt_id: str) -> list[dict[str, str]]:
    """What the history names of that prompt."""
    history = json.loads(await (await person.get(f"/history/{prompt_id}")).text())
    outputs = history[prompt_id]["outputs"] if prompt_id in history else {}
    return [file for output in outputs.values() for file in output["images"]]


async def view(person: Person, file: dict[str, str], **more: str) -> tuple[int, bytes]:
    url = URL(f"{person.url}/view").with_query({**file, **more})
    async with person.http.get(url, headers=person.headers) as response:
        return response.status, await response.read()


async def test_history_and_pictures_of_a_pod_outlive_it_for_their_user_alone(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    settings = cloud.settings(duty, RUNPOD_TELEMETRY_IDLE_S="1.5")
    async with start_gateway(**settings) as gateway:
        alice, bob = (Person(http, gateway.url, name=name) for name in ("alice", "bob"))
        await on_pod(alice)
        [pod] = cloud.sim.pods.values()
        nodes = picture(7)
        nodes["10"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
        prompt_id = (await (await alice.prompt(nodes)).json())["prompt_id"]

        async def is_done() -> bool:
            return len(await files_of(alice, prompt_id)) == 2

        await eventually(is_done, "both pictures are listed")
        files = await files_of(alice, prompt_id)
        before = {file["type"]: await view(alice, file) for file in files}
        assert {status for status, _ in before.values()} == {200}
        (pod.comfy.folders.output / "unnamed.latent").write_bytes(b"of a node that told nobody")

        await eventually(lambda: not cloud.sim.living(), "the idle pod is gone")
        await gateway.wait_for_line("terminating -> shared")
        assert await files_of(alice, prompt_id) == files
        assert {file["type"]: await view(alice, file) for file in files} == before
        assert await view(alice, files[0], preview="webp;90") != before[files[0]["type"]]
        alias = next(file["subfolder"] for file in files if file["type"] == "output")
        unnamed = {"filename": "unnamed.latent", "subfolder": alias, "type": "output"}
        assert await view(alice, unnamed) == (200, b"of a node that told nobody")
        for file in (*files, unnamed):
            assert (await view(bob, file))[0] == 404
        kept = [path for path in (tmp_path / "vault").rglob("*") if path.is_file()]
        assert len(kept) == 3
        assert gateway.lines_with("vault of pod")
        assert "are lost" not in gateway.log


@pytest.mark.long
async def test_a_gateway_killed_in_the_middle_of_a_copy_has_all_of_it_in_the_end(
    duty: Duty, cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    size_bytes = 300_000_000
    film = {
        "1": {
            "class_type": "SimSaveBytes",
            "inputs": {"size_bytes": size_bytes, "seed": 3, "filename_prefix": "film"},
        }
    }
    parts = tmp_path / "vault" / ".parts"
    async with start_gateway(**cloud.settings(duty)) as gateway:
        alice = Person(http, gateway.url, client_id="tab")
        await on_pod(alice)
        [pod] = cloud.sim.pods.values()
        async with alice.socket():
            prompt_id = (await (await alice.prompt(film)).json())["prompt_id"]
            await eventually(lambda: parts.is_dir() and any(parts.iterdir()), "the copy is under way")
            await gateway.stop(signal.SIGKILL)
    assert not list((tmp_path / "vault").rglob("*.mp4"))
    async with start_gateway(**cloud.settings(duty, RUNPOD_TELEMETRY_IDLE_S="2")) as gateway:
        alice = Person(http, gateway.url)
        await eventually(lambda: not cloud.sim.living(), "the idle pod is gone", within_s=60)
        await gateway.wait_for_line("terminating -> shared")
        [file] = await files_of(alice, prompt_id)
        status, body = await view(alice, file)
        assert status == 200
        assert hashlib.sha256(body).hexdigest() == big_file_sha256(pod.comfy.name, 3, size_bytes)
