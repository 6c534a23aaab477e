"""Messages within a rate."""

from comfy_gateway.core.events.message_rate import BURST_S, MessageRate


def test_a_burst_is_taken_and_a_flood_is_not() -> None:
    rate = MessageRate(per_s=5)
    burst = int(5 * BURST_S)
    assert [rate.takes(100.0) for _ in range(burst + 2)] == [True] * burst + [False] * 2


def test_who_keeps_to_the_rate_is_taken_for_ever_and_who_pauses_has_a_burst_again() -> None:
    rate = MessageRate(per_s=5)
    assert all(rate.takes(n / 5) for n in range(1_000))
    assert all(rate.takes(300.0) for _ in range(50))
    assert not rate.takes(300.0)
    assert rate.takes(300.5)


def test_without_a_rate_everything_is_taken() -> None:
    rate = MessageRate(per_s=0)
    assert all(rate.takes(0.0) for _ in range(1_000))
