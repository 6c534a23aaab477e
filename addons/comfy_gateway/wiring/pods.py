"""Buying, living and ending of private pods."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from comfy_gateway.adapters.agent import HttpAgent
from comfy_gateway.adapters.apprise_sender import AppriseSender
from comfy_gateway.adapters.log_folder import LogFolder
from comfy_gateway.adapters.runpod import RunPodOrder, RunPodSdkCloud
from comfy_gateway.core.life.session import MAY_BILL
from comfy_gateway.core.money.market import Market
from comfy_gateway.core.pods.podname import PodNames, new_attempt
from comfy_gateway.core.ports import Cloud, SessionStore
from comfy_gateway.service.cloud.cloud_watch import CloudWatch
from comfy_gateway.service.cloud.counted_cloud import CountedCloud
from comfy_gateway.service.cloud.no_cloud import NoCloud
from comfy_gateway.service.cloud.strays import Strays
from comfy_gateway.service.life.bursts import Bursts
from comfy_gateway.service.life.endings import Endings
from comfy_gateway.service.life.farewell import Farewell
from comfy_gateway.service.life.keeping import Keeping
from comfy_gateway.service.life.launch import Launch
from comfy_gateway.service.life.life import Life
from comfy_gateway.service.life.pod_logs import PodLogs
from comfy_gateway.service.life.readings import Readings
from comfy_gateway.service.life.signals import Signals
from comfy_gateway.service.life.wishes import Wishes
from comfy_gateway.service.money.alarms import Alarms
from comfy_gateway.service.money.spending import Spending
from comfy_gateway.service.vault.vault import Vault
from comfy_gateway.wiring.base import Base
from comfy_gateway.wiring.from_settings import AGENT_TIMEOUT_S, cloud_of
from comfy_gateway.wiring.ledger import LedgerParts
from comfy_gateway.wiring.servers import ServerParts

logger = logging.getLogger(__name__)

LOG_TIMEOUT_S: Final = 4.0
"""For a pod's log: its end waits for it."""


@dataclass(frozen=True)
class PodParts:
    """One life for each session, and the list of pods that all of them read."""

    life: Life
    bursts: Bursts
    signals: Signals
    watch: CloudWatch
    spending: Spending
    farewell: Farewell
    alarms: Alarms
    keeping: Keeping
    readings: Readings
    logs: PodLogs


def build_pods(
    base: Base,
    servers: ServerParts,
    prompts: LedgerParts,
    vault: Vault,
    *,
    order: RunPodOrder | None,
    alarm_senders: Sequence[AppriseSender],
) -> PodParts:
    """Nothing runs yet. Without an order nothing is ever bought."""
    settings, rules, clock, tasks = base.settings, base.rules, base.clock, base.tasks
    cloud = _cloud(base, order)
    sessions = servers.sessions
    names = PodNames(settings.runpod.pod_name_tag, base.keys)
    signals = Signals(clock, tasks)
    vault.on_failure(signals.nudge)
    alarms = Alarms(senders=alarm_senders, count=base.meters.alarm, clock=clock)
    for sender in alarm_senders:
        base.stack.callback(sender.close)
    endings = Endings(cloud, names, clock, alarms.tell)
    spending = Spending(
        budget=rules.budget,
        store=servers.store,
        sessions=sessions,
        signals=signals,
        clock=clock,
        reserve_s=rules.reserve_s,
        hours=rules.hours,
        tell=alarms.tell,
    )
    strays = Strays(
        sessions=sessions,
        names=names,
        endings=endings,
        store=servers.store,
        clock=clock,
        tasks=tasks,
        grace_s=rules.idle.idle_s,
    )
    watch = CloudWatch(
        cloud=cloud,
        sessions=sessions,
        signals=signals,
        strays=strays,
        clock=clock,
        interval_s=rules.reconcile_s,
        tell=alarms.tell,
    )
    market, wishes = Market(rules.market), Wishes(rules.buying)
    keeping = Keeping(clock)
    readings = Readings(clock)
    agent = HttpAgent(base.http, AGENT_TIMEOUT_S)
    logs = PodLogs(
        agent=HttpAgent(base.http, LOG_TIMEOUT_S),
        shelf=LogFolder(settings.state_dir / "pod-logs"),
        addresses=settings.pod_addresses,
        keys=base.keys,
    )
    life = Life(
        sessions=sessions,
        launch=Launch(
            sessions=sessions,
            cloud=cloud,
            names=names,
            new_attempt=lambda: new_attempt(clock.now()),
            keys=base.keys,
            rules=rules,
            market=market,
            clock=clock,
            why_not=spending.why_not,
            wish_of=wishes.of,
            tell=alarms.tell,
        ),
        endings=endings,
        signals=signals,
        prober=servers.prober,
        agent=agent,
        store=servers.store,
        ledger=prompts.ledger,
        placement=servers.placement,
        vault=vault,
        activity=prompts.activity,
        keeping=keeping,
        readings=readings,
        logs=logs,
        addresses=settings.pod_addresses,
        keys=base.keys,
        rules=rules,
        clock=clock,
        tasks=tasks,
        cloud_view=watch.view,
        tell=alarms.tell,
    )
    return PodParts(
        life=life,
        bursts=Bursts(
            sessions=sessions, rules=rules, market=market, clock=clock, begin=life.begin, wishes=wishes
        ),
        signals=signals,
        watch=watch,
        alarms=alarms,
        spending=spending,
        farewell=Farewell(sessions, endings, vault, is_ending=settings.runpod.terminate_on_exit),
        keeping=keeping,
        readings=readings,
        logs=logs,
    )


async def run_pods(base: Base, servers: ServerParts, pods: PodParts) -> None:
    """Go on with the sessions that an earlier gateway has left, and watch the account."""
    for session in await servers.sessions.load():
        pods.life.begin(session.user)
    base.tasks.start(pods.alarms.run(), name="alarms")
    base.tasks.start(pods.watch.run(), name="cloud watch")
    base.tasks.start(pods.spending.run(), name="budgets")


async def warn_of_pods(store: SessionStore) -> None:
    """Without credentials nothing can be ended, but nobody should learn that from the bill."""
    for session in await store.load_sessions():
        if session.pod is not None and session.state in MAY_BILL:
            logger.warning(
                "RunPod session %s: pod %s was bought and may still cost money, but RUNPOD_API_KEY is not set",
                session.user.key,
                session.pod.name,
            )


def _cloud(base: Base, order: RunPodOrder | None) -> Cloud:
    if order is None or base.settings.runpod.api_key is None:
        return NoCloud()
    cloud = cloud_of(base.settings, order)
    base.stack.push_async_callback(cloud.aclose)
    if isinstance(cloud, RunPodSdkCloud):
        base.tasks.start(cloud.load_sdk(), name="import of the SDK")
    return CountedCloud(cloud, base.meters)
