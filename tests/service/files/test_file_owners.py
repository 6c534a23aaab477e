"""Whose files the shared servers have."""

from typing import Any

from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.prompts.prompts import PromptRecord
from comfy_gateway.service.files.file_owners import READ_AGAIN_S, FileOwners
from tests.fakes.clock import FakeClock

ALICE, BOB = "named:alice", "named:bob"
A = FileName("ComfyUI_00001_.png")
B = FileName("ComfyUI_00002_.png", "server-1")


class Kept:
    """A kept history."""

    def __init__(self) -> None:
        self.entries_of: dict[str | None, list[dict[str, Any]]] = {}
        self.asked: list[str | None] = []

    async def entries(self, user_key: str | None, *, limit: int) -> list[tuple[PromptRecord, dict[str, Any]]]:
        self.asked.append(user_key)
        record = PromptRecord("p", user_key, "", "duty-0")
        return [(record, entry) for entry in self.entries_of.get(user_key, [])][:limit]


def entry(*files: FileName) -> dict[str, Any]:
    named = [{"filename": one.filename, "subfolder": one.subfolder, "type": one.type} for one in files]
    return {"outputs": {"9": {"images": named, "text": ["ComfyUI_00009_.png"]}}}


async def test_a_file_is_of_everybody_whose_prompt_named_it() -> None:
    owners = FileOwners(Kept(), FakeClock())
    owners.note(ALICE, A)
    assert await owners.is_of(ALICE, A)
    assert not await owners.is_of(BOB, A)
    owners.note(BOB, A)
    assert await owners.is_of(BOB, A)
    assert not await owners.is_of(ALICE, B)
    assert not await owners.is_of(None, A)


async def test_what_memory_lacks_is_read_from_the_users_own_history() -> None:
    kept = Kept()
    kept.entries_of[ALICE] = [entry(A, B)]
    owners = FileOwners(kept, FakeClock())
    assert not await owners.is_of(BOB, B)
    assert await owners.is_of(ALICE, B)
    assert await owners.is_of(ALICE, A)
    assert not await owners.is_of(ALICE, FileName("ComfyUI_00009_.png"))  # a bare text names no file
    assert kept.asked == [BOB, ALICE]


async def test_guessing_does_not_read_the_database_each_time() -> None:
    kept, clock = Kept(), FakeClock()
    owners = FileOwners(kept, clock)
    for number in range(100):
        assert not await owners.is_of(BOB, FileName(f"ComfyUI_{number:05}_.png"))
    assert kept.asked == [BOB]
    kept.entries_of[BOB] = [entry(B)]
    await clock.advance(READ_AGAIN_S)
    assert await owners.is_of(BOB, B)


async def test_memory_is_bounded() -> None:
    owners = FileOwners(Kept(), FakeClock(), max_files=1)
    owners.note(ALICE, A)
    owners.note(ALICE, B)
    assert await owners.is_of(ALICE, B)
    assert not await owners.is_of(ALICE, A)
