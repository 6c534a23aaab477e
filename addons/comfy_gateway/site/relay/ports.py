"""What the relay needs of others, and what it does without them."""

from typing import Any, Protocol

from comfy_gateway.core.prompts.prompts import Outcome
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.service.prompts.ledger import Ledger


class Rescuer(Protocol):
    """Decides what becomes of a prompt that its server does not have any more."""

    def forgotten(self, prompt_id: str, backend_id: str) -> None:
        """The server, asked just now, has the prompt neither in its queue nor in its history.

        Returns at once, and is called again at every look while the prompt is open. In the end the prompt is moved or
        ended in the ledger. A prompt that is moved must be the new server's in the ledger before it is sent there:
        what a server says of a prompt that another one has is not told.
        """
        ...


class FileNotes(Protocol):
    """Remembers which server made which file."""

    def note(self, user_key: str | None, backend: Backend, prompt_id: str, output: Any) -> None:
        """An output of a node, or several by node, as the server named them (not as clients are shown them)."""
        ...


class NoRescue:
    """Implements Rescuer where nothing is submitted again."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def forgotten(self, prompt_id: str, backend_id: str) -> None:
        """The prompt is lost."""
        self._ledger.end(prompt_id, Outcome.LOST)


class NoNotes:
    """Implements FileNotes where nobody asks for files later."""

    def note(self, user_key: str | None, backend: Backend, prompt_id: str, output: Any) -> None:
        """Nothing is kept."""
