"""What an account may do: how many calls a minute, how much an hour, and for how long its money lasts.

Numbers that RunPod publishes are named; its texts for money and the shape of GraphQL's 429 were never measured.
"""

import math

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, PositiveInt

MINUTE_S = 60.0
SETTLED_EVERY_S = 300.0
"""RunPod takes money from the balance every five minutes."""
HOURS_IN_ADVANCE = 1.0
"""So much of a new pod's price must be left."""
SPEND_CAP_USD_PER_HOUR = 80.0
NO_MONEY_TEXT = "Your account balance is too low to rent this pod. Please add funds."
SPEND_CAP_TEXT = "This pod would exceed the spend limit of your account."


class AccountChange(BaseModel):
    """What is to be changed of the account; null takes a bound away, and what is not told stays."""

    model_config = ConfigDict(extra="forbid")

    balance_usd: NonNegativeFloat | None = None
    spend_cap_usd_per_hour: PositiveFloat | None = None
    calls_per_minute: PositiveInt | None = None


class TokenBucket:
    """A minute's calls at once, then one for each part of a minute. Times are those of the cloud's clock."""

    def __init__(self, per_minute: int, now_s: float) -> None:
        self.per_minute = per_minute
        self._tokens = float(per_minute)
        self._filled_s = now_s

    def take(self, now_s: float) -> float | None:
        """None where the call may go on, else in how many seconds it may."""
        rate_per_s = self.per_minute / MINUTE_S
        self._tokens = min(self._tokens + (now_s - self._filled_s) * rate_per_s, float(self.per_minute))
        self._filled_s = now_s
        # A caller that waits as long as it was told finds its token whatever was rounded.
        if self._tokens >= 1.0 - 1e-9:
            self._tokens -= 1.0
            return None
        return (1.0 - self._tokens) / rate_per_s


def rate_limit_headers(retry_after_s: float, per_minute: int) -> dict[str, str]:
    """Of a 429. Retry-After is whole seconds, so it is rounded up."""
    wait_s = max(math.ceil(retry_after_s), 1)
    return {
        "Retry-After": str(wait_s),
        "RateLimit-Policy": f'"minute";q={per_minute};w=60',
        "RateLimit": f'"minute";r=0;t={wait_s}',
    }
