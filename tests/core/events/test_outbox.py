from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.events.frames import Frame
from comfy_gateway.core.events.outbox import Outbox


def event(name: str, size_bytes: int = 1) -> Frame:
    return Frame(name.encode().ljust(size_bytes), is_text=True)


def preview(name: str, size_bytes: int = 1) -> Frame:
    return Frame(name.encode().ljust(size_bytes), is_text=False, is_preview=True)


def outbox(preview_budget_bytes: int = 10, event_budget_bytes: int = 100) -> Outbox:
    return Outbox(preview_budget_bytes=preview_budget_bytes, event_budget_bytes=event_budget_bytes)


def drained(box: Outbox) -> list[Frame]:
    frames = []
    while (frame := box.take()) is not None:
        frames.append(frame)
    return frames


def test_frames_leave_in_the_order_in_which_they_came() -> None:
    box = outbox()
    sent = [event("a"), preview("b"), event("c"), preview("d")]

    assert all([box.put(frame) for frame in sent])

    assert len(box) == 4
    assert box.unsent_bytes == 4
    assert drained(box) == sent
    assert len(box) == box.unsent_bytes == box.dropped_previews == 0


def test_an_empty_outbox_gives_nothing() -> None:
    assert outbox().take() is None


def test_the_oldest_previews_go_first_when_the_budget_is_exceeded() -> None:
    box = outbox(preview_budget_bytes=10)
    newest = preview("3", 4)
    for frame in (preview("1", 4), event("e", 2), preview("2", 4), newest):
        assert box.put(frame)

    assert drained(box) == [event("e", 2), preview("2", 4), newest]
    assert box.dropped_previews == 1


def test_the_newest_preview_stays_although_events_fill_the_budget() -> None:
    box = outbox(preview_budget_bytes=10)
    newest = preview("2", 4)
    for frame in (preview("1", 4), newest, event("e", 50)):
        assert box.put(frame)

    assert drained(box) == [newest, event("e", 50)]
    assert box.dropped_previews == 1


def test_a_preview_larger_than_the_budget_is_dropped() -> None:
    box = outbox(preview_budget_bytes=10)

    assert box.put(preview("x", 11))

    assert drained(box) == []
    assert box.dropped_previews == 1


def test_too_many_unsent_events_overflow_and_change_nothing() -> None:
    box = outbox(event_budget_bytes=10)
    assert box.put(event("a", 6))
    assert box.put(event("b", 6))

    assert not box.put(event("c"))

    assert drained(box) == [event("a", 6), event("b", 6)]


def test_one_event_of_any_size_fits_below_the_budget() -> None:
    box = outbox(event_budget_bytes=10)
    assert box.put(event("small", 5))

    assert box.put(event("picture", 1000))


def test_previews_are_taken_in_although_events_overflow() -> None:
    box = outbox(event_budget_bytes=10)
    assert box.put(event("a", 10))

    assert box.put(preview("p"))


def test_taking_makes_room_again() -> None:
    box = outbox(event_budget_bytes=10)
    assert box.put(event("a", 10))
    assert not box.put(event("b"))

    box.take()

    assert box.put(event("b"))


def test_clear_forgets_what_waits_without_counting_it_as_dropped() -> None:
    box = outbox()
    box.put(event("a"))
    box.put(preview("b"))

    box.clear()

    assert drained(box) == []
    assert box.unsent_bytes == box.dropped_previews == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.booleans())))
def test_memory_is_bounded_and_no_event_is_lost_or_moved(steps: list[tuple[bool, int, bool]]) -> None:
    box = outbox(preview_budget_bytes=20, event_budget_bytes=40)
    accepted: list[Frame] = []
    taken: list[Frame] = []
    previews_in = 0
    for number, (is_preview, size_bytes, takes_one) in enumerate(steps):
        frame = Frame(str(number).encode().ljust(size_bytes), is_text=False, is_preview=is_preview)
        is_in = box.put(frame)
        previews_in += is_preview
        if is_in and not is_preview:
            accepted.append(frame)
        assert box.unsent_bytes <= 40 + 30 + 20
        if takes_one and (frame_out := box.take()) is not None:
            taken.append(frame_out)
    taken += drained(box)

    assert [frame for frame in taken if not frame.is_preview] == accepted
    assert sum(frame.is_preview for frame in taken) + box.dropped_previews == previews_in
    assert taken == sorted(taken, key=lambda frame: int(frame.payload))
