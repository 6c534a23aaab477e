"""What one socket hears of others' work where that is hidden."""

import struct
from typing import Any

import orjson
import pytest

from comfy_gateway.core.events import frames
from comfy_gateway.core.events.frames import Frame
from comfy_gateway.core.prompts.prompts import PromptRecord
from comfy_gateway.core.prompts.visibility import Isolation, Visibility
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.site.relay.limits import RelayStats
from comfy_gateway.site.relay.ports import NoNotes, NoRescue
from comfy_gateway.site.relay.telling import Telling
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import ledger_in_memory

ALICE, BOB = "named:alice", "named:bob"
DUTY = Backend("duty-0", Source.DUTY, Upstream("http", "duty", 80))
POD = Backend("pod", Source.PRIVATE, Upstream("http", "pod", 80))


class Heard:
    """Alice's clients."""

    is_empty = False

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def tell(self, frame: Frame, *, result_of: str | None = None) -> None:
        self.frames.append(frame)


class Page:
    """Alice's socket, a prompt of hers and one of bob's on the shared server."""

    def __init__(self, isolation: Isolation) -> None:
        clock = FakeClock()
        self.ledger = ledger_in_memory(clock)
        self.heard = Heard()
        self.telling = Telling(
            self.heard,
            user_key=ALICE,
            ledger=self.ledger,
            files=NoNotes(),
            rescuer=NoRescue(self.ledger),
            clock=clock,
            stats=RelayStats(),
            is_heard=lambda _id: True,
            end_later=lambda _id: None,
            visibility=Visibility(isolation),
        )
        self.ledger.accept(PromptRecord("a", ALICE, "tab", DUTY.id))
        self.ledger.accept(PromptRecord("b", BOB, "tab", DUTY.id))
        self.telling.opened(DUTY)

    def hears(self, frame: Frame, backend: Backend = DUTY) -> bool:
        """Whether a frame of that server reaches the page."""
        before = len(self.heard.frames)
        self.telling.hear(backend, frame, frames.read(frame), is_known=False)
        return frame in self.heard.frames[before:]


def say(kind: str, **data: Any) -> Frame:
    return frames.write(kind, data)


OLD_PREVIEW = frames.binary(struct.pack(">II", 1, 1) + b"jpeg")


def preview(prompt_id: str) -> Frame:
    metadata = orjson.dumps({"prompt_id": prompt_id, "image_type": "image/jpeg"})
    return frames.binary(struct.pack(">II", 4, len(metadata)) + metadata + b"jpeg")


@pytest.mark.parametrize("prompt_id", ["b", "put into comfyui past the gateway"])
async def test_nothing_of_anothers_prompt_is_heard(prompt_id: str) -> None:
    page = Page(Isolation.FULL)
    assert not page.hears(say("execution_start", prompt_id=prompt_id))
    assert not page.hears(say("executing", node="1", prompt_id=prompt_id))
    assert not page.hears(OLD_PREVIEW)
    assert not page.hears(preview(prompt_id))
    assert not page.hears(say("executed", node="1", output={"images": []}, prompt_id=prompt_id))
    assert not page.hears(say("somebody's-node", pictures=["x"]))


async def test_ones_own_is_heard_also_after_anothers() -> None:
    page = Page(Isolation.FULL)
    assert not page.hears(say("execution_start", prompt_id="b"))
    assert page.hears(say("execution_start", prompt_id="a"))
    assert page.hears(say("executing", node="1", prompt_id="a"))
    assert page.hears(OLD_PREVIEW)
    assert page.hears(preview("a"))
    assert page.hears(say("a-node-of-a-third-party", text="x"))
    assert page.hears(say("execution_success", prompt_id="a"))
    assert not page.hears(say("a-node-of-a-third-party", text="x"))


async def test_what_tells_nothing_of_anybody_is_heard() -> None:
    page = Page(Isolation.FULL)
    assert page.hears(say("crystools.monitor", cpu=3))
    assert page.hears(say("executing", node="1"))


async def test_a_prompt_on_its_way_is_ones_own_already() -> None:
    page = Page(Isolation.FULL)
    page.ledger.reserve(PromptRecord("soon", ALICE, "tab", DUTY.id))
    assert page.hears(say("execution_start", prompt_id="soon"))


async def test_a_pod_has_nobody_elses() -> None:
    page = Page(Isolation.FULL)
    assert page.hears(say("somebody's-node", pictures=["x"]), POD)
    assert page.hears(say("execution_start", prompt_id="put there past the gateway"), POD)


@pytest.mark.parametrize("isolation", [Isolation.OFF, Isolation.ACTIONS])
async def test_otherwise_it_is_as_with_a_plain_comfyui(isolation: Isolation) -> None:
    page = Page(isolation)
    assert page.hears(say("execution_start", prompt_id="put there past the gateway"))
    assert page.hears(OLD_PREVIEW)
    assert page.hears(say("somebody's-node", pictures=["x"]))
