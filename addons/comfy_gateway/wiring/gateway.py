"""One gateway: everything that runs beside the hooks, opened in order and closed in the reverse."""

import logging
from contextlib import AsyncExitStack

from comfy_gateway.core.people.client_ids import ClientIds
from comfy_gateway.core.people.cookie import IdentityCookie
from comfy_gateway.hooks.edge import Edge
from comfy_gateway.hooks.tls import Certificate
from comfy_gateway.service.life.farewell import Farewell
from comfy_gateway.settings import Settings
from comfy_gateway.wiring.api import open_api
from comfy_gateway.wiring.badge import open_badge
from comfy_gateway.wiring.base import open_base
from comfy_gateway.wiring.from_settings import alarm_senders, order_of, rules_of
from comfy_gateway.wiring.homes import home_pages
from comfy_gateway.wiring.inputs import open_inputs
from comfy_gateway.wiring.interface import build_interface
from comfy_gateway.wiring.kept import build_kept, open_vault
from comfy_gateway.wiring.ledger import open_ledger
from comfy_gateway.wiring.operators_page import open_operators_page
from comfy_gateway.wiring.pages import open_site, pages_of
from comfy_gateway.wiring.pods import build_pods, run_pods, warn_of_pods
from comfy_gateway.wiring.prompts import build_prompts, run_prompts
from comfy_gateway.wiring.servers import open_servers, run_servers
from comfy_gateway.wiring.sign_in import way_in

logger = logging.getLogger(__name__)


class Gateway:
    """Raises SettingsError for an order that RunPod's adapter cannot place, and an address unknown to apprise."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rules = rules_of(settings)
        self._order = order_of(settings) if self._rules.is_provisioning else None
        self._alarm_senders = alarm_senders(settings) if self._rules.is_provisioning else []
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
        base = await open_base(settings, self._rules, self._open)
        servers = await open_servers(base)
        prompts = await open_ledger(base)
        vault = await open_vault(base, servers)
        pods = build_pods(base, servers, prompts, vault, order=self._order, alarm_senders=self._alarm_senders)
        kept = build_kept(base, servers, prompts, vault)
        inputs = await open_inputs(base, servers, prompts, kept, vault)
        flow = build_prompts(base, servers, prompts, kept, pods, inputs)
        entrance = await way_in(base, relay=flow.relay)
        if self.certificate is not None:
            base.tasks.start(self.certificate.follow(base.clock), name="certificate")
        api = open_api(base, servers, prompts, pods, flow)
        site = await open_site(
            base,
            [
                *await pages_of(base, servers, prompts, kept, vault, flow, pods.signals.nudge),
                *inputs.pages,
                *api.pages,
                open_operators_page(base, servers, prompts, api),
                *open_badge(base, servers, prompts, api, flow),
                *entrance.pages,
                *await home_pages(base, servers),
            ],
        )

        if self._rules.is_provisioning:
            await run_pods(base, servers, pods)
            self._farewell = pods.farewell
        else:
            await warn_of_pods(servers.store)
        base.tasks.start(
            kept.archive.resume(servers.places.owners()), name="history not read before the start"
        )
        run_servers(base, servers)
        run_prompts(base, servers, flow)
        return Edge(
            routes=servers.routes,
            ledger=prompts.ledger,
            bursts=pods.bursts,
            activity=prompts.activity,
            files=kept.files,
            submission=flow.submission,
            tasks=base.tasks,
            identity=settings.identity.rules,
            cookie=IdentityCookie(base.keys.cookie_key()),
            client_ids=ClientIds(),
            route_rules=settings.routes,
            allowed_hosts=settings.listen.allowed_hosts,
            is_public_https=settings.listen.is_public_https,
            site=site.address,
            site_key=site.key,
            visibility=settings.access.visibility,
            has_homes=settings.access.has_homes,
            operator_routes=settings.access.operator_routes,
            inputs=inputs.inputs,
            sign_in=entrance.sign_in,
            sessions=entrance.sessions,
            interface=await build_interface(base, servers),
            nudge=pods.signals.nudge,
            answered=base.meters.answered,
        )
