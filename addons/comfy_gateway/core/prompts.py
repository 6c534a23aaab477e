"""One accepted prompt, and how it can end."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """Where a prompt stands. Everything but ACCEPTED is an ending, and a prompt has one ending."""

    ACCEPTED = "accepted"
    DONE = "done"
    ERROR = "error"
    INTERRUPTED = "interrupted"
    LOST = "lost"
    """The server that had it forgot it."""


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
