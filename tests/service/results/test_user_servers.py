"""Which servers have something of a user."""

from comfy_gateway.core.prompts.prompts import PromptRecord
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.service.requests.routes import Routes
from comfy_gateway.service.results.user_servers import UserServers
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import ledger_in_memory
from tests.service.world import ALICE, BOB, duty

POD = Backend("comfy-gw-alice-a1", Source.PRIVATE, Upstream("https", "pod1.test", 443), "token")
HOME, OTHER = duty(0), duty(1)


def test_a_server_on_which_a_user_once_was_is_asked_too(clock: FakeClock) -> None:
    routes, ledger = Routes(HOME, lambda _user: HOME, (HOME, OTHER)), ledger_in_memory(clock)
    servers = UserServers(routes, ledger)
    routes.set_private(ALICE, POD)
    assert servers.of(ALICE) == [HOME, POD]
    assert servers.current(ALICE) == POD
    ledger.accept(PromptRecord("p1", ALICE.key, "tab", OTHER.id))
    ledger.accept(PromptRecord("p2", ALICE.key, "tab", "comfy-gw-alice-gone"))
    assert servers.of(ALICE) == [HOME, OTHER, POD], "duty first, and no pod that is gone"
    assert servers.of(BOB) == [HOME]
    assert servers.of(None) == [HOME, OTHER]


def test_a_prompts_server_is_that_of_its_owner(clock: FakeClock) -> None:
    routes = Routes(HOME, lambda _user: HOME, (HOME, OTHER))
    servers = UserServers(routes, ledger_in_memory(clock))
    on_pod, on_duty = PromptRecord("p1", ALICE.key, "", POD.id), PromptRecord("p2", None, "", OTHER.id)
    assert servers.of_record(on_pod) is None
    assert servers.of_record(on_duty) == OTHER
    routes.set_private(ALICE, POD)
    assert servers.of_record(on_pod) == POD
    assert servers.of_record(PromptRecord("p3", BOB.key, "", POD.id)) is None
    assert (servers.source_of(on_pod), servers.source_of(on_duty)) == (Source.PRIVATE, Source.DUTY)
