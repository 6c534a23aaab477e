"""What happens in one history, drawn before anything runs, and what it may cost at most."""

import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from tests.fakes.cloud import Create
from tests.service.world import RULES

USERS: Final = 4
MOST_STARTING: Final = 3
"""Pods that start at one time: fewer than there are users, so that a herd is held back."""
PRICE_USD: Final = 0.5
"""Per hour, of every pod."""
CALM_S: Final = 1500
"""Longer than any pod may outlive its use."""
DOUBLE_S: Final = RULES.reconcile_s + 1
"""From the truth on a user has two living pods for no longer than a tick."""
UNACCOUNTED_S: Final = 60.0
WRONG_ROUTE_S: Final = 60.0
"""From the truth on a route leads to a pod that runs, but for so long."""
OUTLIVES_S: Final = (
    RULES.idle.silence_timeout_s + RULES.telemetry_poll_s + RULES.drain_timeout_s + 2 * RULES.reconcile_s
)
"""After its last use, or after the truth, a pod lives on for no longer than the longest silence and its end take."""

ORPHAN_S: Final = RULES.idle.idle_s + 2 * RULES.reconcile_s
"""So long a pod lives that nobody knows, from the first list on."""

HONEST: Final = [
    Create.OK, Create.CAPACITY, Create.REFUSED, Create.UNAUTHORIZED, Create.LOST, Create.NOTHING,
]  # fmt: skip

LYING: Final = [*Create, Create.DOUBLE, Create.DOUBLE, Create.LATE]


class Kind(StrEnum):
    """What a step does."""

    BURST = "burst"
    HERD = "all burst at once"
    WORK = "a prompt that runs on"
    FINISH = "all prompts end"
    WAIT = "wait"
    CREATE = "the next create"
    CALLS = "calls to the cloud"
    STORE = "the database"
    LOSE_POD = "a pod goes"
    BAD_HOST = "pods are on no machine"
    AGENTS = "agents and servers in pods"
    STOP = "an operator ends a pod"
    KILL = "kill -9 and start"
    AMNESIA = "kill -9 and start without the state folder"
    CLOCK = "the clock is set"
    TRUTH = "all faults end"


_WEIGHTS: Final = {
    Kind.HERD: 1, Kind.BAD_HOST: 0.5,
    Kind.BURST: 6, Kind.WORK: 3, Kind.FINISH: 3, Kind.WAIT: 8, Kind.CREATE: 3, Kind.CALLS: 1, Kind.STORE: 1,
    Kind.LOSE_POD: 1, Kind.AGENTS: 1, Kind.STOP: 1, Kind.KILL: 2, Kind.AMNESIA: 0.3, Kind.CLOCK: 1,
}  # fmt: skip


FAULTS: Final = frozenset(
    {Kind.CREATE, Kind.CALLS, Kind.STORE, Kind.LOSE_POD, Kind.BAD_HOST, Kind.AGENTS, Kind.AMNESIA, Kind.CLOCK}
)
"""After one of these nothing is promised until the truth."""


@dataclass(frozen=True)
class Step:
    """One thing that happens, and how long it takes on the clock."""

    kind: Kind
    user: int = 0
    seconds: float = 0.0
    values: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [str(self.kind)]
        if self.kind in {Kind.BURST, Kind.WORK, Kind.STOP}:
            parts.append(f"user{self.user}")
        if self.seconds:
            parts.append(f"{self.seconds:g} s")
        return " ".join([*parts, *(f"{key}={value}" for key, value in self.values.items())])


@dataclass(frozen=True)
class Schedule:
    """All steps of one seed."""

    seed: int
    is_honest: bool
    """The cloud fails but does not lie: a user then never has two living pods, not for a moment."""
    steps: tuple[Step, ...]

    def most_usd(self) -> float:
        """What all pods together may cost.

        A user's pod may live while faults last, and for OUTLIVES_S after the last use and the last start. A create
        that makes pods which the cloud hides or doubles may cost one more, until a tick after the truth.
        """
        now_s = paid_s = 0.0
        is_true = False
        works = [False] * USERS
        ends_s = [0.0] * USERS
        """Until when each user's pod may live once the truth is told; 0 for who never wanted one."""
        more = 0
        for step in self.steps:
            for user in range(USERS):
                is_open = works[user] or (not is_true and ends_s[user] > 0)
                paid_s += step.seconds if is_open else min(max(ends_s[user] - now_s, 0.0), step.seconds)
            paid_s += step.seconds * more
            now_s += step.seconds
            until_s = now_s + OUTLIVES_S
            match step.kind:
                case Kind.TRUTH:
                    is_true, works = True, [False] * USERS
                    ends_s = [until_s if end_s else 0.0 for end_s in ends_s]
                    paid_s += more * max(DOUBLE_S + UNACCOUNTED_S, ORPHAN_S)
                    more = 0
                case Kind.HERD:
                    ends_s = [until_s] * USERS
                case Kind.BURST | Kind.WORK:
                    works[step.user] |= step.kind is Kind.WORK
                    ends_s[step.user] = until_s
                case Kind.FINISH:
                    ends_s = [
                        until_s if is_at_work else end_s
                        for is_at_work, end_s in zip(works, ends_s, strict=True)
                    ]
                    works = [False] * USERS
                case Kind.KILL | Kind.AMNESIA:
                    works = [False] * USERS
                    ends_s = [until_s if end_s else 0.0 for end_s in ends_s]
                    more += USERS if step.kind is Kind.AMNESIA else 0
                case Kind.CREATE:
                    more += step.values["outcome"] in {Create.DOUBLE, Create.LATE}
            if step.kind in FAULTS:
                is_true = False
        return paid_s * PRICE_USD / 3600


def draw(seed: int, *, storms: int = 2, length: int = 40) -> Schedule:
    """The schedule of a seed."""
    chance = random.Random(seed)
    is_honest = seed % 2 == 0
    steps: list[Step] = []
    for _ in range(storms):
        kinds = chance.choices(list(_WEIGHTS), weights=list(_WEIGHTS.values()), k=length)
        steps += [_step(kind, chance, is_honest=is_honest) for kind in kinds]
        steps.append(Step(Kind.TRUTH))
        # Nobody lies any more, but people go on working, and the gateway may still be killed.
        for kind in chance.choices([Kind.BURST, Kind.KILL, Kind.WAIT], k=3):
            steps.append(_step(kind, chance, is_honest=True))
        steps.append(Step(Kind.WAIT, seconds=CALM_S))
    return Schedule(seed, is_honest, tuple(steps))


def _step(kind: Kind, chance: random.Random, *, is_honest: bool) -> Step:
    user, seconds, values = chance.randrange(USERS), 0.0, {}
    match kind:
        case Kind.WAIT:
            seconds = chance.choice([1, 3, 20, 60, 300])
        case Kind.KILL | Kind.AMNESIA:
            # In the middle of whatever call is under way.
            seconds = chance.choice([0.0, 0.2, 0.6, 1.1, 3.0, 8.0])
        case Kind.CREATE:
            values = {
                "outcome": chance.choice(HONEST if is_honest else LYING),
                "create_s": chance.choice([0, 0.5, 2, 12]),
                "answer_s": chance.choice([0, 0, 1, 5]),
            }
        case Kind.CALLS:
            values = {
                "is_failing": chance.random() < 0.3,
                "is_list_failing": chance.random() < 0.3,
                "call_s": chance.choice([0, 0, 0.5, 7]),
                "swallowed": chance.choice([0, 0, 1, 6, 10**6, 10**6]),
                "probe_s": chance.choice([0, 0, 3]),
                "list_lag_s": 0 if is_honest else chance.choice([0, 5, 40]),
                "dropped": 0.0 if is_honest else 0.5,
            }
        case Kind.STORE:
            values = {
                "is_down": chance.random() < 0.4,
                "lost_answers": chance.choice([0, 0, 1, 3]),
                "call_s": chance.choice([0, 0, 0.3, 4]),
                "answer_s": chance.choice([0, 0, 0.3, 2]),
            }
        case Kind.LOSE_POD:
            values = {"how": chance.choice(["exit", "vanish"]), "which": chance.random()}
        case Kind.AGENTS:
            values = {"seed": chance.randrange(1 << 30)}
        case Kind.CLOCK:
            values = {"jump_s": chance.choice([-3600, -5, 5, 3600, 86400])}
    return Step(kind, user, seconds, values)
