"""Settings, state, the shared servers and RunPod, looked at through the gateway's own adapters."""

import asyncio
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from comfy_gateway.adapters.agent import HttpAgent
from comfy_gateway.adapters.bounded_get import NoUsableAnswer, bounded_get
from comfy_gateway.adapters.master_secret import load_or_create
from comfy_gateway.adapters.prober import HttpProber
from comfy_gateway.adapters.sql import open_store
from comfy_gateway.core.errors import AgentUnavailable, CloudError, GatewayError, StoreError
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.life.session import Session, State
from comfy_gateway.core.life.telemetry import Sample
from comfy_gateway.core.pods.podname import PodNames
from comfy_gateway.core.ports import Candidate, Cloud, CloudPod
from comfy_gateway.core.requests.upstream import Upstream
from comfy_gateway.doctor.findings import Finding, fail, ok, skip, warn
from comfy_gateway.doctor.sign_in import look_at_sign_in
from comfy_gateway.settings import Settings, SettingsError, load
from comfy_gateway.wiring.from_settings import AGENT_TIMEOUT_S, cloud_of, duty_backends, order_of

ASK_TIMEOUT_S: Final = 5.0
MAX_STATS_BYTES: Final = 1024 * 1024
MADE_UP_POD_ID: Final = "abc123def456gh"
SPEAKING: Final = frozenset({State.READY, State.DRAINING, State.CHECKING})
"""States in which the agent of a pod is expected to answer."""


async def examine(
    environ: Mapping[str, str] | None = None, *, root: Path | None = None
) -> AsyncIterator[Finding]:
    """Findings one by one; ``environ`` and ``root`` as for ``settings.load``."""
    try:
        settings = load(environ, root=root)
        if settings.can_provision:
            order_of(settings)
    except SettingsError as error:
        for fault in error.faults:
            yield fail("settings", fault)
        yield skip("everything else", "the settings come first")
        return
    yield ok("settings")
    for warning in settings.warnings:
        yield warn("settings", warning)
    async with AsyncExitStack() as opened:
        examination = _Examination(settings, opened)
        for part in (
            examination.state_folder,
            examination.database,
            examination.port,
            partial(look_at_sign_in, settings),
            examination.duty,
            examination.templates,
            examination.runpod,
            examination.agents,
        ):
            async for finding in part():
                yield finding


class _Examination:
    """One look at everything. What an early part could not find, a later one is skipped for."""

    def __init__(self, settings: Settings, opened: AsyncExitStack) -> None:
        self._settings = settings
        self._opened = opened
        self._keys: Keys | None = None
        self._sessions: Sequence[Session] | None = None
        self._pods: Sequence[CloudPod] | None = None
        self._http_session: aiohttp.ClientSession | None = None

    async def state_folder(self) -> AsyncIterator[Finding]:
        """Made as a start makes it, with its secret; written to."""
        folder = self._settings.state_dir
        subject = f"state folder {folder}"
        try:
            mode = await asyncio.to_thread(_try_folder, folder)
            given = self._settings.secret
            self._keys = Keys(
                await asyncio.to_thread(load_or_create, folder)
                if given is None
                else given.get_secret_value().encode()
            )
        except (GatewayError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            yield fail(subject, f"cannot be used: {reason}")
            return
        if mode & 0o077:
            yield warn(subject, f"others may look into it (mode {mode:04o}): chmod 700 it")
        else:
            yield ok(subject, f"can be written, mode {mode:04o}")

    async def database(self) -> AsyncIterator[Finding]:
        """Opened and migrated as a start does it."""
        url = self._settings.database_url.get_secret_value()
        subject = f"database ({url.partition(':')[0].partition('+')[0]})"
        try:
            store = await open_store(url)
            self._opened.push_async_callback(store.aclose)
            self._sessions = await store.load_sessions()
        except (StoreError, ValueError) as error:
            yield fail(subject, str(error))
        else:
            yield ok(
                subject,
                f"open, its tables are up to date; {_many(len(self._sessions), 'session')} not on duty",
            )

    async def port(self) -> AsyncIterator[Finding]:
        """Whether the gateway could listen."""
        host, port = self._settings.listen.host, self._settings.listen.port
        subject = f"port {port} on {host}"
        try:
            await asyncio.to_thread(_try_port, host, port)
        except OSError as error:
            if await self._is_gateway_at(host, port):
                yield warn(subject, "in use by a gateway that runs already")
            else:
                yield fail(subject, f"cannot be listened on: {error.strerror or type(error).__name__} (PORT)")
        else:
            yield ok(subject, "free" if port else "any free one is taken")

    async def duty(self) -> AsyncIterator[Finding]:
        """Each shared server: how fast it answers, and its versions."""
        health = self._settings.health
        prober = HttpProber(await self._http(), health.path, health.timeout_s)
        for backend in duty_backends(self._settings):
            upstream = backend.upstream
            subject = f"duty {upstream.url('')}"
            answer = await prober.probe(upstream)
            if not answer.is_healthy:
                yield fail(subject, f"{answer.reason} ({health.path})")
                continue
            queue = answer.queue_remaining
            told = [
                f"{answer.seconds * 1000:.0f} ms",
                *(await self._versions(upstream)),
                *([] if queue is None else [f"{_many(queue, 'prompt')} in its queue"]),
            ]
            yield ok(subject, ", ".join(told))

    async def templates(self) -> AsyncIterator[Finding]:
        """Where a pod with a made-up id would be looked for."""
        addresses = self._settings.pod_addresses
        comfy = addresses.upstream(MADE_UP_POD_ID).url("")
        agent = addresses.agent_url(MADE_UP_POD_ID)
        if agent in {comfy, f"{comfy}{addresses.telemetry_path}"}:
            yield warn(
                "pod addresses", f"ComfyUI and agent of a pod are both at {comfy}: is {{port}} missing?"
            )
        else:
            yield ok("pod addresses", f"{comfy} and {agent}")

    async def runpod(self) -> AsyncIterator[Finding]:
        """Key, pods, what is rented and at which price."""
        pod = self._settings.pod
        if self._settings.runpod.api_key is None:
            yield skip(
                "RunPod", "RUNPOD_API_KEY is not set: no private pods, the duty servers answer everybody"
            )
            return
        cloud = cloud_of(self._settings, order_of(self._settings))
        self._opened.push_async_callback(cloud.aclose)
        try:
            self._pods = await cloud.list_pods()
        except CloudError as error:
            yield fail("RunPod API key", str(error))
        else:
            for finding in self._judge_pods(self._pods):
                yield finding
        image = [
            *([f"template {pod.template_id}"] if pod.template_id else []),
            *([f"image {pod.image_name}"] if pod.image_name else []),
        ]
        yield ok("pods are made from", ", ".join(image) or "RUNPOD_EXTRA_PAYLOAD")
        for gpu_type in pod.buying.gpu_types:
            if self._pods is None:
                yield skip(f"GPU {gpu_type}", "RunPod's price list needs the key")
            else:
                yield await self._judge_gpu(cloud, gpu_type)

    async def agents(self) -> AsyncIterator[Finding]:
        """Whether the telemetry of our living pods can be read, with their own tokens. Renews their lease."""
        if self._settings.runpod.api_key is None:
            return
        if self._keys is None or self._sessions is None or self._pods is None:
            yield skip("agents", "which pods live is not known")
            return
        listed = {pod.id for pod in self._pods if pod.is_running}
        living = [
            session.pod
            for session in self._sessions
            if session.state in SPEAKING and session.pod is not None and session.pod.pod_id in listed
        ]
        if not living:
            yield skip("agents", "no pod of ours lives")
        agent = HttpAgent(await self._http(), AGENT_TIMEOUT_S)
        for pod in living:
            assert pod.pod_id is not None
            subject = f"agent of pod {pod.name}"
            try:
                url = self._settings.pod_addresses.agent_url(pod.pod_id)
                sample = await agent.sample(url, token=self._keys.agent_token(pod.name))
            except AgentUnavailable as error:
                yield fail(subject, str(error))
            else:
                yield ok(subject, _told(sample))

    def _judge_pods(self, pods: Sequence[CloudPod]) -> list[Finding]:
        tag = self._settings.runpod.pod_name_tag
        # The keys are for making names; telling ours by their shape needs none.
        names = PodNames(tag, self._keys or Keys(bytes(32)))
        ours = [pod for pod in pods if names.is_ours(pod.name)]
        findings = [
            ok("RunPod API key", f"accepted; {_many(len(pods), 'pod')}, {len(ours)} of them ours ({tag}-…)")
        ]
        if self._sessions is None:
            return findings
        known = {session.pod.name for session in self._sessions if session.pod is not None}
        return findings + [
            warn(f"pod {pod.name}", "carries our tag and belongs to no session: the gateway will end it")
            for pod in ours
            if pod.name not in known
        ]

    async def _judge_gpu(self, cloud: Cloud, gpu_type: str) -> Finding:
        subject, cloud_type = f"GPU {gpu_type}", self._settings.pod.cloud_type
        try:
            price_usd = await cloud.price_per_hour_usd(Candidate(gpu_type, cloud_type))
        except CloudError as error:
            return fail(subject, str(error))
        if price_usd is None:
            return fail(subject, f"RunPod knows no such GPU type or has no price for it in {cloud_type}")
        budget_usd = self._settings.limits.budget_hourly_usd
        if price_usd > budget_usd:
            return warn(subject, f"${price_usd:.2f} an hour is more than BUDGET_HOURLY_USD={budget_usd:g}")
        return ok(subject, f"${price_usd:.2f} an hour in {cloud_type}")

    async def _versions(self, upstream: Upstream) -> list[str]:
        """What the server tells of itself; nothing where it tells nothing."""
        try:
            body = await bounded_get(
                await self._http(),
                upstream.url("/system_stats"),
                headers={},
                timeout_s=ASK_TIMEOUT_S,
                max_body_bytes=MAX_STATS_BYTES,
            )
            stats: Any = orjson.loads(body)
        except (NoUsableAnswer, orjson.JSONDecodeError):
            return []
        system = stats.get("system") if isinstance(stats, dict) else None
        if not isinstance(system, dict):
            return []
        named = (("ComfyUI", "comfyui_version"), ("front end", "required_frontend_version"))
        return [f"{name} {value}" for name, key in named if isinstance(value := system.get(key), str)]

    async def _is_gateway_at(self, host: str, port: int) -> bool:
        reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not listened on
        prober = HttpProber(await self._http(), "/gateway/healthz", ASK_TIMEOUT_S)
        return (await prober.probe(Upstream("http", reached, port))).is_healthy

    async def _http(self) -> aiohttp.ClientSession:
        if self._http_session is None:
            self._http_session = await self._opened.enter_async_context(
                aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
            )
        return self._http_session


def _try_folder(folder: Path) -> int:
    """Make the folder if it is missing and write into it; returns its mode. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"written by the doctor")
    return stat.S_IMODE(folder.stat().st_mode)


def _try_port(host: str, port: int) -> None:
    """Raises OSError where nobody could listen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socket.create_server((host, port), family=family).close()


def _told(sample: Sample) -> str:
    percent, is_empty = sample.utilization_percent, sample.is_queue_empty
    gpu = "GPU utilisation unknown" if percent is None else f"GPU at {percent:.0f} %"
    queue = (
        "ComfyUI's queue unknown"
        if is_empty is None
        else "queue empty"
        if is_empty
        else "prompts in its queue"
    )
    return f"{gpu}, {queue}"


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
