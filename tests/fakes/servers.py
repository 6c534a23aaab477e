"""ComfyUI servers and agents that answer by script."""

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from comfy_gateway.core.errors import AgentUnavailable, BackendUnavailable, PromptRefused
from comfy_gateway.core.life.telemetry import Sample
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Fates, Health, PromptAnswer, QueueIds
from comfy_gateway.core.prompts.prompts import Outcome
from comfy_gateway.core.requests.refusals import Refusal
from comfy_gateway.core.requests.upstream import Backend, Upstream
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import FakeCloud


@dataclass
class Mood:
    """How the ComfyUI and the agent of one server behave. A pod that does not run answers nothing at all."""

    boot_s: float = 40.0
    """Age of the pod at which ComfyUI answers."""
    agent_s: float = 0.0
    """Further seconds until the agent answers; less than 0 where it is up before ComfyUI."""
    is_healthy: bool = True
    has_agent: bool = True
    is_open: bool = False
    """Whether ComfyUI answers without the token; a duty server always does."""
    knock_status: int | None = 401
    """Status of the answer to a probe of a pod without the token; None: no answer."""
    utilization_percent: float | None = 0.0
    agent_version: str | None = "0.1.0"
    queue: int | None = 0
    """Prompts in ComfyUI's queue, or None when ComfyUI does not tell."""
    synced_bytes: int | None = None
    """What a running model_sync has fetched; None while none runs."""


@dataclass
class FakeServers:
    """Implements the ports Prober and Agent for pods at ``https://{pod_id}-{port}.pods.test`` and other hosts."""

    clock: FakeClock
    cloud: FakeCloud
    usual: Mood = field(default_factory=Mood)
    moods: dict[str, Mood] = field(default_factory=dict)
    """By pod id or host name."""
    tokens: dict[str, str | None] = field(default_factory=dict)
    """The token that the last probe of a pod or host brought."""
    probes: Counter[str] = field(default_factory=Counter)
    samples: Counter[str] = field(default_factory=Counter)
    log_lines: Sequence[str] = tuple(f"line {number}" for number in range(1, 1001))
    """Of every pod's ComfyUI."""
    probe_s: float = 0.0
    """How long a probe takes."""
    asked: str | None = None
    """The pod or host that a probe with a duration is asking at this moment."""

    def mood(self, pod_id: str) -> Mood:
        """How this pod behaves from now on, for a test to change."""
        return self.moods.setdefault(pod_id, Mood(**vars(self.usual)))

    async def probe(self, upstream: Upstream, *, token: str | None = None) -> Health:
        """Healthy once it has booted."""
        id_ = _id_of(upstream.host)
        if self.probe_s:
            self.asked = id_
            await self.clock.sleep(self.probe_s)
            self.asked = None
        self.probes[id_] += 1
        mood = self.mood(id_)
        is_pod = any(pod.id == id_ for pod in self.cloud.pods)
        if is_pod and token is None and not mood.is_open and self._runs(id_, mood.boot_s):
            return Health(False, None, 0.0, f"answered {mood.knock_status}", mood.knock_status)
        if not is_pod or token is not None:
            self.tokens[id_] = token
        if not self._runs(id_, mood.boot_s) or not mood.is_healthy:
            return Health(False, None, 0.0, "502 Bad Gateway")
        return Health(True, mood.queue, 0.0)

    async def sample(self, url: str, *, token: str) -> Sample:
        """What the mood says."""
        id_ = _id_of(Upstream.parse(url).host)
        self.samples[id_] += 1
        mood = self.mood(id_)
        if not mood.has_agent or not self._runs(id_, mood.boot_s + mood.agent_s):
            raise AgentUnavailable("502 Bad Gateway")
        return Sample(
            mood.utilization_percent, mood.queue, None if mood.queue is None else 0, mood.synced_bytes
        )

    async def log(self, url: str, *, token: str, lines: int) -> Sequence[str]:
        """The end of them, where there is an agent."""
        if not self.mood(_id_of(Upstream.parse(url).host)).has_agent:
            raise AgentUnavailable("the agent answered 502")
        return self.log_lines[-lines:]

    async def version(self, url: str, *, token: str) -> str | None:
        """What the mood says."""
        return self.mood(_id_of(Upstream.parse(url).host)).agent_version

    def _runs(self, id_: str, boot_s: float) -> bool:
        pod = next((pod for pod in self.cloud.pods if pod.id == id_), None)
        if pod is None:
            return True  # a duty server
        return pod.ended_s is None and pod.is_running and self.clock.monotonic() - pod.made_s >= boot_s


@dataclass
class FakeComfyServer:
    """Implements ``core.ports.ComfyServer`` by what is written into it."""

    queued: dict[str, set[str]] = field(default_factory=dict)
    """Ids that wait, by backend id."""
    endings: dict[str, Outcome] = field(default_factory=dict)
    """By prompt id; each is made into an entry of the history."""
    down: set[str] = field(default_factory=set)
    """Ids of backends that do not answer."""
    mute: set[str] = field(default_factory=set)
    """Ids of backends that take a question and never answer."""
    asked: list[str] = field(default_factory=list)
    """Ids of the backends whose queue was asked for."""
    posted: list[tuple[str, bytes]] = field(default_factory=list)
    """Backend id and body of each prompt that was accepted; it waits there from then on."""
    refusal: PromptAnswer | None = None
    """What every prompt is answered with instead."""
    interrupted: list[str | None] = field(default_factory=list)
    object_infos: dict[str, bytes] = field(default_factory=dict)
    """By backend id; the others have the one node class that saves pictures."""
    numbers: dict[str, float] = field(default_factory=dict)
    """By prompt id."""
    read: list[str] = field(default_factory=list)
    """Ids of the backends whose object_info was asked for."""

    async def queue(self, backend: Backend) -> QueueIds:
        """Raises BackendUnavailable for one that is down."""
        self.asked.append(backend.id)
        if backend.id in self.mute:
            await asyncio.get_running_loop().create_future()
        self._check(backend)
        return QueueIds(frozenset(), frozenset(self.queued.get(backend.id, ())), self.numbers)

    async def entry(self, backend: Backend, prompt_id: str) -> dict[str, Any] | None:
        """Raises BackendUnavailable for one that is down."""
        self._check(backend)
        outcome = self.endings.get(prompt_id)
        return None if outcome is None else history_entry(outcome)

    async def fates(self, backend: Backend, prompt_ids: Collection[str]) -> Fates:
        """As the real one."""
        alive = await self.queue(backend)
        return {id_: await self.entry(backend, id_) for id_ in prompt_ids if id_ not in alive}

    async def post_prompt(self, backend: Backend, body: bytes) -> PromptAnswer:
        """Accepts everything but for ``refusal``."""
        self._check(backend)
        if self.refusal is not None:
            return self.refusal
        prompt_id = orjson.loads(body)["prompt_id"]
        self.posted.append((backend.id, body))
        self.queued.setdefault(backend.id, set()).add(prompt_id)
        return PromptAnswer(200, {"prompt_id": prompt_id, "number": len(self.posted), "node_errors": {}})

    async def delete_queued(self, backend: Backend, prompt_ids: Collection[str]) -> None:
        """They wait no more."""
        self._check(backend)
        self.queued.get(backend.id, set()).difference_update(prompt_ids)

    async def interrupt(self, backend: Backend, prompt_id: str | None) -> None:
        """Notes it."""
        self._check(backend)
        self.interrupted.append(prompt_id)

    async def object_info(self, backend: Backend) -> bytes:
        """What is written into it."""
        self.read.append(backend.id)
        self._check(backend)
        return self.object_infos.get(backend.id, b'{"SaveImage": {"input": {}, "output_node": true}}')

    def _check(self, backend: Backend) -> None:
        if backend.id in self.down:
            raise BackendUnavailable("502 Bad Gateway")


def history_entry(outcome: Outcome) -> dict[str, Any]:
    """An entry as ComfyUI has it for a prompt that ended so."""
    messages = [["execution_interrupted", {}]] if outcome is Outcome.INTERRUPTED else []
    status = {"status_str": "success" if outcome is Outcome.DONE else "error", "messages": messages}
    return {"prompt": [1, "", {}, {}, []], "outputs": {}, "status": status}


def _id_of(host: str) -> str:
    """``pod1`` of ``pod1-8188.pods.test``; other hosts are their own id."""
    return host.partition("-")[0] if host.endswith(".pods.test") else host


@dataclass
class FakeWitness:
    """Implements ``service.prompts.rescue.Witness``: every server but these has been up for ever."""

    restarted: set[str] = field(default_factory=set)

    def is_unbroken_since(self, backend_id: str, when: datetime) -> bool:
        """By the set."""
        return backend_id not in self.restarted


@dataclass
class FakeInputs:
    """Implements ``service.prompts.rescue.Inputs``: notes what was carried where."""

    carried: list[tuple[str, str]] = field(default_factory=list)
    """Backend id and prompt id."""
    refusal: Refusal | None = None

    async def carry(self, user: UserId | None, document: dict[str, Any], backend: Backend) -> dict[str, Any]:
        """The prompt with a mark of the server. Raises PromptRefused where the test says so."""
        if self.refusal is not None:
            raise PromptRefused(self.refusal)
        self.carried.append((backend.id, document["prompt_id"]))
        return {**document, "carried_to": backend.id}
