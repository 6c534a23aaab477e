"""One accepted prompt, and how it can end."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """Where a prompt stands. Everything but ACCEPTED is an ending, and a prompt has one ending."""

    ACCEPTED = "accepted"
    DONE = "done"
    ERROR = "error"
    INTERRUPTED = "interrupted"
    LOST = "lost"
    """The server that had it forgot it."""


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

    @property
    def is_finished(self) -> bool:
        """Whether the prompt has ended."""
        return self.outcome is not Outcome.ACCEPTED
