"""Faults of the cloud, as rules in a table.

A rule names the operation it disturbs and the kind of disturbance. For every API call the table is read from
top to bottom and the first rule that applies fires. A new kind is one line in `KINDS` plus the few lines that
carry it out: in `replies.py` when it replaces the answer, in `deeds.py` when it bends what happens.

When a kind strikes:
- INSTEAD: the answer is replaced and nothing is executed;
- INSIDE: the call is executed, differently;
- AFTER: the call is executed properly, and then its answer is spoilt. This is how billing orphans are made.
"""

import random
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Operation = Literal["create", "list", "get", "terminate", "stop", "resume", "gpu", "user"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

CAPACITY_TEXTS: tuple[str, ...] = (
    (
        "There are no longer any instances available with the requested specifications. "
        "Please refresh and try again."
    ),
    "There are no longer any instances available with enough disk space.",
    "There are no instances currently available",
    "This machine does not have the resources to deploy your pod. Please try a different machine",
)
RESUME_CAPACITY_TEXT = "There are not enough free GPUs on the host machine to start this pod."
AMBIGUOUS_TEXT = "Something went wrong. Please try again later or contact support."

Kind = Literal[
    "unauthorized",
    "unauthorized_errors",
    "errors",
    "rate_limited",
    "http_error",
    "html",
    "empty",
    "null_data",
    "reply",
    "hang",
    "reset",
    "slow",
    "null",
    "capacity",
    "duplicate",
    "stuck",
    "no_machine",
    "crash_loop",
    "exit_after",
    "vanish_after",
    "swallow",
    "drop",
    "null_list",
    "stale",
    "commit_error",
    "commit_hang",
    "commit_reset",
    "trickle",
]


class Strikes(Enum):
    INSTEAD = "instead"
    INSIDE = "inside"
    AFTER = "after"


_ANY: frozenset[Operation] = frozenset(OPERATIONS)
_STARTS: frozenset[Operation] = frozenset({"create", "resume"})

KINDS: dict[Kind, tuple[Strikes, frozenset[Operation]]] = {
    # 401, whatever the body
    "unauthorized": (Strikes.INSTEAD, _ANY),
    # 200 with errors ["Unauthorized"]: what a weak key sometimes meets
    "unauthorized_errors": (Strikes.INSTEAD, _ANY),
    # 200 with errors [text]
    "errors": (Strikes.INSTEAD, _ANY),
    # 429 JSON without `errors`, with Retry-After
    "rate_limited": (Strikes.INSTEAD, _ANY),
    # `status` and JSON without `errors`: the SDK takes it for success
    "http_error": (Strikes.INSTEAD, _ANY),
    # `status` and a web page
    "html": (Strikes.INSTEAD, _ANY),
    # `status` and no body
    "empty": (Strikes.INSTEAD, _ANY),
    # no data at all
    "null_data": (Strikes.INSTEAD, _ANY),
    # `status` and `body` as given
    "reply": (Strikes.INSTEAD, _ANY),
    # `seconds` of silence, then the connection closes
    "hang": (Strikes.INSTEAD, _ANY),
    # connection reset, nothing done
    "reset": (Strikes.INSTEAD, _ANY),
    # done and answered after `seconds`, even if the caller has left
    "slow": (Strikes.INSIDE, _ANY),
    # the field is null without an error, nothing done
    "null": (Strikes.INSIDE, _ANY),
    # refused with `text`
    "capacity": (Strikes.INSIDE, _STARTS),
    # `count` pods instead of one, one of them named in the answer
    "duplicate": (Strikes.INSIDE, frozenset({"create"})),
    # the pod never gets a runtime, and bills
    "stuck": (Strikes.INSIDE, _STARTS),
    # RUNNING and billing, but on no machine
    "no_machine": (Strikes.INSIDE, _STARTS),
    # the container ends `seconds` after each start and is started again; the pod bills
    "crash_loop": (Strikes.INSIDE, _STARTS),
    # the pod turns EXITED after `seconds`; `text` such as "Outbid" is the cause that it shows
    "exit_after": (Strikes.INSIDE, _STARTS),
    # the pod is gone without a word after `seconds`
    "vanish_after": (Strikes.INSIDE, _STARTS),
    # reported as done; the pod lives and bills
    "swallow": (Strikes.INSIDE, frozenset({"terminate", "stop"})),
    # the list lacks `pod` (or every pod)
    "drop": (Strikes.INSIDE, frozenset({"list"})),
    # the account is there, its pods are null
    "null_list": (Strikes.INSIDE, frozenset({"list"})),
    # the view of `seconds` ago
    "stale": (Strikes.INSIDE, frozenset({"list", "get"})),
    # done, then `status` and JSON without `errors`
    "commit_error": (Strikes.AFTER, _ANY),
    # done, then `seconds` of silence
    "commit_hang": (Strikes.AFTER, _ANY),
    # done, then the connection is reset
    "commit_reset": (Strikes.AFTER, _ANY),
    # done, answered with one byte every `seconds`
    "trickle": (Strikes.AFTER, _ANY),
}


class Fault(BaseModel):
    """One rule.

    operation  which calls; "any" for all of them. `create_pod` of the SDK also makes a "gpu" call first
    gpu, data_center, pod  further scopes: GPU type id, data centre id, pod id
    nth, times  strikes from the nth call in scope (counted from 1), at most `times` times (None: for ever)
    probability  of each strike; drawn from the table's seeded generator
    text, status, seconds, retry_after_s, count, body  details, see `KINDS`; None means the kind's usual value
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: Operation | Literal["any"]
    kind: Kind
    gpu: str | None = None
    data_center: str | None = None
    pod: str | None = None
    nth: int = Field(default=1, ge=1)
    times: int | None = Field(default=1, ge=1)
    probability: float = Field(default=1.0, ge=0.0, le=1.0)
    text: str | None = None
    status: int | None = Field(default=None, ge=100, le=599)
    seconds: float | None = Field(default=None, ge=0.0)
    retry_after_s: float = Field(default=30.0, ge=0.0)
    count: int = Field(default=2, ge=1)
    body: str | None = None

    @property
    def strikes(self) -> Strikes:
        return KINDS[self.kind][0]

    @model_validator(mode="after")
    def _kind_fits_operation(self) -> Self:
        fitting = KINDS[self.kind][1]
        if (self.operation == "any" and fitting != _ANY) or (
            self.operation != "any" and self.operation not in fitting
        ):
            raise ValueError(f"{self.kind} disturbs {', '.join(sorted(fitting))}, not {self.operation}")
        return self


@dataclass(frozen=True)
class Call:
    """One operation asked of the API. `key` is the field's name in the answer; a request may hold several."""

    operation: Operation
    key: str
    at_s: float
    gpu: str | None = None
    data_center: str | None = None
    pod_id: str | None = None
    name: str | None = None


@dataclass
class Rule:
    fault: Fault
    seen: int = 0
    fired: int = 0

    def covers(self, call: Call) -> bool:
        fault = self.fault
        return (
            fault.operation in ("any", call.operation)
            and fault.gpu in (None, call.gpu)
            and fault.data_center in (None, call.data_center)
            # on a list `pod` says whom to drop, not which list
            and (fault.pod in (None, call.pod_id) or call.operation == "list")
        )


@dataclass
class FaultTable:
    seed: int = 0
    rules: list[Rule] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def add(self, fault: Fault) -> Rule:
        rule = Rule(fault)
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        self.rules.clear()

    def strike(self, call: Call) -> Fault | None:
        """The fault that this call meets, or None. Counts the call for every rule that covers it."""
        struck: Fault | None = None
        for rule in self.rules:
            if not rule.covers(call):
                continue
            rule.seen += 1
            fault = rule.fault
            spent = fault.times is not None and rule.fired >= fault.times
            if struck is not None or spent or rule.seen < fault.nth:
                continue
            if fault.probability < 1.0 and self._random.random() >= fault.probability:
                continue
            rule.fired += 1
            struck = fault
        return struck
