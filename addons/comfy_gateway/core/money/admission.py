"""May another private pod be bought now?"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caps:
    """What may be spent at one moment."""

    max_active_sessions: int
    budget_hourly_usd: float


def too_dear(price_usd: float, *, place_usd: float | None, any_usd: float) -> str | None:
    """Why a price per hour is over a ceiling, or None; ``place_usd`` is the place's own, 0 as ``any_usd`` none."""
    if place_usd is not None and price_usd > place_usd:
        return f"it costs ${price_usd:.2f} an hour, and here ${place_usd:.2f} is the most"
    if 0 < any_usd < price_usd:
        return f"it costs ${price_usd:.2f} an hour and RUNPOD_MAX_USD_PER_HOUR is {any_usd:g}"
    return None


def refusal(*, active_sessions: int, committed_usd: float, price_usd: float, caps: Caps) -> str | None:
    """Why a pod may not be bought, or None when it may.

    ``active_sessions`` and ``committed_usd`` (per hour) are those of the others; ``price_usd`` is the new pod's.
    """
    if active_sessions >= caps.max_active_sessions:
        return f"{active_sessions} private pods are in use and RUNPOD_MAX_ACTIVE_SESSIONS is {caps.max_active_sessions}"
    if committed_usd + price_usd > caps.budget_hourly_usd:
        return (
            f"${committed_usd:.2f} an hour are in use, one more costs ${price_usd:.2f} "
            f"and BUDGET_HOURLY_USD is {caps.budget_hourly_usd:g}"
        )
    return None
