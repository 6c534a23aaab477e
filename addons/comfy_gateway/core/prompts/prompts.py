"""One accepted prompt, and how it can end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

UNKNOWN_TIME = datetime.fromtimestamp(0, UTC)


class Outcome(StrEnum):
    """Where a prompt stands. Everything but ACCEPTED and RUNNING is an ending, and a prompt has one ending."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    DONE = "done"
    ERROR = "error"
    INTERRUPTED = "interrupted"
    LOST = "lost"
    """The server that had it forgot it."""


UNFINISHED = frozenset({Outcome.ACCEPTED, Outcome.RUNNING})


def outcome_of_history(entry: Any) -> Outcome:
    """How a prompt ended, from its entry in ``/history``.

    ``status.status_str`` is "success" or "error"; an interrupted prompt is an "error" whose messages hold
    ``execution_interrupted``. An entry without a status is an old one that was done.
    """
    status = entry.get("status") if isinstance(entry, Mapping) else None
    if not isinstance(status, Mapping) or status.get("status_str") == "success":
        return Outcome.DONE
    messages = status.get("messages")
    kinds = [message[0] for message in messages if message] if isinstance(messages, list) else []
    return Outcome.INTERRUPTED if "execution_interrupted" in kinds else Outcome.ERROR


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """A prompt that a ComfyUI server has accepted."""

    prompt_id: str
    user_key: str | None
    """``UserId.key``, or None for a request without any identity."""
    sid: str
    """The client's own socket id (not the one that the server sees)."""
    backend_id: str
    outcome: Outcome = Outcome.ACCEPTED
    number: float = 0
    """The number that clients see, which is the gateway's own and not the server's. Negative for ``front``.

    A prompt that ends after others with a greater number gets one above theirs, with which it stands in the history.
    """
    position: int = 0
    """Its place among all prompts that this gateway ever took. The number is the same unless the client chose one."""
    body_sha256: str = ""
    """Of the body as the client sent it, in hexadecimal."""
    accepted_at: datetime = UNKNOWN_TIME
    started_at: datetime | None = None
    ended_at: datetime | None = None
    replays: int = 0
    """How often it was submitted again because the server that had it lost it."""
    node_errors: Mapping[str, Any] = field(default_factory=dict)
    """Of the outputs that the server left out when it accepted the rest."""
    is_hidden: bool = False
    """Whether its user has deleted it from the history."""

    @property
    def is_finished(self) -> bool:
        """Whether the prompt has ended."""
        return self.outcome not in UNFINISHED


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A prompt as it is stored."""

    record: PromptRecord
    is_confirmed: bool = True
    """False from before it is sent to a server until that server is known to have accepted it."""


@dataclass(slots=True)
class LedgerChange:
    """What is to be written about one prompt: the latest of each kind, None for what stays as it is."""

    prompt_id: str
    row: LedgerRow | None = None
    is_new: bool = False
    """Whether the row may only be added: one that is there already stays as it is and is told."""
    is_discarded: bool = False
    """Everything about the prompt is removed; ``row`` is None then."""
    body: bytes | None = field(default=None, repr=False)
    is_body_done: bool = False
    """The body is removed: nobody will submit it again."""
    entry: Mapping[str, Any] | None = field(default=None, repr=False)
    """Its entry in the history, as clients are shown it."""


@dataclass(frozen=True, slots=True)
class Hiding:
    """Prompts that a user has taken out of his history."""

    user_key: str | None
    prompt_ids: frozenset[str] | None
    """None for all that had ended at ``at``."""
    at: datetime


def ended_key(record: PromptRecord) -> tuple[datetime, int, str]:
    """What sorts prompts by the moment of their ending."""
    return (record.ended_at or UNKNOWN_TIME, record.position, record.prompt_id)
