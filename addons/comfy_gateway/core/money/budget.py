"""What may be spent in a day, and what to do when it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from comfy_gateway.core.life.ending_reasons import Why

WARN_FROM: Final = 0.8
"""Share of a budget at which somebody is told."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One budget that a user's pods are paid from."""

    why: Why
    name: str
    """Of the setting."""
    subject: str
    """Whose it is: the key of a user, ``team film``, or ``all``."""
    limit_usd: float
    users: frozenset[str] | None
    """Keys of those who spend it; None: all."""

    def sum_of(self, usd_by_user: Mapping[str, float]) -> float:
        """What those spend together."""
        if self.users is None:
            return sum(usd_by_user.values())
        return sum(usd_by_user.get(key, 0.0) for key in self.users)

    def refusal(
        self, spent_usd: Mapping[str, float], committed_usd: Mapping[str, float], reserve_usd: float
    ) -> str | None:
        """Why no pod may be bought, or None.

        All by key of a user; ``committed_usd`` is what pods that were bought will cost at least besides,
        ``reserve_usd`` what it costs to buy one more and not use it.
        """
        so_far_usd, more_usd = self.sum_of(spent_usd), self.sum_of(committed_usd)
        if so_far_usd + more_usd + reserve_usd <= self.limit_usd:
            return None
        reserved = f", ${more_usd:.2f} are reserved" if more_usd else ""
        return (
            f"${so_far_usd:.2f} were spent today{reserved}, a pod costs ${reserve_usd:.2f} and {self._told}"
        )

    def exhausted(self, spent_usd: Mapping[str, float]) -> str | None:
        """Why a pod has to end, or None."""
        so_far_usd = self.sum_of(spent_usd)
        return (
            f"${so_far_usd:.2f} were spent today and {self._told}" if so_far_usd >= self.limit_usd else None
        )

    def nearly(self, spent_usd: Mapping[str, float]) -> str | None:
        """What to warn of, or None."""
        so_far_usd = self.sum_of(spent_usd)
        if so_far_usd < WARN_FROM * self.limit_usd:
            return None
        return f"${so_far_usd:.2f} of {self._whose}={self.limit_usd:g} were spent today"

    @property
    def _told(self) -> str:
        return f"{self._whose} is {self.limit_usd:g}"

    @property
    def _whose(self) -> str:
        return f"{self.name} of {self.subject}" if self.why is Why.TEAM_BUDGET else self.name


@dataclass(frozen=True, slots=True)
class Budget:
    """Dollars per day of UTC; 0: no bound. ``max_lifetime_s`` of one pod in seconds; 0: none."""

    daily_usd: float = 0.0
    user_daily_usd: float = 0.0
    max_lifetime_s: float = 0.0
    team_daily_usd: Mapping[str, float] = field(default_factory=dict)
    """By team."""
    teams: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Keys of users by team."""

    @property
    def is_bounded(self) -> bool:
        """Whether what was spent matters at all."""
        return bool(self.daily_usd or self.user_daily_usd or any(self.team_daily_usd.values()))

    def bounds(self, user_key: str) -> list[Bound]:
        """All budgets that this user's pods are paid from, the user's own first."""
        of_teams = [
            Bound(
                Why.TEAM_BUDGET,
                "BUDGET_TEAM_DAILY_USD",
                f"team {team}",
                limit_usd,
                self.teams.get(team, frozenset()),
            )
            for team, limit_usd in self.team_daily_usd.items()
            if user_key in self.teams.get(team, frozenset())
        ]
        own = Bound(
            Why.USER_BUDGET, "BUDGET_USER_DAILY_USD", user_key, self.user_daily_usd, frozenset({user_key})
        )
        bounds = [own, *of_teams, Bound(Why.BUDGET, "BUDGET_DAILY_USD", "all", self.daily_usd, None)]
        return [bound for bound in bounds if bound.limit_usd > 0]
