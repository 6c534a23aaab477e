"""Buying a pod: written down first, asked for once, looked up by name whenever the outcome is unknown."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from comfy_gateway.core.errors import (
    CapacityRefused,
    CloudError,
    CloudRefused,
    CloudUnauthorized,
    CloudUnavailable,
    StoreError,
)
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.life.session import STARTING, Event, Pod, Session, State
from comfy_gateway.core.money import admission
from comfy_gateway.core.money.alarms import Alarm, AlarmKind
from comfy_gateway.core.money.market import Market
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.pods import doubles
from comfy_gateway.core.pods.podname import PodNames
from comfy_gateway.core.ports import Candidate, Clock, Cloud, PodOrder
from comfy_gateway.service.life.rules import Rules
from comfy_gateway.service.life.sessions import Sessions

logger = logging.getLogger(__name__)

LOOKS = 4
"""Truthful lists without the name before a create of unknown outcome counts as refused. The list lags."""


class Launch:
    """The steps of a session from REQUESTED to BOOTING."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        cloud: Cloud,
        names: PodNames,
        new_attempt: Callable[[], str],
        keys: Keys,
        rules: Rules,
        market: Market,
        clock: Clock,
        why_not: Callable[[UserId, float, Mapping[UserId, float]], Awaitable[str | None]],
        wish_of: Callable[[UserId], str | None],
        tell: Callable[[Alarm], None],
    ) -> None:
        """``why_not`` says why a user may not have a pod at a price per hour today, given
        the prices of pods that are being ordered; ``wish_of`` which profile their
        last prompt asked for."""
        self._wish_of = wish_of
        self._tell = tell
        self._why_not = why_not
        self._sessions = sessions
        self._cloud = cloud
        self._names = names
        self._new_attempt = new_attempt
        self._keys = keys
        self._rules = rules
        self._market = market
        self._clock = clock
        self._unsent: set[str] = set()
        self._reserved_usd: dict[UserId, float] = {}
        sessions.watch(self._learn)

    async def order(self, session: Session) -> None:
        """REQUESTED: write the attempt down. Without that nothing is bought."""
        attempt = self._new_attempt()
        pod = Pod(self._names.make(session.user, attempt), attempt, self._clock.now())
        self._sessions.apply(session.user, Event.ORDERED, "writing the attempt down", pod=pod)
        try:
            await self._sessions.save(session.user)
        except StoreError as error:
            self._sessions.apply(
                session.user,
                Event.REFUSED,
                f"the attempt could not be written down: {error}",
            )
            return
        self._unsent.add(attempt)

    async def create(self, session: Session) -> str | None:
        """CREATING: send the call if this process has not sent it yet, otherwise look for what it made.

        Returns why no pod was made; None when the session has one.
        """
        pod = session.pod
        assert pod is not None
        if pod.attempt not in self._unsent:
            return await self._look_up(session.user, pod, "the answer to the order was not heard")
        self._unsent.discard(pod.attempt)
        try:
            return await self._try_candidates(session.user, pod)
        finally:
            self._reserved_usd.pop(session.user, None)

    async def _try_candidates(self, user: UserId, pod: Pod) -> str | None:
        refusals: list[str] = []
        asked = faults = sold_out = 0
        if (closed := self._rules.hours.why_not(self._clock.now())) is not None:
            return self._refuse(user, closed)
        profile = self._rules.buying.of(user, self._wish_of(user))
        for candidate in self._market.ordered(profile.candidates, self._clock.monotonic()):
            if 0 < self._market.limits.max_attempts <= asked:
                refusals.append(f"{asked} were asked, which is the most")
                break
            # Looked up just before: others may have been refused there while this order asked elsewhere.
            price_usd, why_not = None, self._market.remembered_refusal(candidate, self._clock.monotonic())
            if why_not is None:
                price_usd, why_not = await self._reserve(user, candidate)
            if why_not is None:
                asked += 1
                self._market.rented(pod.name, candidate)
                try:
                    pod_id = await self._cloud.create_pod(self._order(pod, candidate))
                except (CapacityRefused, CloudRefused) as error:
                    # A GPU type that is mistyped must not hide the good ones behind it.
                    why_not = str(error)
                    self._market.refused(candidate, self._clock.monotonic())
                    faults += isinstance(error, CloudRefused)
                    sold_out += isinstance(error, CapacityRefused)
                except CloudUnauthorized as error:
                    return self._refuse(user, str(error), failed=pod)
                except CloudUnavailable as error:
                    return await self._look_up(user, pod, str(error))
                else:
                    bought = replace(
                        pod,
                        pod_id=pod_id,
                        gpu_type=candidate.gpu_type,
                        cost_per_hour_usd=price_usd,
                    )
                    self._sessions.apply(user, Event.CREATED, f"{candidate.gpu_type} rented", pod=bought)
                    return None
            refusals.append(f"{candidate.gpu_type}: {why_not}")
        cause = "; ".join(refusals) or "no GPU type is configured"
        if sold_out and sold_out == asked:
            self._tell(
                Alarm(AlarmKind.CAPACITY, profile.name, f"no machine is to be had: {cause}", is_warning=True)
            )
        return self._refuse(user, cause, failed=pod if 0 < asked == faults else None)

    def _refuse(self, user: UserId, cause: str, *, failed: Pod | None = None) -> str:
        """``failed``: the attempt, where more than a want of machines or money was against it."""
        self._sessions.apply(user, Event.REFUSED, cause)
        if failed is not None:
            self._start_failed(failed)
        return cause

    def _start_failed(self, pod: Pod) -> None:
        if (told := self._market.failed(pod.name, self._clock.monotonic())) is not None:
            self._tell(Alarm(AlarmKind.STARTS, "all", told))

    def _learn(self, before: Session, after: Session, _event: Event) -> None:
        """At the transition itself: until a failed pod has ended its place must not be taken for a good one."""
        if after.pod is None or before.state not in STARTING:
            return
        if after.state is State.ABANDONING:
            self._start_failed(after.pod)
        elif after.state is State.READY:
            self._market.served(after.pod.name)

    async def _reserve(self, user: UserId, candidate: Candidate) -> tuple[float | None, str | None]:
        """The price, and why the pod may not be bought at it. Between the sum and the reservation nothing awaits."""
        try:
            price_usd = await self._cloud.price_per_hour_usd(candidate)
        except CloudError as error:
            return None, f"no price: {error}"
        if price_usd is None:
            return None, "the cloud does not offer it at any price"
        most_usd = self._rules.max_usd_per_hour
        if dear := admission.too_dear(price_usd, place_usd=candidate.max_usd_per_hour, any_usd=most_usd):
            return price_usd, dear
        if (over_budget := await self._why_not(user, price_usd, self._reserved_usd)) is not None:
            return price_usd, over_budget
        others = self._sessions.counted(but=user)
        committed_usd = sum(
            self._reserved_usd.get(other.user, 0.0)
            if other.pod is None or other.pod.cost_per_hour_usd is None
            else other.pod.cost_per_hour_usd
            for other in others
        )
        why_not = admission.refusal(
            active_sessions=len(others),
            committed_usd=committed_usd,
            price_usd=price_usd,
            caps=self._rules.caps,
        )
        if why_not is None:
            self._reserved_usd[user] = price_usd
        return price_usd, why_not

    def _order(self, pod: Pod, candidate: Candidate) -> PodOrder:
        env = {
            **self._rules.pod_env,
            "AUTH_TOKEN": self._keys.agent_token(pod.name),
            "GATEWAY_POD_TOKEN": self._keys.pod_token(pod.name),
        }
        return PodOrder(pod.name, candidate, env)

    async def _look_up(self, user: UserId, pod: Pod, why: str) -> str | None:
        """Find out by name what a create call of unknown outcome has made. A list that fails counts for nothing."""
        logger.warning(
            "RunPod session %s: outcome of ordering %s unknown (%s); looking it up",
            user.key,
            pod.name,
            why,
        )
        looks = 0
        wait_s = 2.0
        while looks < LOOKS:
            await self._clock.sleep(wait_s)
            wait_s = min(wait_s * 2, self._rules.reconcile_s)
            try:
                listed = await self._cloud.list_pods()
            except CloudError as error:
                logger.warning("RunPod session %s: pods could not be listed: %s", user.key, error)
                continue
            looks += 1
            found = [candidate for candidate in listed if candidate.name == pod.name]
            if found:
                # Doubles are strays: the cloud watch ends every pod of ours that no session claims.
                oldest = doubles.kept(found)
                cost_usd = oldest.cost_per_hour_usd
                made = replace(
                    pod,
                    pod_id=oldest.id,
                    gpu_type=oldest.gpu_type,
                    cost_per_hour_usd=self._reserved_usd.get(user) if cost_usd is None else cost_usd,
                )
                self._sessions.apply(user, Event.CREATED, f"found by name after: {why}", pod=made)
                return None
        return self._refuse(user, f"{why}; no pod of that name has appeared", failed=pod)
