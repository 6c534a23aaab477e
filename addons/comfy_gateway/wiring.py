"""The only place that builds adapters and puts the parts together."""

import asyncio
import hashlib
import logging
import secrets
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import aiohttp

from comfy_gateway.adapters.agent import HttpAgent
from comfy_gateway.adapters.agent_inputs import HttpAgentInputs
from comfy_gateway.adapters.clock import SystemClock
from comfy_gateway.adapters.comfyui import HttpComfyServer
from comfy_gateway.adapters.comfyui_inputs import HttpInputServer
from comfy_gateway.adapters.input_store import DiskInputStore
from comfy_gateway.adapters.local_files import LocalFiles
from comfy_gateway.adapters.master_secret import load_or_create
from comfy_gateway.adapters.pod_files import HttpPodFiles
from comfy_gateway.adapters.prober import HttpProber
from comfy_gateway.adapters.remote_files import RemoteFiles
from comfy_gateway.adapters.runpod import RunPodOrder, RunPodSdkCloud
from comfy_gateway.adapters.runpod.pasted import checked_env
from comfy_gateway.adapters.sql import (
    Database,
    SqlLedgerStore,
    SqlSessionStore,
    SqlVaultRows,
    open_database,
)
from comfy_gateway.adapters.sql.upload_rows import SqlUploadRows
from comfy_gateway.adapters.vault_disk import BlockingFiles, ThreadedDisk
from comfy_gateway.adapters.witness import SocketWitness
from comfy_gateway.core.admission import Caps
from comfy_gateway.core.callers import TrustedProxies
from comfy_gateway.core.client_ids import ClientIds
from comfy_gateway.core.cookie import IdentityCookie
from comfy_gateway.core.errors import StorageUnavailable
from comfy_gateway.core.idleness import IdleLimits
from comfy_gateway.core.input_ports import AgentPlace
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.pod_address import PodAddresses
from comfy_gateway.core.podname import PodNames, new_attempt
from comfy_gateway.core.ports import Candidate, Clock, Cloud, SessionStore
from comfy_gateway.core.session import MAY_BILL
from comfy_gateway.core.upstream import Backend, Source, Upstream
from comfy_gateway.core.visibility import Visibility
from comfy_gateway.hooks.bounds import BoundsHook, ConnectionBounds
from comfy_gateway.hooks.deadlines import DeadlinesHook
from comfy_gateway.hooks.edge import Door, Edge
from comfy_gateway.hooks.error_pages import ErrorPages
from comfy_gateway.hooks.frames import FramesHook
from comfy_gateway.hooks.identity import IdentityHook
from comfy_gateway.hooks.inspect import InspectHook
from comfy_gateway.hooks.keep import kept_bytes
from comfy_gateway.hooks.lifecycle import LifecycleHook
from comfy_gateway.hooks.prompts import PromptsHook
from comfy_gateway.hooks.redact import RedactHook
from comfy_gateway.hooks.router import RouterHook
from comfy_gateway.hooks.tls import Certificate
from comfy_gateway.service.activity import Activity
from comfy_gateway.service.archive import Archive
from comfy_gateway.service.bursts import Bursts
from comfy_gateway.service.catalogues import Catalogues
from comfy_gateway.service.cloud_watch import CloudWatch
from comfy_gateway.service.doubts import Doubts
from comfy_gateway.service.duty_pool import DutyPool
from comfy_gateway.service.endings import Endings
from comfy_gateway.service.farewell import Farewell
from comfy_gateway.service.file_owners import FileOwners
from comfy_gateway.service.files import Files
from comfy_gateway.service.input_book import InputBook
from comfy_gateway.service.input_lists import InputLists
from comfy_gateway.service.input_retention import InputRetention
from comfy_gateway.service.input_transfers import InputTransfers
from comfy_gateway.service.input_uploads import InputUploads
from comfy_gateway.service.inputs import Inputs
from comfy_gateway.service.journal import Journal
from comfy_gateway.service.kept_entries import KeptEntries
from comfy_gateway.service.launch import Launch
from comfy_gateway.service.ledger import Ledger
from comfy_gateway.service.life import Life, backend_of
from comfy_gateway.service.meters import Meters
from comfy_gateway.service.no_cloud import NoCloud
from comfy_gateway.service.placement import Placement
from comfy_gateway.service.pod_places import PodPlaces, PromptServers
from comfy_gateway.service.rescue import Rescue
from comfy_gateway.service.routes import Routes
from comfy_gateway.service.rules import Rules
from comfy_gateway.service.sessions import Sessions
from comfy_gateway.service.settling import Settling
from comfy_gateway.service.signals import Signals
from comfy_gateway.service.submission import Submission
from comfy_gateway.service.tasks import Tasks
from comfy_gateway.service.told_files import ToldFiles
from comfy_gateway.service.turns import Turns
from comfy_gateway.service.user_servers import UserServers
from comfy_gateway.service.vault import Vault
from comfy_gateway.service.vault_retention import VaultRetention
from comfy_gateway.settings import Settings, SettingsError, load
from comfy_gateway.site.app import Part, build_app
from comfy_gateway.site.input_files import InputFiles
from comfy_gateway.site.jobs import Jobs
from comfy_gateway.site.pictures import Pictures
from comfy_gateway.site.queue import QueuePages
from comfy_gateway.site.relay import Relay
from comfy_gateway.site.results import Results
from comfy_gateway.site.server import SiteServer
from comfy_gateway.site.servers import Servers
from comfy_gateway.site.socket import Socket
from comfy_gateway.site.status import Status
from comfy_gateway.site.uploads import Uploads
from comfy_gateway.site.vault_view import VaultView
from comfy_gateway.wiring_sign_in import caller_rules, way_in

logger = logging.getLogger(__name__)

EXIT_SETTINGS = 2
AGENT_TIMEOUT_S = 10.0
OVERDUE_MARGIN_S = 60.0


def build_addons() -> list[object]:
    """The list that mitmproxy loads, in the order in which a flow meets it.

    Wrong settings end the process with exit code 2 and one line for each fault.
    """
    try:
        return addons_for(load())
    except SettingsError as error:
        sys.stderr.write("".join(f"{fault}\n" for fault in error.faults))
        sys.exit(EXIT_SETTINGS)


def addons_for(settings: Settings) -> list[object]:
    """The hooks of one gateway. Raises SettingsError for what only RunPod's adapter can judge."""
    gateway = Gateway(settings)
    door = Door()
    pages = ErrorPages()
    keep_bytes = partial(kept_bytes, settings.limits.keep_mb)
    return [
        LifecycleHook(
            door,
            pages,
            host=settings.listen.host,
            port=settings.listen.port,
            start=gateway.start,
            stop=gateway.stop,
            certificate=gateway.certificate,
        ),
        BoundsHook(_bounds_of(settings)),
        IdentityHook(door, caller_rules(settings)),
        PromptsHook(door),
        RouterHook(door, keep_bytes=keep_bytes),
        DeadlinesHook(
            door,
            pages,
            connect_timeout_s=settings.limits.connect_timeout_s,
            answer_timeout_s=settings.limits.upstream_timeout_s,
        ),
        FramesHook(keep_bytes=keep_bytes),
        RedactHook(door),
        InspectHook(),
    ]


class Gateway:
    """Everything that runs beside the hooks."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rules = rules_of(settings)
        self._order = order_of(settings) if self._rules.is_provisioning else None
        self._open = AsyncExitStack()
        self._farewell: Farewell | None = None
        listen = settings.listen
        self.certificate = (
            Certificate(listen.tls_cert, listen.tls_key, settings.state_dir / "secrets")
            if listen.tls_cert is not None and listen.tls_key is not None
            else None
        )
        """What browsers are shown where we speak HTTPS ourselves."""

    async def start(self) -> Edge:
        """Build and start all parts. What was opened is closed again when one of them fails.

        Raises GatewayError or OSError with a text for the operator.
        """
        try:
            return await self._build()
        except BaseException:
            await self._open.aclose()
            raise

    async def stop(self) -> None:
        """End all parts; pods live on unless the settings say otherwise."""
        if self._farewell is not None:
            await self._farewell.say()
        await self._open.aclose()

    async def _build(self) -> Edge:
        settings = self._settings
        for warning in settings.warnings:
            logger.warning("%s", warning)
        keys = Keys(await self._master_secret())
        clock = SystemClock()
        database = await self._opened_database()
        store = SqlSessionStore(database)
        http = await self._open.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit_per_host=16),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        )
        rules = self._rules
        tasks = Tasks("gateway")
        self._open.push_async_callback(tasks.aclose)
        cloud = self._cloud(tasks)

        prober = HttpProber(http, settings.health.path, settings.health.timeout_s)
        pool = DutyPool(duty_backends(settings), prober, clock)
        routes = Routes(pool.home, pool.choose, pool.backends)
        pool.on_move(routes.duty_changed)
        journal = Journal(SqlLedgerStore(database), clock)
        self._open.push_async_callback(journal.aclose)
        ledger = Ledger(clock, journal)
        await ledger.load()
        journal.start()
        activity = Activity(clock)
        ledger.watch(lambda record: activity.touch(record.backend_id))
        addresses = settings.pod_addresses
        sessions = Sessions(
            store=store,
            routes=routes,
            clock=clock,
            backend_of=lambda pod: backend_of(pod, addresses, keys),
        )
        comfy = HttpComfyServer(http, settings.health.timeout_s)
        catalogues = Catalogues(
            comfy=comfy,
            servers=lambda: (*pool.backends, *routes.privates().values()),
            clock=clock,
            tasks=tasks,
        )
        placement = Placement(routes=routes, catalogues=catalogues, clock=clock)
        sessions.watch(placement.session_moved)
        meters = Meters()
        meters.watch(sessions)
        names = PodNames(settings.runpod.pod_name_tag, keys)
        signals = Signals(clock, tasks)
        endings = Endings(cloud, names, clock)
        places = PodPlaces(sessions, addresses, keys)
        vault = await self._opened_vault(database, places, clock, tasks)
        sessions.watch(vault.session_moved)
        meters.watch_values("comfy_gateway_vault", "The vault's", vault.stats)
        life = Life(
            sessions=sessions,
            launch=Launch(
                sessions=sessions,
                cloud=cloud,
                names=names,
                new_attempt=lambda: new_attempt(clock.now()),
                keys=keys,
                rules=rules,
                clock=clock,
            ),
            endings=endings,
            signals=signals,
            prober=prober,
            agent=HttpAgent(http, AGENT_TIMEOUT_S),
            store=store,
            ledger=ledger,
            placement=placement,
            vault=vault,
            activity=activity,
            addresses=addresses,
            keys=keys,
            rules=rules,
            clock=clock,
            tasks=tasks,
        )
        bursts = Bursts(sessions=sessions, rules=rules, clock=clock, begin=life.begin)
        visibility = settings.access.visibility
        owners = FileOwners(ledger, clock) if visibility.hides_others else None
        files = Files(routes=routes, told=ToldFiles(clock), vault=vault, owners=owners)
        archive = Archive(
            entries=ledger,
            comfy=comfy,
            servers=PromptServers(routes, places),
            clock=clock,
            named=vault.note,
        )
        self._open.push_async_callback(archive.aclose)
        vault.wait_for(archive)
        ledger.watch(archive.prompt_changed)
        files.watch(archive.file_named)
        files.watch(vault.note)
        inputs, input_parts = await self._inputs(
            database=database,
            agent_of=partial(_agent_of, sessions, addresses, keys),
            activity=activity,
            catalogues=catalogues,
            placement=placement,
            files=files,
            vault=vault,
            ledger=ledger,
            routes=routes,
            clock=clock,
            visibility=visibility,
            tasks=tasks,
        )
        witness = SocketWitness(http, clock)
        limits = settings.limits
        turns = Turns(
            ledger=ledger,
            comfy=comfy,
            is_fair=limits.fair_turns,
            weights=limits.fair_weights,
            most_queued=limits.max_queued_per_user,
        )
        rescue = Rescue(
            turns=turns,
            ledger=ledger,
            routes=routes,
            comfy=comfy,
            witness=witness,
            placement=placement,
            inputs=inputs,
            keys=keys,
            clock=clock,
            tasks=tasks,
        )
        sessions.watch(rescue.session_moved)
        settling = Settling(
            ledger=ledger,
            routes=routes,
            comfy=comfy,
            rescue=rescue,
            may_return=sessions.has_living_pod,
            clock=clock,
            interval_s=settle_interval_s(rules),
            give_up_s=rules.idle.silence_timeout_s,
        )
        relay = Relay(
            routes=routes,
            ledger=ledger,
            keys=keys,
            clock=clock,
            files=files,
            rescuer=rescue,
            visibility=visibility,
        )
        self._open.push_async_callback(relay.aclose)
        meters.watch_values("comfy_gateway_relay", "The relay's", relay.stats)
        submission = Submission(
            turns=turns,
            ledger=ledger,
            routes=routes,
            placement=placement,
            inputs=inputs,
            relay=relay,
            comfy=comfy,
            meters=meters,
            bursts=bursts,
            keys=keys,
            clock=clock,
            nudge=signals.nudge,
        )
        doubts = Doubts(
            ledger=ledger,
            routes=routes,
            comfy=comfy,
            clock=clock,
            overdue_s=settings.limits.upstream_timeout_s + OVERDUE_MARGIN_S,
        )
        own, servers = UserServers(routes, ledger), Servers(http)
        kept = KeptEntries(ledger, vault)
        results = Results(
            ledger=ledger, own=own, servers=servers, files=files, kept=kept, visibility=visibility
        )
        queue = QueuePages(ledger=ledger, own=own, servers=servers, comfy=comfy, visibility=visibility)
        jobs = Jobs(
            ledger=ledger,
            own=own,
            servers=servers,
            queue=queue,
            results=results,
            kept=kept,
            visibility=visibility,
        )
        entrance = await way_in(
            settings,
            keys=keys,
            clock=clock,
            tasks=tasks,
            database=database,
            relay=relay,
            close_with_us=self._open.callback,
        )
        if self.certificate is not None:
            tasks.start(self.certificate.follow(clock), name="certificate")
        site_key = secrets.token_urlsafe(32)
        site = SiteServer(
            build_app(
                key=site_key,
                parts=[
                    Socket(relay, files),
                    results,
                    queue,
                    jobs,
                    *input_parts,
                    VaultView(vault, Pictures()),
                    Status(pool=pool, registry=meters.registry),
                    *entrance.parts,
                ],
            )
        )
        site_address = await site.start()
        self._open.push_async_callback(site.aclose)

        if not rules.is_provisioning:
            await _warn_of_pods(store)
        else:
            for session in await sessions.load():
                life.begin(session.user)
            tasks.start(archive.resume(places.owners()), name="history of living pods")
            watch = CloudWatch(
                cloud=cloud,
                sessions=sessions,
                signals=signals,
                names=names,
                endings=endings,
                store=store,
                clock=clock,
                tasks=tasks,
                interval_s=rules.reconcile_s,
                stray_grace_s=rules.idle.idle_s,
            )
            tasks.start(watch.run(), name="cloud watch")
            self._farewell = Farewell(sessions, endings, vault, is_ending=settings.runpod.terminate_on_exit)
        tasks.start(pool.run(), name="duty pool")
        tasks.start(catalogues.run(), name="catalogues")
        tasks.start(settling.run(), name="settling")
        tasks.start(doubts.run(), name="doubts")
        tasks.start(witness.run(pool.backends), name="witness")
        return Edge(
            routes=routes,
            ledger=ledger,
            bursts=bursts,
            activity=activity,
            files=files,
            submission=submission,
            tasks=tasks,
            identity=settings.identity.rules,
            cookie=IdentityCookie(keys.cookie_key()),
            client_ids=ClientIds(),
            route_rules=settings.routes,
            allowed_hosts=settings.listen.allowed_hosts,
            is_public_https=settings.listen.is_public_https,
            site=site_address,
            site_key=site_key,
            visibility=visibility,
            operator_routes=settings.access.operator_routes,
            inputs=inputs,
            sign_in=entrance.sign_in,
            sessions=entrance.sessions,
        )

    async def _inputs(
        self,
        *,
        database: Database,
        agent_of: Callable[[Backend], AgentPlace | None],
        activity: Activity,
        catalogues: Catalogues,
        placement: Placement,
        files: Files,
        vault: Vault,
        ledger: Ledger,
        routes: Routes,
        clock: Clock,
        visibility: Visibility,
        tasks: Tasks,
    ) -> tuple[Inputs, Sequence[Part]]:
        """What carries input files, and its pages."""
        limits = self._settings.limits
        store = DiskInputStore(self._settings.state_dir / "inputs")
        await store.open()
        book = InputBook(SqlUploadRows(database), clock)
        await book.load()
        self._open.push_async_callback(book.aclose)
        # Of their own: files on their way must not take the connections of probes and questions.
        http = await self._open.enter_async_context(
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        )
        server = HttpInputServer(http)
        transfers = InputTransfers(
            book=book,
            store=store,
            server=server,
            agents=HttpAgentInputs(http),
            agent_of=agent_of,
            activity=activity,
            tasks=tasks,
        )
        inputs = Inputs(
            book=book,
            store=store,
            server=server,
            transfers=transfers,
            catalogues=catalogues,
            files=files,
            vault=vault,
            prompts=ledger,
            routes=routes,
            clock=clock,
            visibility=visibility,
        )
        uploads = InputUploads(
            inputs=inputs, book=book, store=store, server=server, transfers=transfers, routes=routes
        )
        lists = InputLists(inputs=inputs, book=book, store=store, server=server, routes=routes)
        retention = InputRetention(
            inputs=inputs,
            book=book,
            store=store,
            routes=routes,
            clock=clock,
            most_bytes=limits.inputs_max_gb * 1024**3,
            most_age_s=limits.inputs_max_days * 86400.0,
        )
        tasks.start(book.run(), name="uploads")
        tasks.start(retention.run(), name="kept input files")
        patient = Servers(http, silence_s=limits.upstream_timeout_s, whole_s=limits.upstream_timeout_s)
        return inputs, [
            Uploads(uploads=uploads, store=store, most_bytes=limits.max_upload_mb * 1024**2),
            InputFiles(
                inputs=inputs,
                lists=lists,
                store=store,
                routes=routes,
                servers=patient,
                richer=placement.richer,
            ),
        ]

    async def _opened_vault(self, database: Database, places: PodPlaces, clock: Clock, tasks: Tasks) -> Vault:
        """The kept files. Raises StorageUnavailable for an address that cannot be used at all."""
        limits = self._settings.vault
        try:
            disk = ThreadedDisk(await asyncio.to_thread(vault_files, self._settings))
        except ValueError as fault:
            raise StorageUnavailable(f"VAULT_URL {fault}") from None
        rows = SqlVaultRows(database)
        # Of their own: files on their way must not take the connections of probes and questions.
        http = await self._open.enter_async_context(
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        )
        max_bytes = int(limits.max_gb * 1e9) or None
        vault = Vault(
            pods=places,
            files=HttpPodFiles(http),
            disk=disk,
            rows=rows,
            clock=clock,
            hold_s=limits.deadline_s,
            max_file_bytes=max_bytes,
        )
        self._open.push_async_callback(vault.aclose)
        await vault.start()
        retention = VaultRetention(
            disk=disk,
            rows=rows,
            clock=clock,
            stats=vault.stats,
            max_bytes=max_bytes,
            max_age_s=limits.max_days * 86400 or None,
        )
        tasks.start(retention.run(), name="retention of kept files")
        return vault

    async def _master_secret(self) -> bytes:
        if self._settings.secret is not None:
            return self._settings.secret.get_secret_value().encode()
        return await asyncio.to_thread(load_or_create, self._settings.state_dir)

    async def _opened_database(self) -> Database:
        database = await open_database(self._settings.database_url.get_secret_value())
        self._open.push_async_callback(database.aclose)
        return database

    def _cloud(self, tasks: Tasks) -> Cloud:
        runpod = self._settings.runpod
        if self._order is None or runpod.api_key is None:
            return NoCloud()
        cloud = RunPodSdkCloud(
            api_key=runpod.api_key.get_secret_value(),
            api_base=runpod.api_base,
            order_defaults=self._order,
            request_timeout_s=runpod.request_timeout_s,
        )
        self._open.push_async_callback(cloud.aclose)
        tasks.start(cloud.load_sdk(), name="import of the SDK")
        return cloud


def _bounds_of(settings: Settings) -> ConnectionBounds:
    """Proxies on this machine, or that are trusted, carry many people."""
    trusted = (*settings.access.trusted_proxies, "127.0.0.0/8", "::1")
    return ConnectionBounds(exempt=TrustedProxies(trusted))


def _agent_of(sessions: Sessions, addresses: PodAddresses, keys: Keys, backend: Backend) -> AgentPlace | None:
    """The agent in the pod that is this backend."""
    for session in sessions:
        pod = session.pod
        if pod is not None and pod.name == backend.id and pod.pod_id is not None:
            return AgentPlace(addresses.agent_url(pod.pod_id), keys.agent_token(pod.name))
    return None


async def _warn_of_pods(store: SessionStore) -> None:
    """Without credentials nothing can be ended, but nobody should learn that from the bill."""
    for session in await store.load_sessions():
        if session.pod is not None and session.state in MAY_BILL:
            logger.warning(
                "RunPod session %s: pod %s was bought and may still cost money, but RUNPOD_API_KEY is not set",
                session.user.key,
                session.pod.name,
            )


def order_of(settings: Settings) -> RunPodOrder:
    """What every pod is ordered with. Raises SettingsError."""
    pod = settings.pod
    try:
        checked_env({name: value.get_secret_value() for name, value in pod.env.items()})
        return RunPodOrder(
            image_name=pod.image_name,
            template_id=pod.template_id,
            gpu_count=pod.gpu_count,
            volume_gb=pod.volume_gb,
            container_disk_gb=pod.container_disk_gb,
            network_volume_id=pod.network_volume_id,
            ports=f"{pod.proxy_port}/http,{settings.telemetry.port}/http",
            extra=dict(pod.extra_payload),
        )
    except ValueError as fault:
        raise SettingsError([f"The pods cannot be ordered like this: {fault}"]) from None


def vault_files(settings: Settings) -> BlockingFiles:
    """Where outputs of pods are kept. Blocks; raises ValueError that says what is wrong with the address."""
    url = settings.vault_url
    folder = url.removeprefix("file://")
    return RemoteFiles(url) if folder == url else LocalFiles(Path(folder))


def duty_backends(settings: Settings) -> list[Backend]:
    """The shared servers, home first. The alias of another follows from its address, not from its place."""
    return [
        Backend(f"duty-{position}", Source.DUTY, upstream, alias=_alias_of(upstream) if position else "")
        for position, upstream in enumerate(settings.duty)
    ]


def _alias_of(upstream: Upstream) -> str:
    return "server-" + hashlib.sha256(upstream.url("/").encode()).hexdigest()[:8]


def settle_interval_s(rules: Rules) -> float:
    """How often prompts are asked about whose ending no socket told: soon enough to matter to an idle window."""
    return max(0.5, min(15.0, rules.idle.idle_s / 10))


def rules_of(settings: Settings) -> Rules:
    """The settings as the life of a session counts them."""
    regions: tuple[str | None, ...] = settings.pod.regions or (None,)
    candidates = tuple(
        Candidate(gpu_type, settings.pod.cloud_type, region)
        for gpu_type in settings.pod.gpu_type_ids
        for region in regions
    )
    poll_s = settings.telemetry.poll_s
    return Rules(
        candidates=candidates if settings.can_provision else (),
        caps=Caps(settings.limits.max_active_sessions, settings.limits.budget_hourly_usd),
        idle=IdleLimits(
            idle_s=settings.telemetry.idle_s,
            gpu_threshold_percent=settings.telemetry.gpu_threshold_percent,
            silence_timeout_s=settings.telemetry.blind_idle_s,
            # One late poll is no gap, a lost one is.
            max_gap_s=1.5 * poll_s + AGENT_TIMEOUT_S,
        ),
        threshold_count=settings.burst.threshold_count,
        threshold_window_s=settings.burst.window_s,
        startup_timeout_s=settings.boot.timeout_s,
        startup_most_s=settings.boot.most_s,
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
