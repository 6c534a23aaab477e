"""The operator's page."""

from comfy_gateway.site.app import Part
from comfy_gateway.site.operators_page import OperatorsPage
from comfy_gateway.wiring.api import ApiParts
from comfy_gateway.wiring.base import Base
from comfy_gateway.wiring.ledger import LedgerParts
from comfy_gateway.wiring.servers import ServerParts


def open_operators_page(base: Base, servers: ServerParts, prompts: LedgerParts, api: ApiParts) -> Part:
    """Needs nothing but what the API has."""
    return OperatorsPage(
        operations=api.operations, pool=servers.pool, ledger=prompts.ledger, clock=base.clock
    )
