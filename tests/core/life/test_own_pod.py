"""What users may do about their own pod."""

import pytest

from comfy_gateway.core.life import own_pod
from comfy_gateway.core.life.own_pod import Policy
from comfy_gateway.core.life.session import State
from comfy_gateway.core.requests.refusals import Refusal

LIBERAL = Policy(may_promote=True, keep_times=2, max_lifetime_s=7200)


@pytest.mark.parametrize(
    ("state", "refusal"),
    [
        (State.SHARED, None),
        (State.REQUESTED, own_pod.HAS_POD),
        (State.READY, own_pod.HAS_POD),
        (State.DRAINING, own_pod.STILL_ENDING),
        (State.TERMINATING, own_pod.STILL_ENDING),
        (State.ABANDONING, own_pod.COOLING),
        (State.COOLING, own_pod.COOLING),
    ],
)
def test_a_pod_is_for_who_has_none(state: State, refusal: Refusal | None) -> None:
    assert own_pod.refuse_promote(state, LIBERAL, has_pods=True) is refusal


def test_asking_needs_the_policy_and_pods_at_all() -> None:
    assert own_pod.refuse_promote(State.SHARED, Policy(), has_pods=True) is own_pod.MAY_NOT_PROMOTE
    assert own_pod.refuse_promote(State.SHARED, LIBERAL, has_pods=False) is own_pod.NO_PODS


def test_only_a_pod_that_serves_is_kept_so_often_and_so_long() -> None:
    assert own_pod.refuse_keep(State.BOOTING, LIBERAL, kept=0, age_s=0) is own_pod.NOT_READY
    assert own_pod.refuse_keep(State.READY, LIBERAL, kept=1, age_s=7199) is None
    assert own_pod.refuse_keep(State.READY, LIBERAL, kept=2, age_s=0) is own_pod.KEPT_ENOUGH
    assert own_pod.refuse_keep(State.READY, LIBERAL, kept=0, age_s=7200) is own_pod.LIFE_OVER
    assert own_pod.refuse_keep(State.READY, Policy(keep_times=1), kept=0, age_s=1e9) is None
    assert own_pod.refuse_keep(State.READY, Policy(keep_times=0), kept=0, age_s=0) is own_pod.KEPT_ENOUGH


def test_keeping_again_does_not_add_up_and_ends_with_the_pods_life() -> None:
    assert own_pod.kept_for_s(LIBERAL, left_s=0, age_s=100) == own_pod.KEEP_S
    assert own_pod.kept_for_s(LIBERAL, left_s=1700, age_s=100) == own_pod.KEEP_S
    assert own_pod.kept_for_s(LIBERAL, left_s=0, age_s=7000) == 200
    assert own_pod.kept_for_s(Policy(), left_s=0, age_s=1e9) == own_pod.KEEP_S


@pytest.mark.parametrize("state", State)
def test_what_ends_already_or_is_not_there_cannot_be_given_back(state: State) -> None:
    ends = {State.SHARED, State.COOLING, State.DRAINING, State.TERMINATING, State.ABANDONING}
    assert (own_pod.refuse_give_back(state) is not None) == (state in ends)
