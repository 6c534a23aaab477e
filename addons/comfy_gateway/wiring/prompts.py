"""The way of a prompt: submitted, told of, settled, rescued."""

from dataclasses import dataclass

from comfy_gateway.adapters.witness import SocketWitness
from comfy_gateway.service.life.rules import Rules
from comfy_gateway.service.prompts.doubts import Doubts
from comfy_gateway.service.prompts.rescue import Rescue
from comfy_gateway.service.prompts.settling import Settling
from comfy_gateway.service.prompts.submission import Submission
from comfy_gateway.service.prompts.turns import Turns
from comfy_gateway.service.prompts.waits import Waits
from comfy_gateway.site.relay import Relay, RelayLimits
from comfy_gateway.wiring.base import Base
from comfy_gateway.wiring.inputs import InputParts
from comfy_gateway.wiring.kept import KeptParts
from comfy_gateway.wiring.ledger import LedgerParts
from comfy_gateway.wiring.pods import PodParts
from comfy_gateway.wiring.servers import ServerParts

OVERDUE_MARGIN_S = 60.0


@dataclass(frozen=True)
class PromptParts:
    """What the hooks ask, and the tasks behind it."""

    relay: Relay
    submission: Submission
    settling: Settling
    doubts: Doubts
    witness: SocketWitness
    turns: Turns


def build_prompts(
    base: Base,
    servers: ServerParts,
    prompts: LedgerParts,
    kept: KeptParts,
    pods: PodParts,
    inputs: InputParts,
) -> PromptParts:
    """Nothing runs yet."""
    ledger, routes, comfy = prompts.ledger, servers.routes, servers.comfy
    keys, clock = base.keys, base.clock
    witness = SocketWitness(base.http, clock)
    limits = base.settings.limits
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
        placement=servers.placement,
        inputs=inputs.inputs,
        keys=keys,
        clock=clock,
        tasks=base.tasks,
    )
    servers.sessions.watch(rescue.session_moved)
    settling = Settling(
        ledger=ledger,
        routes=routes,
        comfy=comfy,
        rescue=rescue,
        may_return=servers.sessions.has_living_pod,
        has_stand_in=servers.pool.has_stand_in,
        clock=clock,
        interval_s=settle_interval_s(base.rules),
        give_up_s=base.rules.idle.silence_timeout_s,
    )
    relay = Relay(
        routes=routes,
        ledger=ledger,
        keys=keys,
        clock=clock,
        limits=RelayLimits(
            client_messages_per_s=limits.socket_messages_per_s, sockets_per_user=limits.max_sockets_per_user
        ),
        files=kept.files,
        rescuer=rescue,
        visibility=base.settings.access.visibility,
        spaces=base.spaces,
        order_of=turns.order_of,
        nudge=pods.signals.nudge,
    )
    rescue.wait_for(relay)
    base.stack.push_async_callback(relay.aclose)
    base.meters.watch_values("comfy_gateway_relay", "The relay's", relay.stats)
    submission = Submission(
        turns=turns,
        ledger=ledger,
        routes=routes,
        placement=servers.placement,
        inputs=inputs.inputs,
        relay=relay,
        comfy=comfy,
        meters=base.meters,
        bursts=pods.bursts,
        keys=keys,
        clock=clock,
        nudge=pods.signals.nudge,
        wait_of=Waits(ledger=ledger, order_of=turns.order_of, clock=clock).of,
    )
    doubts = Doubts(
        ledger=ledger,
        routes=routes,
        comfy=comfy,
        rescuer=rescue,
        clock=clock,
        overdue_s=limits.upstream_timeout_s + OVERDUE_MARGIN_S,
    )
    return PromptParts(relay, submission, settling, doubts, witness, turns)


def run_prompts(base: Base, servers: ServerParts, parts: PromptParts) -> None:
    """Start what looks after prompts for ever."""
    base.tasks.start(parts.settling.run(), name="settling")
    base.tasks.start(parts.doubts.run(), name="doubts")
    base.tasks.start(parts.witness.run(servers.pool.backends), name="witness")


def settle_interval_s(rules: Rules) -> float:
    """How often prompts are asked about whose ending no socket told: soon enough to matter to an idle window."""
    return max(0.5, min(15.0, rules.idle.idle_s / 10))
