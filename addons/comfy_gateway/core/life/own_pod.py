"""What users may do about their own pod: get one at once, keep it a while, give it back."""

from dataclasses import dataclass
from typing import Final

from comfy_gateway.core.life.session import STARTING, State
from comfy_gateway.core.requests.refusals import Refusal

KEEP_MINUTES: Final = 30
KEEP_S: Final = KEEP_MINUTES * 60.0

GIVEN_BACK_FROM: Final = STARTING | {State.READY, State.CHECKING}
"""States in which a pod can be given back; in the later ones it ends already."""

NO_PODS: Final = Refusal(409, "no_pods_here", "There are no private GPUs here.")
MAY_NOT_PROMOTE: Final = Refusal(
    403,
    "not_allowed",
    "A private GPU cannot be asked for here.",
    "It comes by itself when you send several prompts (ME_MAY_PROMOTE).",
)
NO_PROFILE: Final = Refusal(
    400, "no_profile", "You may not have this GPU profile, or there is none of that name."
)
HAS_POD: Final = Refusal(409, "has_pod", "You have a private GPU, or one is on its way.")
STILL_ENDING: Final = Refusal(
    409, "still_ending", "Your last private GPU has not ended yet.", retry_after_s=15
)
COOLING: Final = Refusal(
    409, "cooling_down", "The last start has failed; wait a while before the next.", retry_after_s=30
)
NONE_FREE: Final = Refusal(
    503,
    "none_free",
    "No private GPU can be had at this moment.",
    "As many run as may, or as much is spent as may be.",
    retry_after_s=60,
)
NOT_READY: Final = Refusal(409, "no_pod", "You have no private GPU that serves you at this moment.")
KEPT_ENOUGH: Final = Refusal(
    409, "kept_enough", "This private GPU was kept as often as one may (ME_KEEP_TIMES)."
)
LIFE_OVER: Final = Refusal(409, "life_over", "This private GPU has reached its longest life.")


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings let users do."""

    may_promote: bool = False
    keep_times: int = 2
    """How often one pod may be kept; 0: never."""
    max_lifetime_s: float = 0.0
    """Of a pod, however it is kept; 0: no bound."""


@dataclass(frozen=True, slots=True)
class Can:
    """What this user may do at this moment."""

    promote: bool = False
    keep: bool = False
    give_back: bool = False


def refuse_promote(state: State, policy: Policy, *, has_pods: bool) -> Refusal | None:
    """Why this user may not have a pod now, or None. Caps and budgets are judged when it is ordered."""
    if not has_pods:
        return NO_PODS
    if not policy.may_promote:
        return MAY_NOT_PROMOTE
    if state is State.SHARED:
        return None
    if state is State.COOLING or state is State.ABANDONING:
        return COOLING
    return HAS_POD if state in GIVEN_BACK_FROM else STILL_ENDING


def refuse_keep(state: State, policy: Policy, *, kept: int, age_s: float) -> Refusal | None:
    """Why this user may not keep the pod, or None. ``kept``: how often it was; ``age_s``: since its order."""
    if state is not State.READY:
        return NOT_READY
    if kept >= policy.keep_times:
        return KEPT_ENOUGH
    return LIFE_OVER if 0 < policy.max_lifetime_s <= age_s else None


def refuse_give_back(state: State) -> Refusal | None:
    """Why there is nothing to give back, or None."""
    return None if state in GIVEN_BACK_FROM else NOT_READY


def kept_for_s(policy: Policy, *, left_s: float, age_s: float, wanted_s: float = KEEP_S) -> float:
    """How long a pod is kept from now on when it is kept once more and ``left_s`` were left of the last time.

    Times do not add up: it is ``wanted_s`` from now, and never past the pod's longest life.
    """
    seconds = max(left_s, wanted_s)
    return min(seconds, policy.max_lifetime_s - age_s) if policy.max_lifetime_s > 0 else seconds
