"""What parts are given of the settings, in the terms of those parts."""

from pathlib import Path

from comfy_gateway.adapters.apprise_sender import AppriseSender
from comfy_gateway.adapters.local_files import LocalFiles
from comfy_gateway.adapters.remote_files import RemoteFiles
from comfy_gateway.adapters.runpod import RunPodOrder, RunPodSdkCloud, RunPodV2Cloud
from comfy_gateway.adapters.runpod.pasted import checked_env
from comfy_gateway.adapters.runpod.v2_order import V2Order
from comfy_gateway.adapters.vault_disk import BlockingFiles
from comfy_gateway.core.life.idleness import IdleLimits
from comfy_gateway.core.money.admission import Caps
from comfy_gateway.core.money.budget import Budget
from comfy_gateway.core.money.market import MarketLimits
from comfy_gateway.core.requests import duty_servers
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.service.life.rules import Rules
from comfy_gateway.settings import Settings, SettingsError

AGENT_TIMEOUT_S = 10.0


def order_of(settings: Settings) -> RunPodOrder:
    """What every pod is ordered with. Raises SettingsError."""
    pod = settings.pod
    try:
        checked_env({name: value.get_secret_value() for name, value in pod.env.items()})
        order = RunPodOrder(
            image_name=pod.image_name,
            template_id=pod.template_id,
            gpu_count=pod.gpu_count,
            volume_gb=pod.volume_gb,
            container_disk_gb=pod.container_disk_gb,
            network_volume_id=pod.network_volume_id,
            ports=f"{pod.proxy_port}/http,{settings.telemetry.port}/http",
            extra=dict(pod.extra_payload),
        )
        if settings.runpod.api == "v2":
            V2Order(order)
    except ValueError as fault:
        raise SettingsError([f"The pods cannot be ordered like this: {fault}"]) from None
    return order


def cloud_of(settings: Settings, order: RunPodOrder) -> RunPodSdkCloud | RunPodV2Cloud:
    """The account, by the API that is set. Whoever asked closes it. Needs RUNPOD_API_KEY."""
    runpod = settings.runpod
    assert runpod.api_key is not None
    speaks: type[RunPodSdkCloud | RunPodV2Cloud] = RunPodV2Cloud if runpod.api == "v2" else RunPodSdkCloud
    return speaks(
        api_key=runpod.api_key.get_secret_value(),
        api_base=runpod.api_base,
        order_defaults=order,
        request_timeout_s=runpod.request_timeout_s,
    )


def alarm_senders(settings: Settings) -> list[AppriseSender]:
    """Who hears of alarms. Raises SettingsError, which does not show the address."""
    senders, faults = [], []
    for number, url in enumerate(settings.limits.alarm_urls, start=1):
        try:
            senders.append(AppriseSender(url.get_secret_value(), f"address {number} of GATEWAY_ALARM_URLS"))
        except ValueError as fault:
            faults.append(str(fault))
    if faults:
        raise SettingsError(faults)
    return senders


def vault_files(settings: Settings) -> BlockingFiles:
    """Where outputs of pods are kept. Blocks; raises ValueError that says what is wrong with the address."""
    url = settings.vault_url
    folder = url.removeprefix("file://")
    return RemoteFiles(url) if folder == url else LocalFiles(Path(folder))


def duty_backends(settings: Settings, *, plain_id: str | None = None) -> list[Backend]:
    """The shared servers, home first.

    ``plain_id``: the one whose files are shown without an alias, which may be none of them; None: home.
    """
    plain_id = plain_id or duty_servers.id_of(settings.home)
    return [
        Backend(
            server_id := duty_servers.id_of(upstream),
            Source.DUTY,
            upstream,
            alias="" if server_id == plain_id else duty_servers.alias_of(upstream),
        )
        for upstream in settings.duty
    ]


def rules_of(settings: Settings) -> Rules:
    """The settings as the life of a session counts them."""
    poll_s = settings.telemetry.poll_s
    return Rules(
        candidates=settings.pod.buying.usual if settings.can_provision else (),
        profiles=settings.pod.profiles,
        teams=settings.pod.teams,
        max_usd_per_hour=settings.pod.max_usd_per_hour,
        caps=Caps(settings.limits.max_active_sessions, settings.limits.budget_hourly_usd),
        budget=Budget(
            daily_usd=settings.limits.budget_daily_usd,
            user_daily_usd=settings.limits.budget_user_daily_usd,
            max_lifetime_s=settings.limits.max_lifetime_s,
            team_daily_usd=settings.limits.budget_team_daily_usd,
            teams=settings.pod.team_keys,
        ),
        hours=settings.limits.allowed_hours,
        min_lease_s=settings.limits.min_lease_s,
        market=MarketLimits(
            refusal_memory_s=settings.boot.refusal_memory_s,
            distrust_s=settings.boot.distrust_s,
            max_attempts=settings.boot.max_attempts,
            max_starting=settings.boot.max_starting,
            breaker_failures=settings.boot.breaker_failures,
            breaker_open_s=settings.boot.breaker_open_s,
        ),
        idle=IdleLimits(
            idle_s=settings.telemetry.idle_s,
            gpu_threshold_percent=settings.telemetry.gpu_threshold_percent,
            silence_timeout_s=settings.telemetry.blind_idle_s,
            # One late poll is no gap, a lost one is.
            max_gap_s=1.5 * poll_s + AGENT_TIMEOUT_S,
        ),
        threshold_count=settings.burst.threshold_count,
        threshold_window_s=settings.burst.window_s,
        burst_wait_s=settings.burst.wait_s,
        bursts_for_missing=settings.burst.for_missing,
        startup_timeout_s=settings.boot.timeout_s,
        startup_most_s=settings.boot.most_s,
        no_machine_s=settings.boot.no_machine_s,
        waits_for_models=settings.boot.waits_for_models,
        startup_poll_s=settings.boot.poll_s,
        min_agent=settings.pod.min_agent,
        allows_open_pods=settings.pod.allow_open,
        telemetry_poll_s=poll_s,
        agent_wait_s=settings.boot.agent_wait_s,
        drain_timeout_s=settings.boot.drain_timeout_s,
        vault_deadline_s=settings.vault.deadline_s,
        failure_backoff_s=settings.boot.backoff_s,
        reconcile_s=settings.runpod.reconcile_s,
        pod_env={name: value.get_secret_value() for name, value in settings.pod.env.items()},
    )
