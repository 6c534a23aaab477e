"""Afternoons for the operator's page: a busy one, and a crowded one."""

import math

from comfy_gateway.core.life.session import State
from comfy_gateway.core.money.admission import Caps
from comfy_gateway.core.money.market import MarketLimits
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.ports import Candidate
from comfy_gateway.core.prompts.prompts import Outcome
from tests.fakes.clock import FakeClock
from tests.service.world import World, with_rules

GPUS = ("NVIDIA GeForce RTX 4090", "NVIDIA L40S", "NVIDIA A100 80GB PCIe", "NVIDIA RTX 6000 Ada Generation")
PRICES = (0.69, 0.86, 1.64, 0.77)
LOG = (
    "[INFO] Total VRAM 24217 MB, total RAM 128539 MB",
    "[INFO] pytorch version: 2.8.0+cu128",
    "[INFO] Set vram state to: NORMAL_VRAM",
    "[INFO] Device: cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync",
    "[INFO] Using pytorch attention",
    "[INFO] ComfyUI version: 0.3.64",
    "[INFO] ComfyUI frontend version: 1.27.10",
    "[INFO] Import times for custom nodes:",
    "[INFO]    0.0 seconds: /opt/ComfyUI/custom_nodes/websocket_image_save.py",
    "[INFO] Starting server",
    "[INFO] To see the GUI go to: http://0.0.0.0:8188",
    "[INFO] got prompt",
    "[INFO] model weight dtype torch.float16, manual cast: None",
    "[INFO] model_type EPS",
    "[INFO] Requested to load SDXLClipModel",
    "[INFO] loaded completely 21421.6 1560.8 True",
    "[INFO] Requested to load SDXL",
    "[INFO] loaded completely 19573.9 4897.0 True",
    "[INFO] Prompt executed in 9.74 seconds",
    "[INFO] got prompt",
    "[INFO] Prompt executed in 4.12 seconds",
    "[INFO] got prompt",
)


def person(name: str) -> UserId:
    return UserId(IdKind.NAMED, name)


def new_world(pods: int = 10) -> World:
    caps = Caps(max_active_sessions=pods, budget_hourly_usd=5.0 * pods)
    candidates = tuple(Candidate(gpu, "SECURE") for gpu in GPUS)
    return World(
        FakeClock(),
        rules=with_rules(caps=caps, candidates=candidates, market=MarketLimits(max_starting=pods)),
        duties=2,
    )


async def busy_afternoon(world: World) -> None:
    """Five pods in different states after most of an hour, and two users on the shared servers."""
    world.servers.log_lines = LOG
    world.cloud.prices.update(dict(zip(GPUS, PRICES, strict=True)))
    # Three hours ago, so that the day has a history.
    await world.ready(person("nadia"))
    await world.clock.advance(1200)
    await world.until(State.SHARED, person("nadia"))
    await world.clock.advance(5400)
    names = ("amelie", "benjamin", "chidi")
    for name in names:
        pod = await world.ready(person(name))
        world.servers.mood(pod.id).utilization_percent = 60.0
        await world.clock.advance(240)
    for minute in range(48):
        for place, name in enumerate(names):
            mood = world.servers.mood(world.pod(person(name)).id)
            wave = 0.5 + 0.5 * math.sin(minute / (3.0 + 2 * place) + place)
            mood.utilization_percent = round(98 * wave**0.5) if wave > 0.25 else 3.0
            mood.queue = round(6 * wave) if wave > 0.25 else 0
            prompts = world.prompts(person(name), 1)
            world.ledger.end(prompts[0], Outcome.DONE)
        await world.clock.advance(60)
    world.prompts(person("amelie"), 3, is_done=False)
    world.prompts(person("benjamin"), 1, is_done=False)
    chidi = world.servers.mood(world.pod(person("chidi")).id)
    chidi.utilization_percent, chidi.queue = 0.0, 0
    await world.clock.advance(200)
    world.burst(person("danielle"))
    world.prompts(person("eduardo"), 2, is_done=False)
    world.prompts(person("fatima"), 1, is_done=False)
    await world.pool.probe_all()
    await world.until(State.BOOTING, person("danielle"))


async def crowd(world: World, users: int = 200) -> None:
    """So many pods at once, all of them at work for some minutes."""
    people = [person(f"user-{number:03d}") for number in range(users)]
    for one in people:
        world.burst(one)
    await world.clock.advance_until(
        lambda: all(world.state(one) is State.READY for one in people), within_s=3600, step_s=10.0
    )
    for one in people:
        world.servers.mood(world.pod(one).id).utilization_percent = 50.0
    await world.clock.advance(240)
