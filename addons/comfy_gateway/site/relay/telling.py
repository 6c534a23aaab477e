"""What the clients of one socket id are told of what their servers say, and of what no server said.

* Events pass as they come, with files under the alias of their server; ``core.events.stories`` says which must not.
* The ledger hears of beginnings and endings. Where it already knows another ending, the clients are told that one.
* The end of a prompt that no socket told is made up, from the server's history or from the ledger's word.

Two servers may execute prompts of one socket id at the same time while it moves. Their events are told as they come,
each true to its prompt: a ``progress_state`` lists the nodes of its own prompt alone. Only what does not name its
prompt needs help: a preview in the old form is taken to be from the node that was last said to execute, so its own
server's ``executing`` is said again before it when another server's was the last.

Everything here is synchronous: events keep their order.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

from comfy_gateway.core.events import frames, making_up
from comfy_gateway.core.events.frames import Frame, Message
from comfy_gateway.core.events.making_up import MadeUp
from comfy_gateway.core.events.stories import VERDICTS, Stories, Story
from comfy_gateway.core.files.files import show_output
from comfy_gateway.core.ports import Clock, Fates
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.prompts.visibility import OPEN, Visibility, is_own
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.site.relay.limits import RelayStats
from comfy_gateway.site.relay.ports import FileNotes, Rescuer

logger = logging.getLogger(__name__)

TO_ONE_SOCKET: Final = frozenset({"executing", "progress", "progress_state", "crystools.monitor"})
"""Kinds that may name no prompt and tell nothing of others: ComfyUI greets a socket that comes back with the node of
its own prompt, and the last tells how busy the machine is."""
RESULTS: Final = frozenset({"executed", *VERDICTS})


class Listeners(Protocol):
    """Who is told."""

    @property
    def is_empty(self) -> bool:
        """Whether nobody listens at this moment."""
        ...

    def tell(self, frame: Frame, *, result_of: str | None = None) -> None:
        """Give a frame to everybody. ``result_of``: the prompt whose output, verdict or release it is."""
        ...


@dataclass(frozen=True, slots=True)
class Running:
    """What a server executes, as it was last told: for clients that come later."""

    prompt_id: str | None = None
    start: Frame | None = None
    executing: Frame | None = None
    progress: Frame | None = None

    def frames(self) -> Iterator[Frame]:
        """In ComfyUI's order."""
        for frame in (self.start, self.executing, self.progress):
            if frame is not None:
                yield frame


NOTHING: Final = Running()


class Telling:
    """The stories of one socket id, and the way of each event to its clients."""

    def __init__(
        self,
        listeners: Listeners,
        *,
        user_key: str | None,
        ledger: Ledger,
        files: FileNotes,
        rescuer: Rescuer,
        clock: Clock,
        stats: RelayStats,
        is_heard: Callable[[str], bool],
        end_later: Callable[[str], None],
        visibility: Visibility = OPEN,
    ) -> None:
        """``is_heard(backend_id)``: whether a socket to that server is open. ``end_later(prompt_id)`` is asked to call
        ``make_up`` soon, unless the server's own words come first.
        """
        self._listeners = listeners
        self._user_key = user_key
        self._ledger = ledger
        self._files = files
        self._rescuer = rescuer
        self._clock = clock
        self._stats = stats
        self._is_heard = is_heard
        self._end_later = end_later
        self._visibility = visibility
        self._foreign_on: set[str] = set()
        """Servers that last spoke of a prompt which is not this user's."""
        self._stories = Stories()
        self._running: dict[str, Running] = {}
        self._speaker: str | None = None
        """The server whose ``executing`` was told last."""

    # -- what the ledger says

    def note(self, record: PromptRecord) -> None:
        """A prompt of this user and socket id was accepted, begun, moved or ended, or something else of it changed."""
        known = self._stories.find(record.prompt_id)
        if known is None and record.is_finished:
            return  # told and forgotten long ago
        story = self._note(record)
        if story.is_over or story.has_verdict or not record.is_finished:
            return
        if record.outcome is Outcome.LOST:
            self.make_up(record.prompt_id, None)
        else:
            self._end_later(record.prompt_id)

    def catch_up(self, record: PromptRecord) -> None:
        """A prompt of which the clients may have missed the end while they were away, or the beginning."""
        self._note(record)
        if record.is_finished:
            self._end_later(record.prompt_id)

    def make_up(self, prompt_id: str, entry: Mapping[str, Any] | None) -> bool:
        """Tell the ending that the ledger knows, unless it was told; True when it was told now.

        ``entry`` is the prompt's in shown form, None where there is none. A prompt whose verdict was told waits for
        the release of its server.
        """
        story, record = self._stories.find(prompt_id), self._ledger.find(prompt_id)
        if story is None or story.is_over or story.has_verdict or record is None or not record.is_finished:
            return False
        made_up = None if entry is None else making_up.from_history(prompt_id, entry, story)
        if made_up is None or made_up.outcome is not record.outcome:
            made_up = making_up.from_outcome(prompt_id, record.outcome, story, now_ms=self._now_ms())
        self._tell_made_up(prompt_id, made_up)
        return True

    # -- what servers say

    def opened(self, backend: Backend) -> None:
        """A socket to that server is open; nothing has been read from it."""
        self._running.pop(backend.id, None)
        self._foreign_on.discard(backend.id)

    def cut(self, backend: Backend) -> None:
        """The socket to that server is closed, for whatever reason."""
        self._running.pop(backend.id, None)
        for prompt_id in self._stories.cut(backend.id):
            self._release(prompt_id)

    def hear(self, backend: Backend, frame: Frame, message: Message | None, *, is_known: bool) -> None:
        """A frame of any kind but ``status`` and ``feature_flags``.

        ``is_known``: the clients have heard before what this server runs, so the greeting of a socket that comes back
        is no news to them.
        """
        if self._is_of_another(backend, frame, message):
            return
        if message is None:
            self._hear_bytes(backend, frame)
        elif (prompt_id := message.prompt_id) is not None:
            self._hear_of(prompt_id, backend, frame, message)
        elif message.kind != "executing" or not is_known:
            self._tell(backend, frame, message)

    def has_missed(self, backend: Backend, message: Message | None) -> bool:
        """Whether something must be made up before this message is told: outputs before a verdict, or the verdict
        before a release.
        """
        if message is None or message.prompt_id is None or not _is_ending(message):
            return False
        story = self._stories.find(message.prompt_id)
        return story is not None and _is_open_on(story, backend) and story.has_gap and not story.has_verdict

    def tell_missed(self, backend: Backend, message: Message, entry: Mapping[str, Any] | None) -> None:
        """What the server's history has of the prompt of such a message; None when it has nothing."""
        prompt_id = message.prompt_id
        story = None if prompt_id is None else self._stories.find(prompt_id)
        if prompt_id is None or story is None or not _is_open_on(story, backend) or story.has_verdict:
            return
        story.has_gap = False
        shown = self._shown(backend, prompt_id, entry or {})
        if message.is_release and entry is not None:
            self._tell_history(prompt_id, story, shown)
            return
        for frame in making_up.missed(prompt_id, shown, story):
            story.has_begun = True
            self._listeners.tell(frame, result_of=prompt_id)

    def untold(self, backend: Backend) -> Sequence[str]:
        """Prompts on that server whose ending the clients have not heard."""
        return self._stories.open_on(backend.id)

    def tell_fates(self, backend: Backend, fates: Fates) -> bool:
        """What the server said about untold prompts. True when it had finished one without telling us."""
        has_told = False
        for prompt_id, entry in fates.items():
            story, record = self._stories.find(prompt_id), self._ledger.find(prompt_id)
            if story is None or not _is_open_on(story, backend):
                continue  # told, or moved, while the server was asked
            if entry is not None:
                self._tell_history(prompt_id, story, self._shown(backend, prompt_id, entry))
                has_told = True
            elif story.has_verdict:
                self._release(prompt_id)
            else:
                if record is None or not record.is_finished:
                    gone = partial(self._rescuer.forgotten, prompt_id, backend.id)
                    self._safely(gone, f"the loss of prompt {prompt_id} could not be noted")
                self.make_up(prompt_id, None)
        return has_told

    # -- what others ask

    def backend_of(self, prompt_id: str) -> str | None:
        """The server that is to tell of a prompt, or None when its story is over or unknown."""
        story = self._stories.find(prompt_id)
        return None if story is None or story.is_over else story.backend_id

    def backends_needed(self) -> set[str]:
        """Servers from which more is to come."""
        return self._stories.backends_needed()

    def open_prompts(self) -> list[str]:
        """Prompts whose ending the clients have not heard."""
        return self._stories.open_prompts()

    def running(self) -> Iterator[Frame]:
        """What is executed at this moment, as it was last told."""
        for running in self._running.values():
            yield from running.frames()

    def shown(self, backend: Backend, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """An entry of that server's history as clients see it."""
        return {**entry, "outputs": show_output(entry.get("outputs"), backend.alias)}

    # -- inside

    def _is_of_another(self, backend: Backend, frame: Frame, message: Message | None) -> bool:
        """Whether it is about work of others, where nobody is to see that.

        ComfyUI tells a prompt's events to the socket of its ``client_id`` alone. To all sockets it tells those of a
        prompt that came past the gateway without one, and what nodes of third parties send to nobody in particular:
        that is told while something of this user runs there.
        """
        if not self._visibility.hides_others or backend.source is not Source.DUTY:
            return False
        prompt_id = frames.prompt_of_bytes(frame) if message is None else message.prompt_id
        if prompt_id is not None:
            is_foreign = not is_own(self._user_key, self._ledger.owner(prompt_id))
            if is_foreign:
                self._foreign_on.add(backend.id)
            else:
                self._foreign_on.discard(backend.id)
            return is_foreign
        if backend.id in self._foreign_on:
            return True
        is_comfyuis_own = message is None or message.kind in TO_ONE_SOCKET
        return not is_comfyuis_own and not self._runs_own(backend)

    def _runs_own(self, backend: Backend) -> bool:
        return any(
            record.outcome is Outcome.RUNNING and is_own(self._user_key, record.user_key)
            for record in self._ledger.unfinished(backend_id=backend.id)
        )

    def _note(self, record: PromptRecord) -> Story:
        story = self._stories.note(record, is_heard=self._is_heard(record.backend_id))
        for backend_id, running in tuple(self._running.items()):
            if running.prompt_id == record.prompt_id and backend_id != record.backend_id:
                self._running[backend_id] = NOTHING
        return story

    def _hear_bytes(self, backend: Backend, frame: Frame) -> None:
        if not frames.names_its_prompt(frame):
            executing = self._running.get(backend.id, NOTHING).executing
            if executing is not None and self._speaker != backend.id and not self._listeners.is_empty:
                self._listeners.tell(executing)
            self._speaker = backend.id
        self._listeners.tell(frame)

    def _hear_of(self, prompt_id: str, backend: Backend, frame: Frame, message: Message) -> None:
        story = self._stories.find(prompt_id)
        if story is not None and _is_open_on(story, backend) and not story.has_verdict:
            is_ending = _is_ending(message)
            if is_ending and self._knows_better(prompt_id, VERDICTS.get(message.kind, Outcome.DONE)):
                self.make_up(prompt_id, None)
                return
            is_under_way = not is_ending and message.kind != "execution_start"
            if is_under_way and story.has_gap and not story.has_started:
                self._tell_late_start(prompt_id, backend, story)
        had_verdict = story is not None and story.has_verdict
        if not self._stories.hear(backend.id, message):
            return
        if message.kind == "executed":
            self._note_files(backend, prompt_id, message.data.get("output"))
        self._tell(backend, frame, message)
        if message.kind == "execution_start":
            self._begin(prompt_id)
        elif message.kind in VERDICTS:
            self._end(prompt_id, VERDICTS[message.kind])
        elif message.is_release and not had_verdict:  # a server from before execution_success
            self._end(prompt_id, Outcome.DONE)

    def _release(self, prompt_id: str) -> None:
        """Of a prompt whose verdict was told; its server will not say it."""
        self._stories.end(prompt_id)
        self._listeners.tell(making_up.release(prompt_id), result_of=prompt_id)

    def _knows_better(self, prompt_id: str, outcome: Outcome) -> bool:
        record = self._ledger.find(prompt_id)
        return record is not None and record.is_finished and record.outcome is not outcome

    def _tell_late_start(self, prompt_id: str, backend: Backend, story: Story) -> None:
        """The server said it while nobody listened; the front end shows no progress of what has not started."""
        frame = making_up.start(prompt_id, now_ms=self._now_ms())
        story.has_started = True
        self._running[backend.id] = Running(prompt_id, start=frame)
        self._listeners.tell(frame)
        self._begin(prompt_id)

    def _tell(self, backend: Backend, frame: Frame, message: Message) -> None:
        frame, message = frames.show(frame, message, backend.alias)
        self._keep_running(backend, frame, message)
        is_result = message.is_release or message.kind in RESULTS
        self._listeners.tell(frame, result_of=message.prompt_id if is_result else None)

    def _keep_running(self, backend: Backend, frame: Frame, message: Message) -> None:
        running = self._running.get(backend.id, NOTHING)
        if message.is_release or message.kind in VERDICTS:
            running = NOTHING
        elif message.kind == "execution_start":
            running = Running(message.prompt_id, start=frame)
        elif message.kind == "executing":
            self._speaker = backend.id
            running = replace(running, prompt_id=message.prompt_id, executing=frame)
        elif message.kind == "progress_state":
            running = replace(running, progress=frame)
        self._running[backend.id] = running

    def _shown(self, backend: Backend, prompt_id: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        self._note_files(backend, prompt_id, entry.get("outputs"))
        return self.shown(backend, entry)

    def _tell_history(self, prompt_id: str, story: Story, entry: Mapping[str, Any]) -> None:
        made_up = making_up.from_history(prompt_id, entry, story)
        if self._knows_better(prompt_id, made_up.outcome):
            self.make_up(prompt_id, None)
        else:
            self._tell_made_up(prompt_id, made_up)

    def _tell_made_up(self, prompt_id: str, made_up: MadeUp) -> None:
        self._stories.end(prompt_id)
        self._stats.made_up_endings += 1
        for frame in made_up.frames:
            self._listeners.tell(frame, result_of=prompt_id)
        for backend_id, running in tuple(self._running.items()):
            if running.prompt_id == prompt_id:
                self._running[backend_id] = NOTHING
        if not self._listeners.is_empty:
            # The front end takes any release for that of the prompt that it shows.
            for frame in self.running():
                self._listeners.tell(frame)
        self._end(prompt_id, made_up.outcome)

    def _note_files(self, backend: Backend, prompt_id: str, output: Any) -> None:
        if output:
            noting = partial(self._files.note, self._user_key, backend, prompt_id, output)
            self._safely(noting, f"files of prompt {prompt_id} could not be noted")

    def _begin(self, prompt_id: str) -> None:
        self._safely(
            partial(self._ledger.begin, prompt_id), f"the start of prompt {prompt_id} could not be noted"
        )

    def _end(self, prompt_id: str, outcome: Outcome) -> None:
        ending = partial(self._ledger.end, prompt_id, outcome)
        self._safely(ending, f"the ending of prompt {prompt_id} could not be noted")

    def _safely(self, act: Callable[[], object], what_failed: str) -> None:
        """A fault of somebody who watches must not cost the page its events."""
        try:
            act()
        except Exception:
            logger.exception("%s", what_failed)

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _is_ending(message: Message) -> bool:
    return message.is_release or message.kind in VERDICTS


def _is_open_on(story: Story, backend: Backend) -> bool:
    return story.is_ours and not story.is_over and story.backend_id == backend.id
