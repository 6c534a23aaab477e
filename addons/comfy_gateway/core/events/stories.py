"""What the clients of one socket id have been told about each prompt.

A story begins with ``execution_start``, goes on with one ``executed`` for each output, comes to its verdict
(``execution_success``, ``execution_error`` or ``execution_interrupted``) and is over with ``executing`` and
node null, which ComfyUI sends last (0.3.64: ``execution.py``, then ``main.py``). A script may wait for
either of the two.

Each prompt of ours has one story, which comes from the server that the ledger names and has one end:

* What another server says about it is not passed on. That server has lost the prompt, and it runs elsewhere by now.
* A prompt that was submitted again begins a new story: its outputs are told again, its end was not told yet.
* What comes after the end is not passed on, whoever told the end.

Prompts that the ledger does not know are told as they come. Events can overtake the answer by which the ledger
learns of a prompt; such a story becomes ours when it does.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from comfy_gateway.core.events.frames import Message
from comfy_gateway.core.prompts.prompts import UNFINISHED, Outcome, PromptRecord

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
    replays: int = 0
    is_ours: bool = False
    """Whether the ledger has it as a prompt of this user and socket id."""
    outcome: Outcome = Outcome.ACCEPTED
    """The ledger's word on it, which others may know before a socket says it."""
    has_started: bool = False
    """``execution_start`` was told."""
    has_begun: bool = False
    """Anything was told."""
    has_gap: bool = False
    """Nobody listened to its server for a while, so outputs may have been missed."""
    executed: set[str] = field(default_factory=set)
    """Nodes whose outputs were told."""
    has_verdict: bool = False
    is_over: bool = False

    @property
    def needs_socket(self) -> bool:
        """Whether its server has more to tell. Of a prompt that others have ended it has not, unless only the release
        is missing: the end is made up where the server does not tell it at once.
        """
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

    def note(self, record: PromptRecord, *, is_heard: bool = True) -> Story:
        """Take over what the ledger says about a prompt of ours; returns its story.

        ``is_heard``: whether a socket to its server is open, so that nothing of a new story can be missed.
        """
        story = self._stories.get(record.prompt_id)
        if story is None or _is_another_run(story, record):
            story = self._begin(record.prompt_id, record.backend_id)
            story.has_gap = not is_heard
        story.is_ours = True
        story.outcome, story.replays = record.outcome, record.replays
        if not story.is_over:
            self._open[record.prompt_id] = story
        return story

    def hear(self, backend_id: str, message: Message) -> bool:
        """Note what a server says. False when it must not be passed on."""
        prompt_id = message.prompt_id
        if prompt_id is None:
            return True
        story = self._stories.get(prompt_id)
        if story is not None and story.is_ours:
            is_told = story.has_verdict and message.kind in VERDICTS
            if story.backend_id != backend_id or story.is_over or is_told:
                return False
        if story is None or message.kind == "execution_start":
            story = self._begin(prompt_id, backend_id)
        self._note_message(prompt_id, story, message)
        return True

    def cut(self, backend_id: str) -> list[str]:
        """The socket to that server is lost. Returns the prompts of which only the release is missing."""
        for story in self._open.values():
            if story.backend_id == backend_id and not story.has_verdict:
                story.has_gap = True
        return [prompt_id for prompt_id in self.open_on(backend_id) if self._open[prompt_id].has_verdict]

    def open_on(self, backend_id: str) -> list[str]:
        """Prompts of ours on that server whose story is not over, oldest first."""
        return [prompt_id for prompt_id, story in self._open.items() if story.backend_id == backend_id]

    def open_prompts(self) -> list[str]:
        """Prompts of ours whose story is not over, oldest first."""
        return list(self._open)

    def backends_needed(self) -> set[str]:
        """Servers from which more is to come."""
        return {story.backend_id for story in self._open.values() if story.needs_socket}

    def end(self, prompt_id: str) -> None:
        """The end was told by us."""
        self._stories[prompt_id].is_over = True
        self._open.pop(prompt_id, None)

    def _begin(self, prompt_id: str, backend_id: str) -> Story:
        before = self._stories.pop(prompt_id, None)
        story = Story(backend_id)
        if before is not None and before.backend_id == backend_id:
            story.is_ours, story.outcome, story.replays = before.is_ours, before.outcome, before.replays
        self._stories[prompt_id] = story
        if story.is_ours:
            self._open[prompt_id] = story
        else:
            self._open.pop(prompt_id, None)
        self._forget_oldest()
        return story

    def _note_message(self, prompt_id: str, story: Story, message: Message) -> None:
        story.has_begun = True
        if message.kind == "execution_start":
            story.has_started = True
        elif message.kind == "executed":
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


def _is_another_run(story: Story, record: PromptRecord) -> bool:
    if story.backend_id != record.backend_id or (story.is_ours and story.replays != record.replays):
        return True
    return story.is_over and not record.is_finished
