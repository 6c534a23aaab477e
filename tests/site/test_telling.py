"""Any order of events, losses, moves and endings: what the clients of one socket id are told in the end.

Two servers run prompts one after another. Their sockets can be cut with events on the way, they can restart and forget,
the ledger can hear of an ending first, prompts can be taken out of a queue, moved and submitted again. Everything is
synchronous, as in the relay; the links' part (looking up, holding a verdict back) is played here.
"""

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest

from comfy_gateway.core.events import frames
from comfy_gateway.core.events.frames import Frame
from comfy_gateway.core.events.stories import VERDICTS
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord, outcome_of_history
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.site.relay.limits import RelayStats
from comfy_gateway.site.relay.ports import NoNotes
from comfy_gateway.site.relay.telling import Telling
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import ledger_in_memory

MOST_REPLAYS = 1


@dataclass
class Server:
    """One ComfyUI: it says what it does to the relay's socket, if that is open."""

    backend: Backend
    queue: deque[str] = field(default_factory=deque)
    history: dict[str, dict[str, Any]] = field(default_factory=dict)
    to_say: deque[Frame] = field(default_factory=deque)
    """What is left to say of the prompt that runs."""
    wire: deque[Frame] = field(default_factory=deque)
    """Said and not yet read by the relay."""
    is_open: bool = False

    def step(self, *, fails: bool) -> None:
        """Say one more thing, or begin with the next prompt."""
        if not self.to_say and self.queue:
            self.to_say.extend(narrative(self.queue[0], fails=fails))
        if self.to_say:
            frame = self.to_say.popleft()
            prompt_id = self.queue[0]
            if not self.to_say:  # the release: the history has the prompt by then
                self.queue.popleft()
            message = frames.read(frame)
            assert message is not None
            if message.kind in VERDICTS:
                self.history[prompt_id] = entry_of(prompt_id, message.kind)
            if self.is_open:
                self.wire.append(frame)

    def forget(self) -> None:
        for memory in (self.queue, self.history, self.to_say, self.wire):
            memory.clear()
        self.is_open = False

    def has(self, prompt_id: str) -> bool:
        return prompt_id in self.queue


def narrative(prompt_id: str, *, fails: bool) -> list[Frame]:
    """All that a server says of a prompt with two outputs."""

    def say(kind: str, **data: Any) -> Frame:
        return frames.write(kind, {"prompt_id": prompt_id, **data})

    verdict = "execution_error" if fails else "execution_success"
    steps = [say("execution_start"), say("execution_cached", nodes=[])]
    for node in ("1", "2"):
        steps += [say("executing", node=node), say("executed", node=node, output={})]
    return [*steps, say(verdict), say("executing", node=None)]


def entry_of(prompt_id: str, verdict: str) -> dict[str, Any]:
    is_done = verdict == "execution_success"
    return {
        "outputs": {"1": {}, "2": {}},
        "status": {
            "status_str": "success" if is_done else "error",
            "messages": [
                ["execution_start", {"prompt_id": prompt_id}],
                ["execution_cached", {"prompt_id": prompt_id, "nodes": []}],
                [verdict, {"prompt_id": prompt_id}],
            ],
        },
    }


class Told:
    """Implements Listeners: the text that was told, in order."""

    is_empty = False

    def __init__(self) -> None:
        self.messages: list[frames.Message] = []

    def tell(self, frame: Frame, *, result_of: str | None = None) -> None:
        message = frames.read(frame)
        assert message is not None
        is_result = message.is_release or message.kind in VERDICTS or message.kind == "executed"
        assert result_of is None or result_of == message.prompt_id
        assert is_result <= (result_of is not None)
        self.messages.append(message)

    def story(self, prompt_id: str) -> list[str]:
        return [
            "released" if message.is_release else message.kind
            for message in self.messages
            if message.prompt_id == prompt_id
        ]


class World:
    """Two servers, the ledger, a rescuer and the telling between them."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.ledger = ledger_in_memory(self.clock)
        self.servers = {
            "duty-0": Server(Backend("duty-0", Source.DUTY, Upstream.parse("http://duty"))),
            "pod": Server(Backend("pod", Source.PRIVATE, Upstream.parse("http://pod"), alias="private-1")),
        }
        self.told = Told()
        self.stats = RelayStats()
        self.to_rescue: set[str] = set()
        self.to_end: set[str] = set()
        self.prompts: list[str] = []
        self.without_outputs: set[str] = set()
        """Prompts that were told in few words, because there was no entry."""
        self.telling = Telling(
            self.told,
            user_key="named:alice",
            ledger=self.ledger,
            files=NoNotes(),
            rescuer=self,
            clock=self.clock,
            stats=self.stats,
            is_heard=lambda backend_id: self.servers[backend_id].is_open,
            end_later=self.to_end.add,
        )
        self.ledger.watch(self.telling.note)
        for server in self.servers:
            self.connect(server)

    def forgotten(self, prompt_id: str, backend_id: str) -> None:
        record = self.ledger.find(prompt_id)
        assert record is not None
        assert record.backend_id == backend_id
        assert not record.is_finished
        self.to_rescue.add(prompt_id)

    # -- what people and servers do

    def post(self, server: str, overtakes: int) -> None:
        """A prompt is accepted; its first events may come before the answer."""
        prompt_id = f"p{len(self.prompts)}"
        self.prompts.append(prompt_id)
        self.servers[server].queue.append(prompt_id)
        if self.servers[server].is_open and self.servers[server].queue[0] == prompt_id:
            for _ in range(overtakes):
                self.servers[server].step(fails=False)
            self.read(server, 99)
        self.ledger.accept(PromptRecord(prompt_id, "named:alice", "tab", server))

    def work(self, server: str, steps: int, read: int, fails: bool) -> None:
        for _ in range(steps):
            self.servers[server].step(fails=fails)
        self.read(server, read)

    def read(self, server: str, count: int) -> None:
        served = self.servers[server]
        for _ in range(min(count, len(served.wire))):
            frame = served.wire.popleft()
            message = frames.read(frame)
            assert message is not None
            if self.telling.has_missed(served.backend, message):
                assert message.prompt_id is not None
                entry = served.history.get(message.prompt_id)
                self.telling.tell_missed(served.backend, message, entry)
            self.telling.hear(served.backend, frame, message, is_known=True)

    def delete_the_last_that_waits(self, server: str) -> None:
        queue = self.servers[server].queue
        if len(queue) > 1:
            self.ledger.end(queue.pop(), Outcome.INTERRUPTED)

    # -- what breaks

    def connect(self, server: str) -> None:
        served = self.servers[server]
        if served.is_open:
            return
        served.is_open = True
        self.telling.opened(served.backend)
        self.look(server)

    def look(self, server: str) -> None:
        """As after connecting, and after long silence."""
        served = self.servers[server]
        untold = [one for one in self.telling.untold(served.backend) if not served.has(one)]
        self.telling.tell_fates(served.backend, {one: served.history.get(one) for one in untold})

    def cut(self, server: str) -> None:
        """What is on the wire is lost."""
        served = self.servers[server]
        if served.is_open:
            served.is_open = False
            served.wire.clear()
            self.telling.cut(served.backend)

    def be_away_in_the_middle(self, server: str, heard: int, unheard: int) -> None:
        self.work(server, heard, 99, fails=False)
        self.cut(server)
        self.work(server, unheard, 0, fails=False)
        self.connect(server)

    def restart(self, server: str) -> None:
        self.cut(server)
        self.servers[server].forget()

    def forget_with_all_sockets_open(self, server: str) -> None:
        served = self.servers[server]
        is_open = served.is_open
        served.forget()
        served.is_open = is_open

    # -- what the gateway does

    def give_up(self, server: str) -> None:
        """Its prompts are submitted again elsewhere, while it goes on with them."""
        for record in self.ledger.unfinished(backend_id=server):
            self.to_rescue.add(record.prompt_id)
        self.rescue("duty-0" if server == "pod" else "pod")

    def settle(self, server: str) -> None:
        """The ledger asks by itself, and may know an ending before the socket says it."""
        served = self.servers[server]
        for record in self.ledger.unfinished(backend_id=server):
            if (known := served.history.get(record.prompt_id)) is not None and not served.has(
                record.prompt_id
            ):
                self.ledger.end(record.prompt_id, outcome_of_history(known))

    def rescue(self, server: str) -> None:
        to_rescue, self.to_rescue = sorted(self.to_rescue), set()
        for prompt_id in to_rescue:
            record = self.ledger.find(prompt_id)
            assert record is not None
            if record.is_finished:
                continue
            if record.replays >= MOST_REPLAYS:
                self.ledger.end(prompt_id, Outcome.LOST)
            else:
                self.ledger.move(prompt_id, server)
                self.servers[server].queue.append(prompt_id)

    def make_up(self, has_entry: bool) -> None:
        for prompt_id in sorted(self.to_end):
            record = self.ledger.find(prompt_id)
            assert record is not None
            kept = self.servers[record.backend_id].history.get(prompt_id)
            if self.telling.make_up(prompt_id, kept if has_entry else None) and not has_entry:
                self.without_outputs.add(prompt_id)
        self.to_end.clear()

    # -- what must hold

    def nobody_is_told_two_ends(self) -> None:
        for prompt_id in self.prompts:
            story = self.told.story(prompt_id)
            assert sum(kind in VERDICTS for kind in story) <= 1
            assert story.count("released") <= 1
            assert "released" not in story[:-1]

    def come_to_the_end(self) -> None:
        """Let everything come to its end."""
        for _ in range(MOST_REPLAYS + 2):
            for server, served in self.servers.items():
                self.connect(server)
                while served.queue or served.wire:
                    self.work(server, 1, 1, fails=False)
                self.look(server)
            if self.to_rescue:
                self.rescue("duty-0")
            if self.to_end:
                self.make_up(has_entry=True)
        self.nobody_is_told_two_ends()
        assert self.ledger.unfinished() == []
        for prompt_id in self.prompts:
            self.ended_as_the_ledger_says(prompt_id)
        assert list(self.telling.running()) == []
        assert self.telling.open_prompts() == []

    def ended_as_the_ledger_says(self, prompt_id: str) -> None:
        story, record = self.told.story(prompt_id), self.ledger.find(prompt_id)
        assert record is not None
        assert story[-1] == "released", story
        [verdict] = [kind for kind in story if kind in VERDICTS]
        assert VERDICTS[verdict] is (Outcome.ERROR if record.outcome is Outcome.LOST else record.outcome)
        is_finished = (
            record.outcome in {Outcome.DONE, Outcome.ERROR} and prompt_id not in self.without_outputs
        )
        if is_finished and prompt_id in self.servers[record.backend_id].history:
            nodes = {one.data["node"] for one in self.told.messages if is_output_of(prompt_id, one)}
            assert nodes == {"1", "2"}, story


def is_output_of(prompt_id: str, message: frames.Message) -> bool:
    return message.kind == "executed" and message.prompt_id == prompt_id


type Step = tuple[str, dict[str, Any]]


def any_step(chance: random.Random) -> Step:
    """An action and what it is called with. A prompt is told in eight messages."""
    server = {"server": chance.choice(["duty-0", "pod"])}

    def count() -> int:
        return chance.randrange(10)

    everyday: list[Step] = [
        ("post", {**server, "overtakes": chance.choice([0, 0, count()])}),
        ("work", {**server, "steps": count(), "read": count(), "fails": chance.random() < 0.2}),
        ("read", {**server, "count": count()}),
        ("settle", server),
        ("make_up", {"has_entry": chance.random() < 0.8}),
        ("rescue", server),
        ("look", server),
    ]
    trouble: list[Step] = [
        ("be_away_in_the_middle", {**server, "heard": count(), "unheard": count()}),
        ("cut", server),
        ("connect", server),
        ("delete_the_last_that_waits", server),
        ("give_up", server),
        ("restart", server),
        ("forget_with_all_sockets_open", server),
    ]
    return chance.choice(everyday if chance.random() < 0.75 else trouble)


@pytest.mark.parametrize(
    "seeds", [range(1_000), pytest.param(range(1_000, 30_000), marks=pytest.mark.long)], ids=["some", "many"]
)
def test_whatever_happens_each_prompt_is_told_with_one_end_and_that_is_the_ledgers(seeds: range) -> None:
    for seed in seeds:
        chance = random.Random(seed)
        steps = [any_step(chance) for _ in range(chance.randrange(1, 40))]
        world = World()
        try:
            for name, arguments in steps:
                getattr(world, name)(**arguments)
                world.nobody_is_told_two_ends()
            world.come_to_the_end()
        except AssertionError as error:
            error.add_note(f"seed {seed}: " + "; ".join(f"{name}({arguments})" for name, arguments in steps))
            raise
