"""Past starts, over a restart and while the store is down."""

from comfy_gateway.core.life.session import Event, State
from comfy_gateway.service.life.boot_times import RETRY_S, BootTimes
from tests.service.world import BOB, World


async def test_past_starts_outlive_a_restart_and_are_read_when_the_store_is_up_again(world: World) -> None:
    for _ in range(5):
        await world.ready(BOB)
        world.sessions.apply(BOB, *_stopped())
        await world.until(State.SHARED, BOB)
    found = BootTimes(world.store, world.clock)
    assert found.eta(None, 0.0) is None
    world.memory.is_down = True
    task = world.tasks.start(found.load(), name="past starts")
    await world.clock.advance(RETRY_S / 2)
    assert found.eta(None, 0.0) is None
    world.memory.is_down = False
    await world.clock.advance_until(task.done, within_s=2 * RETRY_S)
    eta = found.eta(None, 0.0)
    assert eta is not None
    assert 0 < eta.p50 < 1200


def _stopped() -> tuple[Event, str]:
    return Event.STOPPED, "as a test wants it"
