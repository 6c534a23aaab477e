"""The JSON API."""

from dataclasses import dataclass
from functools import partial

from comfy_gateway.core.life.own_pod import Policy
from comfy_gateway.service.life.boot_times import BootTimes
from comfy_gateway.service.life.event_log import EventLog
from comfy_gateway.service.life.operations import Operations
from comfy_gateway.service.life.own_session import OwnSession
from comfy_gateway.service.money.spend_meter import show_spend
from comfy_gateway.site.api import Document, OperatorPages, OwnPages, Stream
from comfy_gateway.site.app import Part
from comfy_gateway.wiring.base import Base
from comfy_gateway.wiring.ledger import LedgerParts
from comfy_gateway.wiring.pods import PodParts
from comfy_gateway.wiring.prompts import PromptParts
from comfy_gateway.wiring.servers import ServerParts


@dataclass(frozen=True)
class ApiParts:
    """What is told of sessions, and its pages."""

    own: OwnSession
    operations: Operations
    pages: list[Part]


def open_api(
    base: Base, servers: ServerParts, prompts: LedgerParts, pods: PodParts, flow: PromptParts
) -> ApiParts:
    """Past starts are read from the store meanwhile."""
    settings = base.settings
    boot_times = BootTimes(servers.store, base.clock)
    servers.sessions.watch(boot_times.session_moved)
    base.tasks.start(boot_times.load(), name="past starts")
    own = OwnSession(
        sessions=servers.sessions,
        bursts=pods.bursts,
        life=pods.life,
        signals=pods.signals,
        keeping=pods.keeping,
        boot_times=boot_times,
        ledger=prompts.ledger,
        routes=servers.routes,
        rules=base.rules,
        policy=Policy(
            may_promote=settings.own.may_promote,
            keep_times=settings.own.keep_times,
            max_lifetime_s=settings.limits.max_lifetime_s,
        ),
        order_of=flow.turns.order_of,
    )
    duty_ids = frozenset(backend.id for backend in servers.pool.backends)
    prompts.ledger.watch(partial(base.meters.prompt_changed, duty_ids=duty_ids))
    base.tasks.start(show_spend(servers.store, base.meters, base.clock), name="spend on the metrics page")
    log = EventLog(base.clock)
    servers.sessions.listen(log.happened)
    operations = Operations(
        sessions=servers.sessions,
        bursts=pods.bursts,
        life=pods.life,
        signals=pods.signals,
        keeping=pods.keeping,
        readings=pods.readings,
        log=log,
        ledger=prompts.ledger,
        rules=base.rules,
        pod_logs=pods.logs,
        clock=base.clock,
    )
    described: list[OwnPages | OperatorPages | Stream] = [
        OwnPages(own, settings.identity.rules),
        OperatorPages(
            operations=operations,
            own=own,
            log=log,
            ledger=prompts.ledger,
            pool=servers.pool,
            store=servers.store,
            clock=base.clock,
            identity_key=settings.identity.rules.query_key,
        ),
        Stream(operations=operations, pool=servers.pool, ledger=prompts.ledger, clock=base.clock),
    ]
    document = Document(operation for part in described for operation in part.operations())
    return ApiParts(own, operations, [*described, document])
