"""What may be spent in a day, and what to do when it is."""

from dataclasses import dataclass
from typing import Final

WARN_FROM: Final = 0.8
"""Share of a budget at which somebody is told."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Dollars per day of UTC; 0: no bound. ``max_lifetime_s`` of one pod in seconds; 0: none."""

    daily_usd: float = 0.0
    user_daily_usd: float = 0.0
    max_lifetime_s: float = 0.0

    @property
    def is_bounded(self) -> bool:
        """Whether what was spent matters at all."""
        return bool(self.daily_usd or self.user_daily_usd)

    def refusal(self, *, spent_usd: float, spent_by_user_usd: float, reserve_usd: float) -> str | None:
        """Why no pod may be bought, or None. ``reserve_usd`` is what it costs to buy one and not use it."""
        for name, limit_usd, so_far_usd in self._bounds(spent_usd, spent_by_user_usd):
            if so_far_usd + reserve_usd > limit_usd:
                return f"${so_far_usd:.2f} were spent today, a pod costs ${reserve_usd:.2f} and {name} is {limit_usd:g}"
        return None

    def exhausted(self, *, spent_usd: float, spent_by_user_usd: float) -> str | None:
        """Why a pod has to end, or None."""
        for name, limit_usd, so_far_usd in self._bounds(spent_usd, spent_by_user_usd):
            if so_far_usd >= limit_usd:
                return f"${so_far_usd:.2f} were spent today and {name} is {limit_usd:g}"
        return None

    def nearly(self, *, spent_usd: float, spent_by_user_usd: float) -> str | None:
        """What to warn of, or None."""
        for name, limit_usd, so_far_usd in self._bounds(spent_usd, spent_by_user_usd):
            if so_far_usd >= WARN_FROM * limit_usd:
                return f"${so_far_usd:.2f} of {name}={limit_usd:g} were spent today"
        return None

    def _bounds(self, spent_usd: float, spent_by_user_usd: float) -> list[tuple[str, float, float]]:
        bounds = (
            ("BUDGET_USER_DAILY_USD", self.user_daily_usd, spent_by_user_usd),
            ("BUDGET_DAILY_USD", self.daily_usd, spent_usd),
        )
        return [bound for bound in bounds if bound[1] > 0]
