"""What names mean and what is where, in memory and written behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.errors import StoreUnavailable
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.uploads import Content, Copy
from comfy_gateway.service.inputs.book import MAX_VERSIONS, InputBook
from tests.conditions import wait_for
from tests.fakes.clock import FakeClock
from tests.fakes.uploads import FakeUploadRows

A, B = FileName("a.png", "", "input"), FileName("b.png", "sub", "input")
X, Y = Content("x" * 64, 1), Content("y" * 64, 2)
ALICE, ADDRESS = "named:alice", "address:10.0.0.1"


def book(rows: FakeUploadRows | None = None, clock: FakeClock | None = None, **bounds: int) -> InputBook:
    return InputBook(rows or FakeUploadRows(), clock or FakeClock(), **bounds)


@asynccontextmanager
async def written_behind(kept: InputBook) -> AsyncIterator[None]:
    task = asyncio.create_task(kept.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_the_last_upload_of_a_name_counts_and_the_users_own_before_that_of_the_address() -> None:
    kept = book()
    kept.note_upload(ADDRESS, A, Y)
    kept.note_upload(ADDRESS, B, Y)
    kept.note_upload(ALICE, A, X)
    assert kept.meaning((ALICE, ADDRESS), FileName("c.png", "", "input")) is None
    found = [kept.meaning((ALICE, ADDRESS), file) for file in (A, B)]
    assert [upload.content for upload in found if upload] == [X, Y]
    assert {file: upload.content for file, upload in kept.uploads_of((ALICE, ADDRESS)).items()} == {
        A: X,
        B: Y,
    }
    kept.note_upload(ALICE, A, Y)
    assert kept.uploads_of((ALICE,))[A].content == Y


async def test_a_prompt_of_before_means_what_the_name_meant_then() -> None:
    clock = FakeClock()
    kept = book(clock=clock)
    before = clock.now()
    await clock.advance(1)
    kept.note_upload(ALICE, A, X)
    between = clock.now()
    kept.note_upload(ALICE, A, Y)  # in the same moment, and yet later
    at = {moment: kept.meaning((ALICE,), A, at=moment) for moment in (before, between, None)}
    assert [upload.content for upload in at.values() if upload] == [X, X, Y]


def test_what_is_said_twice_is_noted_once_and_a_listed_name_stays_listed() -> None:
    kept = book()
    kept.note_upload(ALICE, A, X)
    kept.note_upload(ALICE, A, X, is_listed=False)
    assert len(kept.all_uploads()) == 1
    kept.note_upload(ALICE, B, X, is_listed=False)
    kept.note_upload(ALICE, B, X)
    assert kept.uploads_of((ALICE,))[B].is_listed


def test_only_some_older_meanings_and_only_so_many_uploads_are_kept() -> None:
    kept = book(max_uploads=20)
    for number in range(MAX_VERSIONS + 5):
        kept.note_upload(ALICE, A, Content(f"{number:064}", number))
    assert len(kept.all_uploads()) == MAX_VERSIONS
    for number in range(30):
        kept.note_upload(f"named:{number}", A, X)
    assert len(kept.all_uploads()) == 20
    assert kept.meaning((ALICE,), A) is None


def test_copies_are_found_by_name_by_content_and_by_place() -> None:
    kept = book()
    kept.note_copy(Copy("pod", A, X))
    kept.note_copy(Copy("pod", B, X))
    kept.note_copy(Copy("duty", A, X))
    assert kept.copies_of(X.sha256) == [Copy("pod", A, X), Copy("pod", B, X), Copy("duty", A, X)]
    kept.note_copy(Copy("pod", A, Y))
    assert kept.copy_at("pod", A) == Copy("pod", A, Y)
    assert kept.copies_of(X.sha256) == [Copy("pod", B, X), Copy("duty", A, X)]
    assert sorted(kept.places()) == ["duty", "pod"]
    kept.forget_place("pod")
    kept.forget_copy("nowhere", A)
    assert kept.places() == ["duty"]
    assert (kept.copies_at("pod"), kept.copies_of(Y.sha256), kept.copy_at("pod", B)) == ([], [], None)


def test_only_so_many_copies_are_kept() -> None:
    kept = book(max_copies=3)
    for number in range(5):
        kept.note_copy(Copy(f"pod-{number}", A, X))
    assert kept.places() == ["pod-2", "pod-3", "pod-4"]


async def test_the_next_life_knows_what_was_written() -> None:
    rows = FakeUploadRows()
    kept = book(rows)
    async with written_behind(kept):
        kept.note_upload(ALICE, A, X)
        kept.note_upload(ALICE, A, Y)
        kept.note_upload(ALICE, B, X, is_listed=False)
        kept.note_copy(Copy("pod", A, X))
        kept.note_copy(Copy("duty", A, Y, is_carried=True, etag='"t"'))
        kept.forget_copy("pod", A)
        await kept.flush()
    again = book(rows)
    await again.load()
    assert set(again.all_uploads()) == set(kept.all_uploads())
    assert again.copy_at("duty", A) == Copy("duty", A, Y, is_carried=True, etag='"t"')
    assert again.places() == ["duty"]
    again.forget_upload(again.all_uploads()[0])
    again.forget_upload(kept.all_uploads()[0])
    await again.write()
    assert len(rows.uploads) == 2


async def test_a_database_that_is_away_holds_nothing_up_and_gets_all_of_it_later() -> None:
    rows, clock = FakeUploadRows(), FakeClock()
    kept = book(rows, clock)
    rows.is_down = True
    async with written_behind(kept):
        kept.note_upload(ALICE, A, X)
        await wait_for(lambda: clock.sleepers, "the pause after a failure")
        kept.note_upload(ALICE, A, Y)
        await clock.advance(1.5)
        assert rows.calls["write_uploads"] == 2
        rows.is_down = False
        await clock.advance(1.5)
        await kept.flush()
    assert [upload.content for upload in rows.uploads.values()] == [X, Y]
    rows.is_down = True
    kept.note_copy(Copy("pod", A, X))
    with pytest.raises(StoreUnavailable):
        await kept.write()
    await kept.aclose()
    assert not rows.copies
    rows.is_down = False
    await kept.aclose()
    assert list(rows.copies.values()) == [Copy("pod", A, X)]


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from("ucfdp"),
        st.sampled_from(["p1", "p2"]),
        st.sampled_from([A, B]),
        st.sampled_from([X, Y]),
    ),
    max_size=40,
)


@given(OPERATIONS, st.integers(0, 10))
def test_what_is_written_is_what_is_remembered(
    operations: list[tuple[str, str, FileName, Content]], pause: int
) -> None:
    async def live() -> None:
        rows = FakeUploadRows()
        kept = book(rows)
        for number, (what, place, file, content) in enumerate(operations):
            if what == "u":
                kept.note_upload(place, file, content)
            elif what == "c":
                kept.note_copy(Copy(place, file, content))
            elif what == "f":
                kept.forget_copy(place, file)
            elif what == "p":
                kept.forget_place(place)
            elif uploads := kept.all_uploads():
                kept.forget_upload(uploads[0])
            if pause and number % pause == 0:
                await kept.write()
        await kept.write()
        assert set(rows.uploads.values()) == set(kept.all_uploads())
        assert set(rows.copies.values()) == {
            copy for place in kept.places() for copy in kept.copies_at(place)
        }
        for content in (X, Y):
            assert set(kept.copies_of(content.sha256)) == {
                c for c in rows.copies.values() if c.content == content
            }

    asyncio.run(live())
