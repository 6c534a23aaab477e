"""What services know, as the API says it."""

from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Health
from comfy_gateway.core.prompts.prompts import PromptRecord
from comfy_gateway.core.requests.upstream import Source
from comfy_gateway.service.life.event_log import Happened
from comfy_gateway.service.life.operations import SessionView
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.requests.duty_pool import DutyPool
from comfy_gateway.site.api.models import DutySaid, EventSaid, PromptSaid, SessionSaid, session_id


def session_said(view: SessionView) -> SessionSaid:
    """One session."""
    return SessionSaid(
        id=session_id(view.user),
        user=view.user.name,
        kind=view.user.kind.value,
        state=view.state,
        since=view.since,
        source="private" if view.source is Source.PRIVATE else "duty",
        pod=view.pod,
        pod_id=view.pod_id,
        gpu=view.gpu,
        cost_per_hour_usd=view.cost_per_hour_usd,
        ordered_at=view.ordered_at,
        cause=view.cause,
        verdict=view.verdict,
        prompts=view.prompts,
        utilization_percent=view.utilization_percent,
        queue=view.queue,
        read_at=view.read_at,
        idle_ends_at=view.idle_ends_at,
        times_kept=view.times_kept,
    )


def event_said(one: Happened) -> EventSaid:
    """One transition."""
    return EventSaid(
        number=one.number,
        at=one.at,
        id=session_id(one.user),
        user=one.user.name,
        before=one.before,
        after=one.after,
        event=one.event,
        pod=one.pod,
        cause=one.cause,
    )


def prompt_said(record: PromptRecord, duty_ids: frozenset[str]) -> PromptSaid:
    """One prompt. Servers that are not shared ones are pods, also those that are long gone."""
    return PromptSaid(
        prompt_id=record.prompt_id,
        user=None if record.user_key is None else UserId.from_key(record.user_key).name,
        position=record.position,
        source="duty" if record.backend_id in duty_ids else "private",
        server=record.backend_id,
        outcome=record.outcome,
        accepted_at=record.accepted_at,
        started_at=record.started_at,
        ended_at=record.ended_at,
        replays=record.replays,
    )


def duty_said(pool: DutyPool, ledger: Ledger) -> list[DutySaid]:
    """The shared servers, without their addresses."""
    found: list[DutySaid] = []
    for backend in pool.backends:
        health: Health | None = pool.last_health.get(backend.id)
        found.append(
            DutySaid(
                id=backend.id,
                is_home=backend is pool.home,
                is_healthy=None if health is None else health.is_healthy,
                reason="" if health is None else health.reason,
                queue=None if health is None else health.queue_remaining,
                probe_s=None if health is None else round(health.seconds, 3),
                prompts=len(ledger.unfinished(backend_id=backend.id)),
            )
        )
    return found
