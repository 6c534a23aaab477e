"""How often people hear the same."""

from comfy_gateway.core.money import alarms
from comfy_gateway.core.money.alarms import Alarm, AlarmKind, Repeats

SPENT = Alarm(AlarmKind.SPEND, "named:alice", "80 % of the day are spent", is_warning=True)


def test_the_same_is_said_once_an_hour() -> None:
    repeats = Repeats()
    assert [repeats.is_due(SPENT, at_s) for at_s in (0, 60, 3599, 3600, 3660)] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_another_text_about_the_same_is_the_same() -> None:
    repeats = Repeats()
    assert repeats.is_due(SPENT, 0)
    assert not repeats.is_due(
        Alarm(SPENT.kind, SPENT.subject, "81 % of the day are spent", is_warning=True), 0
    )


def test_other_subjects_other_kinds_and_what_comes_true_are_said() -> None:
    repeats = Repeats()
    others = [
        Alarm(AlarmKind.SPEND, "named:bob", "x", is_warning=True),
        Alarm(AlarmKind.SILENCE, "named:alice", "x", is_warning=True),
        Alarm(AlarmKind.SPEND, "named:alice", "x"),
    ]
    assert all(repeats.is_due(alarm, 0) for alarm in [SPENT, *others])


def test_what_is_remembered_is_bounded() -> None:
    repeats = Repeats()
    many = [Alarm(AlarmKind.ENDING, f"pod{number}", "x") for number in range(alarms.MOST_REMEMBERED)]
    assert all(repeats.is_due(alarm, 0) for alarm in many)
    assert not repeats.is_due(SPENT, 10)
    assert repeats.is_due(SPENT, alarms.REPEAT_S)
