"""A pod whose ComfyUI lacks what duty has: its user loses nothing, and nobody pays for another one like it."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from simulators.comfyui import ComfySimulator, Installation
from simulators.runpod import Delays, RunPodSimulator
from simulators.runpod import serve as serve_cloud
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import StartGateway
from tests.e2e.world import Duty, Person, eventually, picture

POORER = Installation(
    without=frozenset({"ImageInvert"}),
    models={"checkpoints": ("sd15.safetensors",), "loras": ("detail.safetensors",)},
)


@pytest.fixture
async def poor_cloud() -> AsyncIterator[Cloud]:
    """Pods that lack a node class and a model of duty."""
    simulator = RunPodSimulator(
        api_key="test-key",
        delays=Delays(create_s=0.1, runtime_s=0.2, app_ready_s=0.6, agent_ready_s=0.4),
        comfy=lambda name: ComfySimulator(name=name, installation=POORER),
    )
    async with serve_cloud(simulator) as served:
        yield Cloud(simulator, served)


def inverted(seed: int) -> dict[str, Any]:
    """A picture that needs the missing node."""
    nodes = picture(seed)
    save = next(id_ for id_, node in nodes.items() if node["class_type"] == "SaveImage")
    turned = {"class_type": "ImageInvert", "inputs": {"image": nodes[save]["inputs"]["images"]}}
    saved = {"class_type": "SaveImage", "inputs": nodes[save]["inputs"] | {"images": ["turned", 0]}}
    return nodes | {"turned": turned, save: saved}


def painted(seed: int) -> dict[str, Any]:
    """A picture that needs the missing model."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sdxl.safetensors"}},
        "2": {"class_type": "SimPaint", "inputs": {"model": ["1", 0], "seed": seed}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    }


async def test_prompts_that_the_pod_cannot_run_stay_on_duty_and_buy_no_other_pod(
    duty: Duty, poor_cloud: Cloud, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(**poor_cloud.settings(duty)) as gateway:
        alice = Person(http, gateway.url, client_id="tab")
        async with alice.socket() as events:
            for seed in range(5):
                assert (await alice.prompt(picture(seed))).status == 200
            await eventually(alice.is_ready, "alice is on her pod")
            [pod] = poor_cloud.sim.pods.values()
            await gateway.wait_for_line("lacks 1 of duty's node classes and 1 of its models;.*'ImageInvert'")

            for graph, missing in (
                (inverted(7), "node 'ImageInvert'"),
                (painted(8), "model 'sdxl.safetensors'"),
            ):
                before = len(duty.sim.accepted)
                answer = await alice.prompt(graph)
                assert answer.status == 200
                assert answer.headers["X-Comfy-Session-Source"] == "duty"
                assert answer.headers["X-Comfy-Session-Ready"] == "1"
                prompt_id = (await answer.json())["prompt_id"]
                assert await events.ended(prompt_id) == "execution_success"
                started = [event for event in events.seen if event["type"] == "execution_start"]
                assert prompt_id in {event["data"]["prompt_id"] for event in started}
                assert len(duty.sim.accepted) == before + 1
                lines = [line for line in gateway.lines_with("a prompt stays on duty") if missing in line]
                assert len(lines) == 1
                history = await (await alice.get(f"/history/{prompt_id}")).json()
                assert history[prompt_id]["status"]["status_str"] == "success"
            assert pod.comfy.accepted == []
            # A page that is loaded now can still draw and send them.
            offered = await (await alice.get("/object_info")).json()
            loader = offered["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"]
            assert "ImageInvert" in offered
            assert loader[0] == ["sd15.safetensors", "sdxl.safetensors"]

            fits = await alice.prompt(picture(9))
            assert fits.headers["X-Comfy-Session-Source"] == "private"
            nowhere = await alice.prompt({"1": {"class_type": "Nonsense", "inputs": {}}})
            assert (nowhere.status, nowhere.headers["X-Comfy-Session-Source"]) == (400, "private")

            poor_cloud.sim.vanish(pod.id)
            await gateway.wait_for_line("terminating -> shared")
            for seed in range(6):
                answer = await alice.prompt(painted(100 + seed))
                assert (answer.status, answer.headers["X-Comfy-Session-Source"]) == (200, "duty")
            assert len(gateway.lines_with("shared -> requested")) == 1
            [told] = gateway.lines_with("earn no pod")
            assert "model 'sdxl.safetensors'" in told

            # What would run there earns one as ever.
            for seed in range(5):
                assert (await alice.prompt(picture(200 + seed))).status == 200
            await eventually(lambda: len(poor_cloud.sim.pods) == 2, "the second pod")
