"""What the services need from the world. ``adapters`` implements these; one contract suite tests each."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from comfy_gateway.core.life.eta import Start
from comfy_gateway.core.life.session import Session
from comfy_gateway.core.life.telemetry import Sample
from comfy_gateway.core.money.costs import Bill
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.prompts.prompts import Hiding, LedgerChange, LedgerRow, PromptRecord
from comfy_gateway.core.requests.upstream import Backend, Upstream


class Clock(Protocol):
    """Time. Durations are measured with ``monotonic``, stored times are UTC."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        ...

    def now(self) -> datetime:
        """Aware UTC time."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """One place to look for a machine."""

    gpu_type: str
    cloud_type: str
    """SECURE, COMMUNITY or ALL."""
    data_center: str | None = None
    max_usd_per_hour: float | None = None
    """A pod that costs more is not bought here; None: no ceiling but the budgets."""


@dataclass(frozen=True, slots=True)
class PodOrder:
    """Everything that a create call says. Name, ids and env are validated by the adapter before they are sent."""

    name: str
    candidate: Candidate
    env: Mapping[str, str] = field(repr=False)
    """May hold secrets: never logged."""


@dataclass(frozen=True, slots=True)
class CloudPod:
    """One pod of the account, whoever made it, as the cloud tells it."""

    id: str
    name: str
    is_running: bool
    """The cloud wants it to run (RunPod: ``desiredStatus`` RUNNING). Intent, not health."""
    has_machine: bool
    """A runtime was reported: the container is up."""
    cost_per_hour_usd: float | None
    gpu_type: str | None
    status_text: str = ""
    """Last status change in the cloud's own words; empty when it said none."""
    created_at: datetime | None = None
    """When it was rented, aware; None where the cloud does not say."""
    is_placed: bool | None = None
    """Whether it is on a machine; None where the cloud does not say."""
    gpu_percents: tuple[float, ...] | None = None
    """How busy its GPUs are by the cloud's own measure; None where it does not say. It cannot see ComfyUI's queue."""


class Cloud(Protocol):
    """A place where pods are rented. Every call may take as long as the request timeout and no longer."""

    async def create_pod(self, order: PodOrder) -> str:
        """Rent a pod; returns its id.

        Raises CapacityRefused, CloudRefused or CloudUnauthorized when it is certain that nothing was made, and
        CloudUnavailable when the outcome is unknown: the pod may exist under the order's name.
        """
        ...

    async def list_pods(self) -> Sequence[CloudPod]:
        """All pods of the account. Raises CloudUnavailable or CloudUnauthorized rather than return a part."""
        ...

    async def get_pod(self, pod_id: str) -> CloudPod | None:
        """One pod, or None when the cloud says that it does not exist.

        Raises CloudUnavailable, CloudUnauthorized, or CloudRefused for what cannot be an id.
        """
        ...

    async def terminate_pod(self, pod_id: str) -> None:
        """Ask for the end of a pod. A return proves nothing: read back. Raises as ``get_pod``."""
        ...

    async def price_per_hour_usd(self, candidate: Candidate) -> float | None:
        """What one pod at this candidate would cost, or None when the cloud does not say. Raises as ``get_pod``."""
        ...

    async def aclose(self) -> None:
        """Let go of threads and connections. Calls in flight are not waited for."""
        ...


class SessionStore(Protocol):
    """Where sessions survive a restart. Raises StoreUnavailable when the database does not answer."""

    async def load_sessions(self) -> Sequence[Session]:
        """All sessions that are not plainly SHARED."""
        ...

    async def save_session(self, session: Session) -> Session:
        """Write the session if its ``version`` is the stored one (0: not stored yet); returns it with the next version.

        Raises StaleRecord when somebody else saved it meanwhile; nothing is written then.
        """
        ...

    async def record_pod_end(self, user: UserId, pod_name: str, *, cause: str, at: datetime) -> None:
        """Close the row of this pod in the history of pods."""
        ...

    async def knows_pod(self, pod_name: str) -> bool:
        """Whether a pod of that name was ever ordered by us."""
        ...

    async def bills(self, *, since: datetime) -> Sequence[Bill]:
        """All pods that lived then or later, in the order in which they were ordered."""
        ...

    async def starts(self, *, newest: int) -> Sequence[Start]:
        """The newest pods that became ready, as many as that, in the order in which they were ordered."""
        ...

    async def first_sight(self, pod_id: str, *, at: datetime) -> datetime:
        """When this pod, which nobody claims, was first seen: ``at`` if it was not seen before, which is then kept."""
        ...

    async def forget_sights(self, *, but: Collection[str]) -> None:
        """Forget the first sights of all pods but these ids."""
        ...

    async def aclose(self) -> None:
        """Close the database."""
        ...


@dataclass(frozen=True, slots=True)
class Health:
    """A server's answer to a probe."""

    is_healthy: bool
    queue_remaining: int | None
    """Prompts running and waiting, or None when the answer did not tell."""
    seconds: float
    reason: str = ""
    """Why it is not healthy, in words fit for the log: no token, no internal address."""
    status: int | None = None
    """Status of its answer; None where there was none, or one that could not be read to its end."""


class Prober(Protocol):
    """Asks a ComfyUI server whether it is ready. Never raises for what a server does: that is in the Health."""

    async def probe(self, upstream: Upstream, *, token: str | None = None) -> Health:
        """GET the health path with the probe's own timeout; healthy is a 2xx with a JSON body."""
        ...


@dataclass(frozen=True, slots=True)
class QueueIds:
    """Ids of the prompts in a server's queue, whoever sent them."""

    running: frozenset[str]
    pending: frozenset[str]
    numbers: Mapping[str, float] = field(default_factory=dict, compare=False)
    """By id: what orders the queue."""

    def __contains__(self, prompt_id: str) -> bool:
        return prompt_id in self.running or prompt_id in self.pending


type Fates = Mapping[str, Mapping[str, Any] | None]
"""Entry of ``/history`` by prompt id, None for an unknown one; those in the queue are left out."""


@dataclass(frozen=True, slots=True)
class PromptAnswer:
    """What a server said to ``POST /prompt``: a definite yes or no."""

    status: int
    document: Mapping[str, Any]
    """``{"prompt_id", "number", "node_errors"}`` or ``{"error", "node_errors"}``."""

    @property
    def prompt_id(self) -> str | None:
        """The id of the accepted prompt, or None when it was refused."""
        prompt_id = self.document.get("prompt_id") if 200 <= self.status < 300 else None
        return prompt_id if isinstance(prompt_id, str) and prompt_id else None


class ComfyServer(Protocol):
    """Questions and orders of our own to a ComfyUI server.

    Every call raises BackendUnavailable when there is no usable answer within its time; what an order did is
    unknown then.
    """

    async def queue(self, backend: Backend) -> QueueIds:
        """What runs and what waits there."""
        ...

    async def entry(self, backend: Backend, prompt_id: str) -> dict[str, Any] | None:
        """The prompt's entry in the history as the server has it, or None when it has none."""
        ...

    async def fates(self, backend: Backend, prompt_ids: Collection[str]) -> Fates:
        """What became of each prompt that neither runs nor waits.

        The queue is read first: a prompt goes from there into the history and never back, so one that is in neither
        answer is not there any more.
        """
        ...

    async def post_prompt(self, backend: Backend, body: bytes) -> PromptAnswer:
        """Submit a prompt. BackendUnavailable means here that it may have been accepted all the same."""
        ...

    async def delete_queued(self, backend: Backend, prompt_ids: Collection[str]) -> None:
        """Take these out of the queue; those that are not in it are passed over."""
        ...

    async def interrupt(self, backend: Backend, prompt_id: str | None) -> None:
        """Interrupt that prompt if it runs; None interrupts whoever runs."""
        ...

    async def object_info(self, backend: Backend) -> bytes:
        """The answer of ``/object_info`` as it came: several MB, which are read outside of the event loop."""
        ...


class Agent(Protocol):
    """Asks the agent in a pod."""

    async def sample(self, url: str, *, token: str) -> Sample:
        """One telemetry sample; the request renews the pod's lease. Raises AgentUnavailable."""
        ...

    async def version(self, url: str, *, token: str) -> str | None:
        """The agent's own version, or None where it does not tell. ``url`` is that of the sample."""
        ...

    async def log(self, url: str, *, token: str, lines: int) -> Sequence[str]:
        """The last lines of ComfyUI's log, at most so many. ``url`` is that of the sample. Raises AgentUnavailable."""
        ...


class LogShelf(Protocol):
    """Keeps the ends of pods' logs beyond the pods."""

    async def keep(self, pod_name: str, lines: Sequence[str]) -> None:
        """Replace what is kept of this pod. Raises OSError, and ValueError for what is no name of a pod."""
        ...

    async def read(self, pod_name: str, lines: int) -> Sequence[str] | None:
        """The last lines, at most so many; None where nothing is kept. Raises OSError."""
        ...


class AlarmSender(Protocol):
    """Hands alarms to people."""

    @property
    def name(self) -> str:
        """Of its address, without what is secret in it."""
        ...

    async def send(self, title: str, text: str) -> None:
        """One alarm. Raises AlarmUnsent when it was not taken, or that is not known."""
        ...


type Entries = Sequence[tuple[PromptRecord, dict[str, Any]]]
"""Prompts that have ended, each with its entry in the history."""


class LedgerStore(Protocol):
    """Where the ledger of prompts survives a restart. Raises StoreUnavailable when the database does not answer."""

    async def write(
        self, changes: Sequence[LedgerChange], hidings: Sequence[Hiding] = ()
    ) -> Sequence[LedgerRow]:
        """Write all of it in one transaction, the hidings last.

        Returns the stored rows of those ``is_new`` prompts whose id is there already; nothing of such a change is
        written. What is for a prompt that is not stored is passed over. A value that the database will not have raises
        its own error, and nothing is written.
        """
        ...

    async def load(self, newest: int) -> Sequence[LedgerRow]:
        """All rows that have not ended or are not confirmed, and the newest of the others, in order of position."""
        ...

    async def highest_position(self) -> int:
        """The highest position that was ever given, 0 where there is none."""
        ...

    async def find(self, prompt_id: str) -> LedgerRow | None:
        """One row."""
        ...

    async def body(self, prompt_id: str) -> bytes | None:
        """The body of a prompt that has not ended, or None where none was stored."""
        ...

    async def entry(self, prompt_id: str) -> dict[str, Any] | None:
        """The stored entry, or None where there is none or its user has taken it out of the history."""
        ...

    async def entries(
        self, user_key: str | None, *, limit: int, before: PromptRecord | None = None
    ) -> Entries:
        """This user's stored entries but for the hidden ones, those that ended last first.

        ``before``: only those that ended before it.
        """
        ...

    async def prune(self, keep: int) -> int:
        """Remove all but the newest ``keep`` of what has ended; returns how many were removed."""
        ...
