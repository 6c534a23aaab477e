"""The badge inside ComfyUI."""

from comfy_gateway.core.life.badge import Standing
from comfy_gateway.core.people.users import UserId
from comfy_gateway.site.app import Part
from comfy_gateway.site.badge import Badge
from comfy_gateway.wiring.api import ApiParts
from comfy_gateway.wiring.base import Base
from comfy_gateway.wiring.ledger import LedgerParts
from comfy_gateway.wiring.prompts import PromptParts
from comfy_gateway.wiring.servers import ServerParts


def open_badge(
    base: Base, servers: ServerParts, prompts: LedgerParts, api: ApiParts, flow: PromptParts
) -> list[Part]:
    """Its pages, with the news running; none where it is switched off."""
    if not base.settings.limits.ui_badge:
        return []

    def standing_of(user: UserId) -> Standing:
        own = api.own.of(user)
        return Standing(
            own.state,
            gpu=own.gpu,
            prompts_in_window=own.prompts_in_window,
            threshold=own.threshold,
            ahead=own.ahead,
            start_ends_in_s=None if own.eta is None else own.eta.p50,
            idle_ends_in_s=own.idle_ends_in_s,
            can=own.can,
        )

    badge = Badge(relay=flow.relay, standing_of=standing_of, clock=base.clock)
    servers.sessions.watch(badge.session_moved)
    prompts.ledger.watch(badge.prompt_changed)
    base.tasks.start(badge.run(), name="news for badges")
    return [badge]
