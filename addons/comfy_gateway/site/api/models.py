"""What the API says and takes: the shapes in docs/api.md."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from comfy_gateway.core.own_pod import KEEP_MINUTES
from comfy_gateway.core.session import State


class Said(BaseModel):
    """Part of an answer. Every field is always there."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class Taken(BaseModel):
    """A body. What it does not know it refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
    source: Literal["duty", "private"] = Field(description="Where new prompts go.")
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


class Nothing(Taken):
    """An empty object, or no body at all."""


class Keep(Taken):
    """For how long."""

    minutes: Literal[30] = KEEP_MINUTES
