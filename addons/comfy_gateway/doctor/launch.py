"""What `doctor --launch` does around its trial: prices first, then the question, then a pod that is always ended."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import aiohttp

from comfy_gateway.adapters.agent import HttpAgent
from comfy_gateway.adapters.clock import SystemClock
from comfy_gateway.adapters.master_secret import load_or_create
from comfy_gateway.adapters.prober import HttpProber
from comfy_gateway.core.errors import CloudError
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.money.admission import too_dear
from comfy_gateway.core.ports import Clock
from comfy_gateway.doctor.findings import Finding, fail, warn
from comfy_gateway.doctor.trial import Offer, Patience, Trial, most_usd
from comfy_gateway.settings import Settings
from comfy_gateway.wiring.from_settings import AGENT_TIMEOUT_S, cloud_of, order_of, rules_of

PATIENCE = Patience()

type Tell = Callable[[Finding], None]


async def offers_of(settings: Settings, tell: Tell) -> list[Offer]:
    """What would be bought, in the order of trying; empty, and told why, where there is nothing to buy."""
    if not settings.can_provision:
        tell(fail("trial", "RUNPOD_API_KEY is not set: there is no account to buy a pod on"))
        return []
    cloud = cloud_of(settings, order_of(settings))
    offers, reasons = [], []
    try:
        for candidate in rules_of(settings).candidates:
            try:
                usd_per_hour = await cloud.price_per_hour_usd(candidate)
            except CloudError as error:
                reasons.append(f"{candidate.gpu_type}: {error}")
                continue
            if usd_per_hour is None:
                reasons.append(f"{candidate.gpu_type}: no price")
            elif usd_per_hour > settings.limits.budget_hourly_usd:
                reasons.append(f"{candidate.gpu_type}: ${usd_per_hour:.2f} an hour is over BUDGET_HOURLY_USD")
            elif dear := too_dear(
                usd_per_hour, place_usd=candidate.max_usd_per_hour, any_usd=settings.pod.max_usd_per_hour
            ):
                reasons.append(f"{candidate.gpu_type}: {dear}")
            else:
                offers.append(Offer(candidate, usd_per_hour))
    finally:
        await cloud.aclose()
    if not offers:
        tell(fail("trial", f"there is nothing to buy: {'; '.join(reasons)}"))
    return offers


def question(offers: Sequence[Offer], settings: Settings, patience: Patience = PATIENCE) -> str:
    """What is about to happen and what it costs."""
    choices = ", else ".join(_said(offer) for offer in offers)
    most = most_usd(offers, settings, patience)
    return (
        f"One pod will be bought, looked at and ended: {choices}. "
        f"That usually takes minutes; it costs at most ${most:.2f}."
    )


def _said(offer: Offer) -> str:
    at = offer.candidate
    where = at.cloud_type if at.data_center is None else f"{at.cloud_type}, {at.data_center}"
    return f"{at.gpu_type} ({where}) at ${offer.usd_per_hour:.2f} an hour"


async def launch(
    settings: Settings,
    offers: Sequence[Offer],
    tell: Tell,
    patience: Patience = PATIENCE,
    clock: Clock | None = None,
) -> bool:
    """Buy, look and end. False when it was interrupted; the pod is ended all the same."""
    task = asyncio.current_task()
    assert task is not None
    is_ending, is_interrupted = False, False

    def interrupt() -> None:
        nonlocal is_interrupted
        if is_ending:
            tell(warn("interrupted", "the pod is being ended, and only then this ends"))
        elif not is_interrupted:
            is_interrupted = True
            tell(warn("interrupted", "ending the pod"))
            task.cancel()

    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as opened:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, interrupt)
            opened.callback(loop.remove_signal_handler, number)
        trial = await _trial(settings, opened, tell, patience, clock or SystemClock())
        try:
            await trial.tell_balance("before")
            await trial.run(offers)
            # A signal of this very moment is heard here, not in the middle of the end.
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if not is_interrupted:
                raise
            task.uncancel()
        finally:
            is_ending = True
            await trial.end()
        await trial.tell_balance("after")
    return not is_interrupted


async def _trial(
    settings: Settings, opened: AsyncExitStack, tell: Tell, patience: Patience, clock: Clock
) -> Trial:
    given = settings.secret
    keys = Keys(
        await asyncio.to_thread(load_or_create, settings.state_dir)
        if given is None
        else given.get_secret_value().encode()
    )
    http = await opened.enter_async_context(
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
    )
    cloud = cloud_of(settings, order_of(settings))
    opened.push_async_callback(cloud.aclose)
    return Trial(
        settings,
        cloud=cloud,
        keys=keys,
        prober=HttpProber(http, settings.health.path, settings.health.timeout_s),
        agent=HttpAgent(http, AGENT_TIMEOUT_S),
        http=http,
        clock=clock,
        tell=tell,
        patience=patience,
    )
