"""What the API says and takes: the shapes in docs/api.md, from which the OpenAPI document is made."""

import base64
import binascii
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from comfy_gateway.core.life.own_pod import KEEP_MINUTES
from comfy_gateway.core.life.session import Event, State
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.prompts.prompts import Outcome

type Where = Literal["duty", "private"]


class Said(BaseModel):
    """Part of an answer. Every field is always there."""

    model_config = ConfigDict(frozen=True)


class Taken(BaseModel):
    """A body or a query. What it does not know it refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Said):
    """What was wrong."""

    type: str = Field(description="A word for programs.")
    message: str
    details: str
    extra_info: dict[str, Any]


class ProblemSaid(Said):
    """A refusal, in the shape of ComfyUI's own errors."""

    error: Problem
    node_errors: dict[str, Any]


# One's own session ---------------------------------------------------------------------------------------------


class EtaSaid(Said):
    """Seconds in which half of our own pods, and nine of ten, were ready."""

    p50: float
    p90: float


class CanSaid(Said):
    """What the asker may do now."""

    promote: bool
    keep: bool
    give_back: bool


class Me(Said):
    """One's own session."""

    user: str
    state: State
    source: Where = Field(description="Where new prompts go.")
    gpu: str | None = Field(description="GPU type of the private pod; null without one, or not yet known.")
    prompts_in_window: int
    threshold: int | None = Field(
        description="Prompts within the window that earn a pod; null: none is bought."
    )
    ahead: int | None = Field(
        description="Prompts that run before one's next; null where none of one's own waits."
    )
    eta_s: EtaSaid | None = Field(
        description="Until a pod that starts is ready; null where that cannot be told."
    )
    idle_ends_in_s: float | None = Field(description="Until an idle pod ends; null while it is busy.")
    can: CanSaid
    profiles: list[str] = Field(description="GPU profiles that may be named when asking for a pod.")


class Promote(Taken):
    """How."""

    profile: str | None = Field(None, min_length=1, max_length=64)


class Nothing(Taken):
    """An empty object, or no body at all."""


class Keep(Taken):
    """For how long."""

    minutes: Literal[30] = KEEP_MINUTES


# Operators -----------------------------------------------------------------------------------------------------


class SessionSaid(Said):
    """One user's session."""

    id: str = Field(description="For the paths below /sessions/.")
    user: str
    kind: Literal["named", "browser", "client", "address"] = Field(description="How the user is known.")
    state: State
    since: datetime | None = Field(description="Of the state; null for shared.")
    source: Where = Field(description="Where new prompts go.")
    pod: str | None
    pod_id: str | None
    gpu: str | None
    cost_per_hour_usd: float | None
    ordered_at: datetime | None
    cause: str | None = Field(description="Of the last transition that this gateway has seen.")
    verdict: str | None = Field(description="Why the pod is kept or ended, by the last look at it.")
    prompts: int = Field(description="Unfinished ones, on whatever server.")
    utilization_percent: float | None
    queue: int | None = Field(description="Prompts in the pod's ComfyUI.")
    read_at: datetime | None = Field(description="When the agent told utilisation and queue.")
    idle_ends_at: datetime | None
    times_kept: int


class SessionList(Said):
    """Sessions that have a pod or unfinished prompts."""

    sessions: list[SessionSaid]


class ReadingSaid(Said):
    """One sample of the agent."""

    at: datetime
    utilization_percent: float | None
    queue: int | None


class SessionDetail(SessionSaid):
    """One session with what is too much for a list."""

    cost_usd: float | None = Field(description="Of this pod so far; null without a pod or a price.")
    eta_s: EtaSaid | None
    readings: list[ReadingSaid] = Field(description="Of the last hour, oldest first.")


class ChartSaid(Said):
    """The last hour of one session's pod, a value for each minute, oldest first; null where nothing is known."""

    id: str = Field(description="Of the session.")
    utilization_percent: list[int | None] = Field(description="The mean of the minute.")
    queue: list[int | None] = Field(description="The most prompts of the minute in the pod's ComfyUI.")


class ChartList(Said):
    """Of all sessions that have a pod."""

    until: datetime = Field(description="The end of the last minute.")
    step_s: int
    charts: list[ChartSaid]


class SessionQuery(Taken):
    """Which sessions."""

    user: str | None = Field(None, description="Name, or kind:name.")
    state: State | None = None


class Extend(Taken):
    """For how long an idle pod is left."""

    minutes: int = Field(KEEP_MINUTES, ge=1, le=1440)


class EventSaid(Said):
    """One transition."""

    number: int
    at: datetime
    id: str = Field(description="Of the session.")
    user: str
    before: State
    after: State
    event: Event
    pod: str | None
    cause: str


class EventList(Said):
    """Newest first."""

    events: list[EventSaid]
    next: int | None = Field(description="Ask for before=this for older ones; null at the end.")


class EventQuery(Taken):
    """Which transitions. All that is given must fit."""

    user: str | None = Field(None, description="Name, or kind:name.")
    event: Event | None = None
    state: State | None = Field(None, description="Before or after.")
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    before: int | None = None
    limit: int = Field(100, ge=1, le=500)


class SpendSaid(Said):
    """What one user's pods cost on one day of UTC."""

    day: date
    user: str
    usd: float


class SpendList(Said):
    """By day, then by user."""

    since: date
    until: date = Field(description="Inclusive.")
    total_usd: float
    spend: list[SpendSaid]


def _within_reach(day: date) -> date:
    if not 2000 <= day.year <= 2999:
        raise ValueError("must be between 2000-01-01 and 2999-12-31")
    return day


Day = Annotated[date, AfterValidator(_within_reach)]


class SpendQuery(Taken):
    """Days of UTC, both inclusive; the last 30 days when not given."""

    since: Day | None = None
    until: Day | None = None

    def bounds(self, today: date) -> tuple[date, date]:
        """Both days. Raises ValueError for more than a year, or the wrong order."""
        until = self.until or today
        since = self.since or until - timedelta(days=29)
        if not 0 <= (until - since).days <= 366:
            raise ValueError("'since' and 'until' must be in this order and at most 366 days apart")
        return since, until


class DutySaid(Said):
    """One shared server."""

    id: str
    is_home: bool
    is_healthy: bool | None = Field(description="null before the first probe.")
    reason: str
    queue: int | None
    probe_s: float | None
    prompts: int = Field(description="Unfinished ones that came through the gateway.")


class DutyList(Said):
    """In the order of the settings."""

    servers: list[DutySaid]


class PromptSaid(Said):
    """One accepted prompt."""

    prompt_id: str
    user: str | None
    position: int
    source: Where
    server: str
    outcome: Outcome
    accepted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    replays: int = Field(description="How often it was submitted again.")


class PromptList(Said):
    """Those accepted last first."""

    prompts: list[PromptSaid]
    next: int | None = Field(description="Ask for before=this for older ones; null at the end.")


class PromptQuery(Taken):
    """Which prompts."""

    user: str | None = Field(None, description="Name, or kind:name.")
    outcome: Outcome | None = None
    before: int | None = None
    limit: int = Field(100, ge=1, le=500)


class LogSaid(Said):
    """The end of ComfyUI's log."""

    lines: list[str]


class LogQuery(Taken):
    """How much of it."""

    lines: int = Field(200, ge=1, le=2000)


def session_id(user: UserId) -> str:
    """A user as one segment of a path, whatever characters the name has."""
    return base64.urlsafe_b64encode(user.key.encode()).decode().rstrip("=")


def user_of(id_: str) -> UserId | None:
    """What ``session_id`` wrote; None for anything else."""
    try:
        user = UserId.from_key(base64.urlsafe_b64decode(id_ + "=" * (-len(id_) % 4)).decode("ascii"))
    except (ValueError, binascii.Error):
        return None
    return user if session_id(user) == id_ else None


def in_utc(day: date) -> datetime:
    """Its beginning."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
