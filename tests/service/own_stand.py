"""What users are told of their own session, over the fakes."""

from comfy_gateway.core.life.own_pod import Policy
from comfy_gateway.service.life.boot_times import BootTimes
from comfy_gateway.service.life.own_session import OwnSession
from tests.service.world import World

LIBERAL = Policy(may_promote=True)


def own_session(world: World, policy: Policy = LIBERAL) -> OwnSession:
    """As wiring builds it, from now on."""
    boot_times = BootTimes(world.store, world.clock)
    world.sessions.watch(boot_times.session_moved)
    return OwnSession(
        sessions=world.sessions,
        bursts=world.bursts,
        life=world.life,
        signals=world.signals,
        keeping=world.keeping,
        boot_times=boot_times,
        ledger=world.ledger,
        routes=world.routes,
        rules=world.rules,
        policy=policy,
        order_of=lambda record: record.number,
    )
