from comfy_gateway.core.events import frames
from comfy_gateway.core.events.frames import Frame
from comfy_gateway.core.events.receipts import MAX_FRAMES, Receipts


def frame(size_bytes: int = 10) -> Frame:
    return frames.text(bytes(size_bytes))


def numbers(receipts: Receipts, now_s: float = 0.0) -> list[int]:
    return [sent.receipt for sent in receipts.unconfirmed(now_s)]


def send(receipts: Receipts, count: int, now_s: float = 0.0) -> None:
    for number in range(count):
        receipts.number(frame(), f"prompt {number}", now_s)


def test_what_is_confirmed_is_not_repeated_and_what_came_after_is() -> None:
    receipts = Receipts(repeat_s=2.0, max_bytes=1000)
    send(receipts, 4)

    receipts.confirm(2)

    assert numbers(receipts) == [3, 4]
    assert receipts.prompts(0.0) == {"prompt 2", "prompt 3"}


def test_a_client_that_confirms_is_repeated_what_it_did_not_however_old() -> None:
    receipts = Receipts(repeat_s=2.0, max_bytes=1000)
    send(receipts, 2)

    receipts.confirm(0)

    assert numbers(receipts, now_s=60.0) == [1, 2]


def test_for_clients_that_never_confirm_only_the_last_seconds_count() -> None:
    receipts = Receipts(repeat_s=2.0, max_bytes=1000)
    send(receipts, 1, now_s=0.0)
    send(receipts, 1, now_s=3.0)

    assert numbers(receipts, now_s=4.0) == [2]
    assert receipts.prompts(6.0) == set()


def test_the_number_travels_with_the_frame() -> None:
    receipts = Receipts(repeat_s=2.0, max_bytes=1000)

    numbered = receipts.number(frame(7), "p", 0.0)

    assert (numbered.receipt, numbered.size_bytes) == (1, 7)
    assert frame().receipt == 0


def test_too_many_bytes_push_out_the_oldest_but_not_the_last() -> None:
    receipts = Receipts(repeat_s=2.0, max_bytes=25)
    send(receipts, 3)
    assert numbers(receipts) == [2, 3]

    receipts.number(frame(1000), "large", 0.0)

    assert receipts.prompts(0.0) == {"large"}


def test_too_many_frames_push_out_the_oldest() -> None:
    receipts = Receipts(repeat_s=2.0, max_bytes=10**9)
    send(receipts, MAX_FRAMES + 5)

    assert numbers(receipts)[0] == 6
