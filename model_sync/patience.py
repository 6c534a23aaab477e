"""How often and after what pause a mirror is asked again, in the words of tenacity."""

from copy import copy

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from model_sync.errors import Passing
from model_sync.options import Pace

# Fewer new bytes than this are no progress: a server that drips a byte per connection would be asked for ever.
PROGRESS_BYTES = 64 << 10
# A server without ranges that always cuts would be asked for ever too.
FRESH_STARTS = 3


class Patience:
    """For one mirror of one file. `reached(size)` is told how far the file has come after each attempt.

    `started_anew` is told when all its bytes were thrown away: getting on again is progress then, but only so often.
    """

    def __init__(self, pace: Pace, *, size_bytes: int) -> None:
        self._pace = pace
        self._furthest_bytes = size_bytes
        self._fruitless = 0
        self._fresh_starts = 0
        self._backoff = wait_random_exponential(multiplier=pace.backoff_s, max=pace.backoff_max_s)

    def reached(self, size_bytes: int) -> None:
        if size_bytes >= self._furthest_bytes + PROGRESS_BYTES:
            self._furthest_bytes = size_bytes
            self._fruitless = 0
        else:
            self._fruitless += 1

    @property
    def moving(self) -> bool:
        """Whether the latest attempt brought something."""
        return self._fruitless == 0

    def started_anew(self) -> None:
        self._fresh_starts += 1
        if self._fresh_starts <= FRESH_STARTS:
            self._furthest_bytes = 0

    def attempts(self) -> AsyncRetrying:
        """Ends with the last Passing itself when that many attempts in a row brought nothing."""
        return AsyncRetrying(
            retry=retry_if_exception_type(Passing), stop=self._given_up, wait=self._pause_s, reraise=True
        )

    def _given_up(self, _state: RetryCallState) -> bool:
        return self._fruitless >= self._pace.retries

    def _pause_s(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Passing) and error.retry_after_s is not None:
            return min(error.retry_after_s, self._pace.retry_after_max_s)
        if self._fruitless == 0:
            return 0.0
        # tenacity counts all attempts, we those that brought nothing.
        fruitless = copy(state)
        fruitless.attempt_number = self._fruitless
        return self._backoff(fruitless)
