"""From accepted prompts to a pod that is asked for."""

import logging
from collections import OrderedDict
from collections.abc import Callable

from comfy_gateway.core.life.session import Event, State
from comfy_gateway.core.life.window import PromptWindow
from comfy_gateway.core.money.admission import refusal
from comfy_gateway.core.money.market import Market, starting
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock
from comfy_gateway.service.life.rules import Rules
from comfy_gateway.service.life.sessions import Sessions
from comfy_gateway.service.life.wishes import Wishes

logger = logging.getLogger(__name__)

EARNING = frozenset({State.SHARED, State.COOLING})
"""States in which a prompt counts toward a pod; in the others there is one, or one is on its way."""

MAX_USERS = 100_000


class Bursts:
    """Counts accepted prompts per user and opens a session at a burst. Everything here is synchronous:
    of forty prompts that are accepted together the first that completes the burst takes the session out of
    SHARED, and the others find it taken."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        rules: Rules,
        market: Market,
        clock: Clock,
        begin: Callable[[UserId], None],
        wishes: Wishes,
        max_users: int = MAX_USERS,
    ) -> None:
        self._sessions = sessions
        self._rules = rules
        self._market = market
        self._clock = clock
        self._begin = begin
        self._wishes = wishes
        self._max_users = max_users
        self._windows: OrderedDict[UserId, PromptWindow] = OrderedDict()
        self._told: set[UserId] = set()
        self._without_use: set[UserId] = set()
        """Users whose last prompt a pod could not have run."""

    def prompt_accepted(
        self,
        user: UserId,
        *,
        earns_pod: bool = True,
        wish: str | None = None,
        wait_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        """A ComfyUI server accepted a prompt of this user, which asks for the profile ``wish``.

        ``earns_pod`` is False for one that no pod would run; ``wait_s()`` predicts how long it waits on duty.
        """
        self._wishes.note(user, wish)
        if not self._rules.is_provisioning or self._sessions.get(user).state not in EARNING:
            return
        if not earns_pod:
            if len(self._without_use) >= self._max_users:
                self._without_use.clear()
            self._without_use.add(user)
            return
        self._without_use.discard(user)
        window = self._windows.get(user)
        if window is None:
            window = self._windows[user] = PromptWindow(
                self._rules.threshold_count, self._rules.threshold_window_s
            )
            while len(self._windows) > self._max_users:
                self._windows.popitem(last=False)
        self._windows.move_to_end(user)
        if window.add(self._clock.monotonic()):
            count, seconds = self._rules.threshold_count, self._rules.threshold_window_s
            self._open(
                user,
                f"{count} prompts within {seconds:g} s" if count else "first prompt",
            )
        elif self._rules.burst_wait_s:
            predicted_s = wait_s() or 0.0
            if predicted_s > self._rules.burst_wait_s:
                self._open(user, f"a prompt that will wait about {predicted_s:.0f} s on duty")

    def duty_lacks(self, user: UserId, missing: str, *, wish: str | None = None) -> None:
        """Duty has refused a prompt of this user; ``missing`` says what it lacks and pods have, empty for nothing."""
        if missing and self._rules.is_provisioning and self._rules.bursts_for_missing:
            self._wishes.note(user, wish)
            self._without_use.discard(user)
            self._open(user, f"a prompt that duty cannot run and pods can: {missing}")

    def counted(self, user: UserId) -> int:
        """Prompts of this user that count toward a pod at this moment."""
        window = self._windows.get(user)
        return 0 if window is None else window.count_at(self._clock.monotonic())

    def ask(self, user: UserId, cause: str, *, wish: str | None = None) -> str | None:
        """Somebody wants a pod for this user without a burst. Why there is none, in words for an operator, or None.

        ``core.life.own_pod`` has judged whether that may be; caps and budgets are judged here and at the order.
        ``wish`` is a profile; without one the user's last prompt may have named it.
        """
        if wish is not None:
            self._wishes.note(user, wish)
        return self._open(user, cause)

    def seen(self, user: UserId) -> None:
        """An identified user opened a socket; this alone is enough where the threshold is 0."""
        is_enough = self._rules.threshold_count == 0 and user not in self._without_use
        if self._rules.is_provisioning and is_enough:
            self._open(user, "first socket")

    def _open(self, user: UserId, cause: str) -> str | None:
        """Why no pod was asked for, or None."""
        if (state := self._sessions.get(user).state) is not State.SHARED:
            return f"the session is {state}"
        # The price is not known yet; the budget is judged again with it before the order goes out.
        others = self._sessions.counted(but=user)
        committed_usd = sum((other.pod.cost_per_hour_usd or 0.0) if other.pod else 0.0 for other in others)
        why_not = (
            self._rules.hours.why_not(self._clock.now())
            or refusal(
                active_sessions=len(others),
                committed_usd=committed_usd,
                price_usd=0.0,
                caps=self._rules.caps,
            )
            or self._market.why_not(
                starting=starting([other.state for other in others]), now_s=self._clock.monotonic()
            )
        )
        if why_not is not None:
            if user not in self._told:
                if len(self._told) >= self._max_users:
                    self._told.clear()
                self._told.add(user)
                logger.warning(
                    "RunPod session %s: stays on duty after %s: %s",
                    user.key,
                    cause,
                    why_not,
                )
            return why_not
        self._told.discard(user)
        # The prompts that have earned this pod do not earn the next one as well.
        self._windows.pop(user, None)
        self._sessions.apply(user, Event.BURST, cause)
        self._begin(user)
        return None
