"""The gateway's own counters. Labels are made in advance and never hold a user's name."""

from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

from comfy_gateway.core.alarms import AlarmKind
from comfy_gateway.core.session import COUNTED, Event, Session, State
from comfy_gateway.core.upstream import Source
from comfy_gateway.service.sessions import Sessions

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


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
        for event in Event:
            self._transitions.labels(event)
        for source in (Source.DUTY, Source.PRIVATE):
            self._prompts.labels(source)

    def watch(self, sessions: Sessions) -> None:
        """Count these sessions and their transitions from now on."""
        sessions.watch(self._transition)
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

    def _transition(self, _before: Session, _after: Session, event: Event) -> None:
        self._transitions.labels(event).inc()
