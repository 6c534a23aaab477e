"""Why pods are ended, as a table: which reason is told where several apply, and what holds each of them up.

The first that applies wins. Whatever the reason, the route goes first and the pod second; nobody gets an error by it.
``ENDINGS`` is what docs/money.md shows; a test compares the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Why(StrEnum):
    """In the order in which they win."""

    OPERATOR = "operator"
    """An operator or the user gives it back, or the gateway's own end wants it gone."""
    GONE = "gone"
    """The cloud does not have it any more, or its ComfyUI is dead."""
    LIFETIME = "lifetime"
    USER_BUDGET = "user's budget"
    TEAM_BUDGET = "team's budget"
    BUDGET = "everybody's budget"
    HOURS = "hours"
    SILENCE = "silence"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Ending:
    """What holds the end up. A drain lets what runs go on for ``RUNPOD_DRAIN_TIMEOUT_S``."""

    waits_for_work: bool
    """Not while a prompt, a transfer or a copy is under way, or somebody keeps the pod."""
    waits_for_lease: bool
    """Not before the pod is as old as its minimum lease."""
    is_drained: bool
    saves_files: bool = True
    """The vault has as long as ``VAULT_DEADLINE_S``."""


_AT_ONCE: Final = Ending(waits_for_work=False, waits_for_lease=False, is_drained=True)

ENDINGS: Final[Mapping[Why, Ending]] = {
    Why.OPERATOR: _AT_ONCE,
    Why.GONE: Ending(waits_for_work=False, waits_for_lease=False, is_drained=False),
    Why.LIFETIME: _AT_ONCE,
    Why.USER_BUDGET: _AT_ONCE,
    Why.TEAM_BUDGET: _AT_ONCE,
    Why.BUDGET: _AT_ONCE,
    Why.HOURS: _AT_ONCE,
    Why.SILENCE: Ending(waits_for_work=True, waits_for_lease=False, is_drained=True),
    Why.IDLE: Ending(waits_for_work=True, waits_for_lease=True, is_drained=True),
}


def winner(texts: Mapping[Why, str]) -> tuple[Why, str] | None:
    """The reason that is told, with its text; None where nothing ends the pod."""
    return next(((why, texts[why]) for why in Why if why in texts), None)


def table() -> list[tuple[str, ...]]:
    """As the page shows it: reason, waits for work, for the lease, is drained, saves files."""
    return [
        (
            why.value,
            *(
                "yes" if holds else ""
                for holds in (
                    ending.waits_for_work,
                    ending.waits_for_lease,
                    ending.is_drained,
                    ending.saves_files,
                )
            ),
        )
        for why, ending in ENDINGS.items()
    ]
