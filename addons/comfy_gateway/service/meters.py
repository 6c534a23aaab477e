"""The gateway's own counters. Labels are made in advance and never hold a user's name."""

from collections.abc import Collection
from dataclasses import fields
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from comfy_gateway.core.life.session import COUNTED, Event, Session, State
from comfy_gateway.core.money.alarms import AlarmKind
from comfy_gateway.core.prompts.prompts import UNFINISHED, Outcome, PromptRecord
from comfy_gateway.core.requests.classify import RequestClass
from comfy_gateway.core.requests.upstream import Source
from comfy_gateway.service.life.sessions import Sessions

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


BOOT_BUCKETS_S = (15, 30, 45, 60, 90, 120, 180, 240, 360, 600, 1200, 3600)
LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)


class CloudCall(StrEnum):
    """What the cloud was asked for."""

    CREATE = "create"
    LIST = "list"
    GET = "get"
    TERMINATE = "terminate"
    PRICE = "price"


class CloudOutcome(StrEnum):
    """How that went: ``core.errors`` says what each means."""

    OK = "ok"
    NO_CAPACITY = "no_capacity"
    REFUSED = "refused"
    UNAUTHORIZED = "unauthorized"
    UNAVAILABLE = "unavailable"
    BROKEN = "broken"
    """Anything else, a call that was given up among it."""


def _hourly_usd(sessions: Sessions) -> float:
    return sum(one.pod.cost_per_hour_usd or 0.0 for one in sessions.billing() if one.pod is not None)


def _count(sessions: Sessions, state: State) -> float:
    return sum(session.state is state for session in sessions)


class Meters:
    """One registry for one gateway, so that two in a process do not share numbers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._transitions = Counter(
            "comfy_gateway_session_transitions",
            "Session transitions by event",
            ["event"],
            registry=self.registry,
        )
        self._sessions = Gauge(
            "comfy_gateway_sessions",
            "Sessions by state, shared ones left out",
            ["state"],
            registry=self.registry,
        )
        self._prompts = Counter(
            "comfy_gateway_prompts_accepted",
            "Accepted prompts by backend",
            ["source"],
            registry=self.registry,
        )
        self._alarms = Counter("comfy_gateway_alarms", "Alarms by kind", ["kind"], registry=self.registry)
        for kind in AlarmKind:
            self._alarms.labels(kind)
        self._ended = Counter(
            "comfy_gateway_prompts_ended",
            "Prompts by the backend that had them last, and how they ended",
            ["source", "outcome"],
            registry=self.registry,
        )
        self._boots = Histogram(
            "comfy_gateway_boot_seconds",
            "From the order of a pod until it served its user",
            buckets=BOOT_BUCKETS_S,
            registry=self.registry,
        )
        self._cloud = Counter(
            "comfy_gateway_cloud_calls",
            "Calls to RunPod's API by what was asked and how it went",
            ["call", "outcome"],
            registry=self.registry,
        )
        self._hourly_usd = Gauge(
            "comfy_gateway_cost_usd_per_hour",
            "What all private pods together cost in an hour, at the prices that are known",
            registry=self.registry,
        )
        self._today_usd = Gauge(
            "comfy_gateway_spent_today_usd",
            "What all private pods have cost since midnight UTC",
            registry=self.registry,
        )
        self._latency = Histogram(
            "comfy_gateway_request_seconds",
            "From a request's first byte to the first byte of its answer, by kind of request",
            ["kind"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._observed = {str(kind): self._latency.labels(kind).observe for kind in RequestClass}
        for source in (Source.DUTY, Source.PRIVATE):
            for outcome in set(Outcome) - UNFINISHED:
                self._ended.labels(source, outcome)
        for call in CloudCall:
            for cloud_outcome in CloudOutcome:
                self._cloud.labels(call, cloud_outcome)
        for event in Event:
            self._transitions.labels(event)
        for source in (Source.DUTY, Source.PRIVATE):
            self._prompts.labels(source)

    def watch(self, sessions: Sessions) -> None:
        """Count these sessions and their transitions from now on."""
        sessions.watch(self._transition)
        self._hourly_usd.set_function(partial(_hourly_usd, sessions))
        for state in COUNTED | {State.COOLING}:
            self._sessions.labels(state).set_function(partial(_count, sessions, state))

    def watch_values(self, prefix: str, whose: str, holder: "DataclassInstance") -> None:
        """Show each number of a dataclass as it is at the moment of asking: ``<prefix>_<field>``."""
        for field in fields(holder):
            gauge = Gauge(
                f"{prefix}_{field.name}", f"{whose} {field.name.replace('_', ' ')}", registry=self.registry
            )
            gauge.set_function(partial(getattr, holder, field.name))

    def prompt_accepted(self, source: Source) -> None:
        """A server accepted a prompt."""
        self._prompts.labels(source).inc()

    def alarm(self, kind: AlarmKind) -> None:
        """Somebody must hear of something."""
        self._alarms.labels(kind).inc()

    def prompt_changed(self, record: PromptRecord, *, duty_ids: Collection[str]) -> None:
        """To be called once for each ending of a prompt; what has not ended is passed over."""
        if record.is_finished:
            source = Source.DUTY if record.backend_id in duty_ids else Source.PRIVATE
            self._ended.labels(source, record.outcome).inc()

    def cloud_called(self, call: CloudCall, outcome: CloudOutcome) -> None:
        """A call to the cloud is over."""
        self._cloud.labels(call, outcome).inc()

    def spent_today(self, usd: float) -> None:
        """Of all pods, since midnight UTC."""
        self._today_usd.set(usd)

    def answered(self, kind: str, seconds: float) -> None:
        """The first byte of an answer went out. ``kind`` is a RequestClass; others are passed over."""
        if (observe := self._observed.get(kind)) is not None:
            observe(seconds)

    def _transition(self, before: Session, after: Session, event: Event) -> None:
        self._transitions.labels(event).inc()
        if before.state is State.VERIFYING and after.state is State.READY and after.pod is not None:
            self._boots.observe(max((after.since - after.pod.ordered_at).total_seconds(), 0.0))
