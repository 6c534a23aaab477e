"""What the clients of one socket id have been told about each prompt.

A story begins with ``execution_start``, goes on with one ``executed`` for each output, comes to its verdict
(``execution_success``, ``execution_error`` or ``execution_interrupted``) and is over with ``executing`` and
node null, which ComfyUI sends last (0.3.64: ``execution.py``, then ``main.py``). A script may wait for
either of the two.

Each story is told once: what a server says about a prompt after we have made up its end is not passed on.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from comfy_gateway.core.frames import Message
from comfy_gateway.core.prompts import UNFINISHED, Outcome, PromptRecord

VERDICTS: Final[Mapping[str, Outcome]] = {
    "execution_success": Outcome.DONE,
    "execution_error": Outcome.ERROR,
    "execution_interrupted": Outcome.INTERRUPTED,
}

MAX_STORIES: Final = 4_000


@dataclass(slots=True)
class Story:
    """How far one prompt has been told."""

    backend_id: str
    is_ours: bool = False
    """Whether the ledger has it as a prompt of this user and socket id."""
    outcome: Outcome = Outcome.ACCEPTED
    """The ledger's word on it, which others may know before a socket says it."""
    has_begun: bool = False
    executed: set[str] = field(default_factory=set)
    """Nodes whose outputs were told."""
    has_verdict: bool = False
    is_over: bool = False
    is_made_up: bool = False
    """The end was told by us, not by the server."""

    @property
    def needs_socket(self) -> bool:
        """Whether more is to come. A prompt that others have ended needs nothing when no verdict has come:
        one that was taken out of the queue ends without a word."""
        return self.is_ours and not self.is_over and (self.has_verdict or self.outcome in UNFINISHED)


class Stories:
    """The stories of one socket id. Those that are over are forgotten when there are many."""

    def __init__(self, max_stories: int = MAX_STORIES) -> None:
        self._max_stories = max_stories
        self._stories: OrderedDict[str, Story] = OrderedDict()
        self._open: dict[str, Story] = {}

    def find(self, prompt_id: str) -> Story | None:
        """The story of a prompt, or None when nothing is known of it."""
        return self._stories.get(prompt_id)

    def note(self, record: PromptRecord) -> Story:
        """Take over what the ledger says about a prompt of ours; returns its story."""
        story = self._stories.get(record.prompt_id)
        runs_again = story is not None and not record.is_finished and story.is_over
        if story is None or runs_again or story.backend_id != record.backend_id:
            story = self._begin(record.prompt_id, record.backend_id)
        story.is_ours = True
        story.outcome = record.outcome
        if not story.is_over:
            self._open[record.prompt_id] = story
        return story

    def hear(self, backend_id: str, message: Message) -> bool:
        """Note what a server says. False when it must not be passed on: that story was ended by us."""
        prompt_id = message.prompt_id
        if prompt_id is None:
            return True
        story = self._stories.get(prompt_id)
        is_elsewhere = story is not None and story.backend_id != backend_id
        if story is None or (message.kind == "execution_start" and (is_elsewhere or not story.is_made_up)):
            story = self._begin(prompt_id, backend_id)
        if story.is_made_up:
            return False
        self._note_message(prompt_id, story, message)
        return True

    def unfinished_on(self, backend_id: str) -> list[str]:
        """Prompts of ours on that server whose story is not over, oldest first."""
        return [prompt_id for prompt_id, story in self._open.items() if story.backend_id == backend_id]

    def backends_needed(self) -> set[str]:
        """Servers from which more is to come."""
        return {story.backend_id for story in self._open.values() if story.needs_socket}

    def end(self, prompt_id: str) -> None:
        """The end was told by us, or there is nothing to tell."""
        story = self._stories[prompt_id]
        story.is_over = story.is_made_up = True
        self._open.pop(prompt_id, None)

    def _begin(self, prompt_id: str, backend_id: str) -> Story:
        before = self._stories.pop(prompt_id, None)
        story = Story(backend_id)
        if before is not None and before.backend_id == backend_id:
            story.is_ours, story.outcome = before.is_ours, before.outcome
        self._stories[prompt_id] = story
        self._open.pop(prompt_id, None)
        if story.is_ours:
            self._open[prompt_id] = story
        self._forget_oldest()
        return story

    def _note_message(self, prompt_id: str, story: Story, message: Message) -> None:
        story.has_begun = True
        if message.kind == "executed":
            story.executed.add(str(message.data.get("node")))
        elif message.kind in VERDICTS:
            story.has_verdict = True
        elif message.is_release:
            story.is_over = True
            self._open.pop(prompt_id, None)

    def _forget_oldest(self) -> None:
        if len(self._stories) <= self._max_stories:
            return
        oldest = next((key for key in self._stories if key not in self._open), None)
        if oldest is not None:
            del self._stories[oldest]
