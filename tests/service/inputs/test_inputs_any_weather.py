"""Whatever happens in between, a name means what its user thinks, and a prompt that waits keeps its files."""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.requests.upstream import Backend, Source
from tests.conftest import LONG
from tests.service.inputs_stand import ALICE, BOB, Server, World, png, served, world

NAMES = ["a.png", "sub/b [x].png"]
CONTENTS = [png(number) for number in range(3)]
USERS = st.sampled_from([ALICE, BOB])
UPLOAD = st.tuples(
    st.just("upload"), USERS, st.sampled_from(NAMES), st.sampled_from(CONTENTS), st.sampled_from(["", "true"])
)
PROMPT = st.tuples(st.just("prompt"), USERS, st.integers(0, 9))
STEP = st.one_of(
    *(UPLOAD,) * 4,
    *(PROMPT,) * 4,
    st.tuples(st.just("end"), st.integers(0, 9)),
    *(st.tuples(st.just("move")),) * 2,
    st.tuples(st.just("drain")),
    st.tuples(st.just("die")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("stranger"), st.sampled_from(NAMES), st.sampled_from(CONTENTS)),
)
STORY = st.integers(10, 60).flatmap(lambda length: st.lists(STEP, min_size=length, max_size=length))


@dataclass
class Waiting:
    """A prompt that a server has accepted and not yet run."""

    prompt_id: str
    user: UserId
    named: str
    """As its user named the file."""
    server: Server
    text: str
    """As the server was told."""
    content: bytes


@dataclass
class Weather:
    """The world, what its users think, and what goes on."""

    around: World
    stack: AsyncExitStack
    means: dict[tuple[UserId, str], bytes] = field(default_factory=dict)
    waiting: list[Waiting] = field(default_factory=list)
    pods: int = 0
    prompts: int = 0

    async def take(self, step: tuple[Any, ...]) -> None:
        kind, *rest = step
        await getattr(self, kind)(*rest)
        for prompt in self.waiting:
            assert prompt.server.holds(prompt.text) == prompt.content, (step, prompt.text)

    async def upload(self, user: UserId, name: str, content: bytes, overwrite: str) -> None:
        subfolder, _, filename = name.rpartition("/")
        text = await self.around.uploaded(
            filename,
            content,
            user=user,
            subfolder=subfolder,
            **({"overwrite": overwrite} if overwrite else {}),
        )
        if not overwrite:
            before = self.means.get((user, text), content)
            assert before == content, f"{text} meant something else to {user}"
        self.means[user, text] = content
        if overwrite:
            self.means[user, name] = content

    async def prompt(self, user: UserId, index: int) -> None:
        names = [name for owner, name in self.means if owner == user]
        if not names:
            return
        named = names[index % len(names)]
        self.prompts += 1
        await self._send(f"p{self.prompts}", user, named, self.means[user, named])

    async def _send(self, prompt_id: str, user: UserId, named: str, content: bytes) -> None:
        backend = self.around.routes.current(user)
        [text] = await self.around.carried(named, user=user, prompt_id=prompt_id)
        server = self.around.pod if backend.source is Source.PRIVATE else self.around.home
        assert server.holds(text) == content, (named, text)
        record = PromptRecord(prompt_id, user.key, "", backend.id, accepted_at=self.around.clock.now())
        known = self.around.ledger.find(prompt_id)
        if known is None:
            self.around.ledger.accept(record)
        else:
            self.around.ledger.move(prompt_id, backend.id)
        self.waiting.append(Waiting(prompt_id, user, named, server, text, content))

    async def end(self, index: int) -> None:
        if self.waiting:
            done = self.waiting.pop(index % len(self.waiting))
            self.around.ledger.end(done.prompt_id, Outcome.DONE)

    async def move(self) -> None:
        if self.around.routes.private(ALICE) is None:
            self.pods += 1
            name = f"gw-alice-{self.pods}"

            def backend(upstream: Any) -> Backend:
                return Backend(name, Source.PRIVATE, upstream, alias=f"private-{self.pods}")

            self.around.pod = await self.stack.enter_async_context(served(name, backend))
            # What the image brings along.
            (self.around.pod.inputs / "a.png").write_bytes(png(200 + self.pods % 50))
            self.around.move()
            event("moved")

    async def drain(self) -> None:
        self.around.routes.retire_private(ALICE)

    async def die(self) -> None:
        """The pod goes at once; what waited there is submitted again on duty."""
        if self.around.routes.private(ALICE) is None:
            return
        self.around.move_back()
        await self.around.pod.stop.aclose()
        lost = [prompt for prompt in self.waiting if prompt.server is self.around.pod]
        self.waiting = [prompt for prompt in self.waiting if prompt.server is not self.around.pod]
        for prompt in lost:
            event("replayed")
            await self._send(prompt.prompt_id, prompt.user, prompt.named, prompt.content)

    async def restart(self) -> None:
        await self.around.book.write()
        await self.around.tasks.aclose()
        records = [replace(record) for record in self.around.ledger.unfinished()]
        await self.around.build()
        for record in records:
            self.around.ledger.accept(record)

    async def stranger(self, name: str, content: bytes) -> None:
        """Somebody puts a file into the shared folder, by hand, where there is none."""
        place = self.around.home.inputs / name
        if not place.exists():
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(content)


async def live(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            around = await stack.enter_async_context(world(Path(folder)))
            weather = Weather(around, stack)
            for step in steps:
                await weather.take(step)
            # In the end everything that was ever uploaded is usable, wherever its user is.
            for user, name in list(weather.means):
                await weather._send(f"last {user.key} {name}", user, name, weather.means[user, name])


@settings(max_examples=500 if LONG else 30)
@given(STORY)
def test_every_upload_is_usable_where_the_next_prompt_runs(steps: list[tuple[Any, ...]]) -> None:
    with asyncio.Runner(loop_factory=_loop) as runner:
        runner.run(live(steps))


def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop
