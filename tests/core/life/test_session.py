"""The table of a session's life."""

import runpy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from comfy_gateway.core.errors import IllegalTransition
from comfy_gateway.core.life.diagram import diagram
from comfy_gateway.core.life.session import (
    COUNTED,
    MAY_BILL,
    ROUTED,
    TRANSITIONS,
    Event,
    Pod,
    Session,
    State,
    advance,
)
from comfy_gateway.core.people.users import IdKind, UserId

ALICE = UserId(IdKind.NAMED, "alice")
THEN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NOW = THEN + timedelta(seconds=90)
POD = Pod("comfy-gw-alice-a1", "a1", THEN, "pod1", "RTX 4090", 0.5)
DOCS = Path(__file__).parents[3] / "docs" / "session.md"


def session(state: State) -> Session:
    return Session(ALICE, state, THEN, POD if state in MAY_BILL else None, version=7)


def after(states: frozenset[State] | set[State]) -> set[State]:
    """All states that can be reached from these, and these."""
    reached = set(states)
    while more := {to for (before, _), to in TRANSITIONS.items() if before in reached} - reached:
        reached |= more
    return reached


def test_every_pair_of_state_and_event_moves_as_the_table_says_or_raises_and_changes_nothing() -> None:
    for state in State:
        for event in Event:
            before = session(state)
            if (state, event) in TRANSITIONS:
                moved = advance(before, event, NOW)
                assert moved.state is TRANSITIONS[state, event]
                assert moved.since == NOW
                assert (moved.user, moved.version) == (ALICE, 7)
                assert moved.pod == (before.pod if moved.state in COUNTED else None)
            else:
                with pytest.raises(
                    IllegalTransition, match=f"{event} does not happen to a session that is {state}"
                ):
                    advance(before, event, NOW)
            assert before == session(state)


@pytest.mark.parametrize("state", State)
def test_shared_can_be_reached_from_every_state(state: State) -> None:
    assert State.SHARED in after({state})


def test_states_that_may_bill_are_left_only_when_no_pod_is_left() -> None:
    ways_out = {
        (before, event)
        for (before, event), to in TRANSITIONS.items()
        if before in MAY_BILL and to not in MAY_BILL
    }
    assert {event for _, event in ways_out} == {Event.ENDED, Event.REFUSED}
    assert {before for before, event in ways_out if event is Event.REFUSED} == {State.CREATING}
    assert {before for before, event in ways_out if event is Event.ENDED} == {
        State.TERMINATING,
        State.ABANDONING,
    }


def test_a_pod_is_asked_for_in_one_state_alone() -> None:
    assert [before for before, event in TRANSITIONS if event is Event.BURST] == [State.SHARED]
    assert [before for before, event in TRANSITIONS if event is Event.ORDERED] == [State.REQUESTED]
    assert {before for (before, _), to in TRANSITIONS.items() if to is State.CREATING} == {State.REQUESTED}


def test_traffic_is_routed_only_after_both_gates() -> None:
    assert {(before, event) for (before, event), to in TRANSITIONS.items() if to in ROUTED} == {
        (State.VERIFYING, Event.AGENT_ANSWERED),
        (State.VERIFYING, Event.AGENT_ABSENT),
        (State.CHECKING, Event.VERIFIED),
    }
    assert {before for before, event in TRANSITIONS if event is Event.HEALTHY} == {State.BOOTING}


def test_no_pod_is_ended_while_traffic_goes_to_it() -> None:
    """The route goes first: nothing that ends pods is a routed state."""
    assert not ROUTED & {State.DRAINING, State.TERMINATING, State.ABANDONING}


def test_the_sets_of_states_fit_together() -> None:
    assert ROUTED < MAY_BILL < COUNTED
    assert {State.REQUESTED} == COUNTED - MAY_BILL
    assert set(State) - COUNTED == {State.SHARED, State.COOLING}


def test_whatever_waits_for_a_pod_can_be_told_that_it_vanished_or_stop() -> None:
    waiting = {State.BOOTING, State.VERIFYING, State.READY, State.DRAINING, State.CHECKING}
    for state in waiting:
        assert TRANSITIONS[state, Event.VANISHED] in {State.TERMINATING, State.ABANDONING}
        assert (state, Event.STOPPED) in TRANSITIONS


def test_every_event_and_every_state_is_of_use() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)
    assert {state for state, _ in TRANSITIONS} == set(State)
    assert after({State.SHARED, State.CHECKING}) == set(State)


def test_a_given_pod_replaces_the_one_before() -> None:
    ordered = replace(POD, pod_id=None)
    moved = advance(session(State.REQUESTED), Event.ORDERED, NOW, pod=ordered)
    assert moved.pod is ordered
    assert advance(moved, Event.CREATED, NOW, pod=POD).pod is POD


def test_a_state_without_a_pod_drops_even_a_given_one() -> None:
    assert advance(session(State.TERMINATING), Event.ENDED, NOW, pod=POD).pod is None


@pytest.mark.parametrize("state", State)
def test_a_session_says_whether_it_is_routed(state: State) -> None:
    assert session(state).is_routed == (state is State.READY)


# -- the diagram


def test_the_diagram_in_the_docs_is_the_table() -> None:
    assert f"```mermaid\n{diagram()}```\n" in DOCS.read_text(encoding="utf-8")


def test_the_diagram_has_one_line_for_each_row() -> None:
    lines = diagram().splitlines()
    for (before, event), to in TRANSITIONS.items():
        assert lines.count(f"    {before} --> {to}: {event}") == 1
    assert sum("-->" in line for line in lines) == len(TRANSITIONS) + 2


def test_each_state_is_explained_in_the_docs_with_its_sets() -> None:
    rows = {
        cells[0]: tuple(cell == "yes" for cell in cells[2:])
        for line in DOCS.read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 5
    }
    for state in State:
        assert rows[state] == (state in MAY_BILL, state in COUNTED, state in ROUTED)


def test_the_module_prints_the_diagram(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(RuntimeWarning, match="found in sys.modules"):
        runpy.run_module("comfy_gateway.core.life.diagram", run_name="__main__")
    assert capsys.readouterr().out == diagram()
