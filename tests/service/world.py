"""All services of one gateway, put together as ``wiring`` does it, over the fakes.

The cloud, the servers in its pods, the store and the clock stay when the gateway restarts.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from comfy_gateway.core.keys import Keys
from comfy_gateway.core.life.idleness import IdleLimits
from comfy_gateway.core.life.session import Event, Session, State
from comfy_gateway.core.money.admission import Caps
from comfy_gateway.core.money.alarms import AlarmKind
from comfy_gateway.core.money.market import Market
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.pods.pod_address import PodAddresses
from comfy_gateway.core.pods.podname import PodNames
from comfy_gateway.core.ports import AlarmSender, Candidate, SessionStore
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.service.cloud.cloud_watch import CloudWatch
from comfy_gateway.service.cloud.strays import Strays
from comfy_gateway.service.life.bursts import Bursts
from comfy_gateway.service.life.endings import Endings
from comfy_gateway.service.life.keeping import Keeping
from comfy_gateway.service.life.launch import Launch
from comfy_gateway.service.life.life import Life, backend_of
from comfy_gateway.service.life.pod_logs import PodLogs
from comfy_gateway.service.life.readings import Readings
from comfy_gateway.service.life.rules import Rules
from comfy_gateway.service.life.sessions import Sessions
from comfy_gateway.service.life.signals import Signals
from comfy_gateway.service.life.wishes import Wishes
from comfy_gateway.service.money.alarms import Alarms
from comfy_gateway.service.money.spending import Spending
from comfy_gateway.service.prompts.activity import Activity
from comfy_gateway.service.prompts.catalogues import Catalogues
from comfy_gateway.service.prompts.placement import Placement
from comfy_gateway.service.prompts.rescue import Rescue
from comfy_gateway.service.prompts.settling import Settling
from comfy_gateway.service.prompts.turns import Turns
from comfy_gateway.service.requests.duty_pool import DutyPool
from comfy_gateway.service.requests.routes import Routes
from comfy_gateway.service.tasks import Tasks
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import FakeCloud, RentedPod
from tests.fakes.ledger import ledger_in_memory
from tests.fakes.logs import FakeShelf
from tests.fakes.servers import FakeComfyServer, FakeInputs, FakeServers, FakeWitness
from tests.fakes.store import FakeStore
from tests.fakes.vault import FakeVault

ALICE = UserId(IdKind.NAMED, "alice")
BOB = UserId(IdKind.NAMED, "bob")
TAG = "comfy-gw"
KEYS = Keys(bytes(range(32)))
ADDRESSES = PodAddresses(
    "https://{pod_id}-{port}.pods.test", 8188, "https://{pod_id}-{port}.pods.test", 8000, "/metrics"
)
RULES = Rules(
    candidates=(Candidate("RTX 4090", "SECURE"), Candidate("A100", "SECURE")),
    caps=Caps(max_active_sessions=10, budget_hourly_usd=20.0),
    idle=IdleLimits(idle_s=600, gpu_threshold_percent=0, silence_timeout_s=900, max_gap_s=100),
    pod_env={"HF_TOKEN": "secret"},
)


def duty(number: int = 0) -> Backend:
    """One shared server."""
    return Backend(f"duty-{number}", Source.DUTY, Upstream("http", f"duty{number}.test", 3000))


class World:
    """Everything that a test of services touches."""

    def __init__(
        self,
        clock: FakeClock,
        *,
        rules: Rules = RULES,
        duties: int = 1,
        store: SessionStore | None = None,
        max_users: int = 1000,
        senders: Sequence[AlarmSender] = (),
    ) -> None:
        self.clock = clock
        self.rules = rules
        self.cloud = FakeCloud(clock)
        self.servers = FakeServers(clock, self.cloud)
        self.memory = FakeStore(clock)
        self.store: SessionStore = store or self.memory
        self.comfy = FakeComfyServer()
        self.witness = FakeWitness()
        self.inputs = FakeInputs()
        self.vault = FakeVault(clock)
        self.names = PodNames(TAG, KEYS)
        self.transitions: list[tuple[UserId, State, Event, State]] = []
        """Of all sessions, since the world began."""
        self.senders = senders
        self.told: list[AlarmKind] = []
        """Kinds of all alarms."""
        self._max_users = max_users
        self._duties = [duty(number) for number in range(duties)]
        self._attempts = itertools.count(1)
        self._prompts = itertools.count(1)
        self._build()

    def _build(self) -> None:
        self.tasks = Tasks("test")
        self.pool = DutyPool(self._duties, self.servers, self.clock)
        self.routes = Routes(self.pool.home, self.pool.choose, self.pool.backends)
        self.pool.on_move(self.routes.duty_changed)
        self.ledger = ledger_in_memory(self.clock)
        self.activity = Activity(self.clock)
        self.ledger.watch(lambda record: self.activity.touch(record.backend_id))
        self.sessions = Sessions(
            store=self.store,
            routes=self.routes,
            clock=self.clock,
            backend_of=lambda pod: backend_of(pod, ADDRESSES, KEYS),
        )
        self.sessions.watch(self._note)
        self.catalogues = Catalogues(
            comfy=self.comfy,
            servers=lambda: (*self.pool.backends, *self.routes.privates().values()),
            clock=self.clock,
            tasks=self.tasks,
        )
        self.placement = Placement(routes=self.routes, catalogues=self.catalogues, clock=self.clock)
        self.sessions.watch(self.placement.session_moved)
        self.signals = Signals(self.clock, self.tasks)
        self.alarms = Alarms(senders=self.senders, count=self.told.append, clock=self.clock)
        self.endings = Endings(self.cloud, self.names, self.clock, self.alarms.tell)
        self.spending = Spending(
            budget=self.rules.budget,
            store=self.store,
            sessions=self.sessions,
            signals=self.signals,
            clock=self.clock,
            reserve_s=self.rules.reserve_s,
            hours=self.rules.hours,
            tell=self.alarms.tell,
        )
        self.strays = Strays(
            sessions=self.sessions,
            names=self.names,
            endings=self.endings,
            store=self.store,
            clock=self.clock,
            tasks=self.tasks,
            grace_s=self.rules.idle.idle_s,
        )
        self.watch = CloudWatch(
            cloud=self.cloud,
            sessions=self.sessions,
            signals=self.signals,
            strays=self.strays,
            clock=self.clock,
            interval_s=self.rules.reconcile_s,
            tell=self.alarms.tell,
        )
        self.market, self.wishes = Market(self.rules.market), Wishes(self.rules.buying)
        self.launch = Launch(
            sessions=self.sessions,
            cloud=self.cloud,
            names=self.names,
            new_attempt=lambda: f"a{next(self._attempts)}",
            keys=KEYS,
            rules=self.rules,
            market=self.market,
            clock=self.clock,
            why_not=self.spending.why_not,
            wish_of=self.wishes.of,
            tell=self.alarms.tell,
        )
        self.keeping = Keeping(self.clock)
        self.readings = Readings(self.clock)
        self.shelf = FakeShelf()
        self.logs = PodLogs(agent=self.servers, shelf=self.shelf, addresses=ADDRESSES, keys=KEYS)
        self.life = Life(
            sessions=self.sessions,
            launch=self.launch,
            endings=self.endings,
            signals=self.signals,
            prober=self.servers,
            agent=self.servers,
            store=self.store,
            ledger=self.ledger,
            placement=self.placement,
            vault=self.vault,
            activity=self.activity,
            keeping=self.keeping,
            readings=self.readings,
            logs=self.logs,
            addresses=ADDRESSES,
            keys=KEYS,
            rules=self.rules,
            clock=self.clock,
            tasks=self.tasks,
            cloud_view=self.watch.view,
            tell=self.alarms.tell,
        )
        self.bursts = Bursts(
            sessions=self.sessions,
            rules=self.rules,
            market=self.market,
            clock=self.clock,
            begin=self.life.begin,
            wishes=self.wishes,
            max_users=self._max_users,
        )
        self.rescue = Rescue(
            turns=Turns(ledger=self.ledger, comfy=self.comfy),
            ledger=self.ledger,
            routes=self.routes,
            comfy=self.comfy,
            witness=self.witness,
            placement=self.placement,
            inputs=self.inputs,
            keys=KEYS,
            clock=self.clock,
            tasks=self.tasks,
        )
        self.sessions.watch(self.rescue.session_moved)
        self.settling = Settling(
            ledger=self.ledger,
            routes=self.routes,
            comfy=self.comfy,
            rescue=self.rescue,
            may_return=self.sessions.has_living_pod,
            has_stand_in=self.pool.has_stand_in,
            clock=self.clock,
            interval_s=15.0,
        )

    def _note(self, before: Session, after: Session, event: Event) -> None:
        self.transitions.append((before.user, before.state, event, after.state))

    def run_loops(self) -> None:
        """Start the tasks that run for ever, as wiring does."""
        self.tasks.start(self.alarms.run(), name="alarms")
        self.tasks.start(self.watch.run(), name="cloud watch")
        self.tasks.start(self.settling.run(), name="settling")
        self.tasks.start(self.spending.run(), name="budgets")

    async def stop(self) -> None:
        """The gateway ends, wherever it stands."""
        await self.tasks.aclose()

    async def kill(self) -> None:
        """End the gateway as kill -9 does: nothing that it still wants to say is heard."""
        self.cloud.is_cut = self.memory.is_cut = True
        try:
            await self.tasks.aclose()
        finally:
            self.cloud.is_cut = self.memory.is_cut = False

    async def restart(self, *, rules: Rules | None = None, with_loops: bool = False) -> None:
        """End the gateway and start another one on the same store."""
        await self.stop()
        self.rules = rules or self.rules
        self._build()
        for session in await self.sessions.load():
            self.life.begin(session.user)
        if with_loops:
            self.run_loops()

    def prompts(self, user: UserId, count: int = 1, *, is_done: bool = True) -> list[str]:
        """The user's current server accepts so many prompts, as the hook notes it; returns their ids."""
        made: list[str] = []
        for _ in range(count):
            prompt_id = f"prompt-{next(self._prompts)}"
            backend = self.routes.current(user)
            self.ledger.accept(PromptRecord(prompt_id, user.key, "sid", backend.id))
            self.bursts.prompt_accepted(user)
            if is_done:
                self.ledger.end(prompt_id, Outcome.DONE)
            made.append(prompt_id)
        return made

    def burst(self, user: UserId = ALICE) -> None:
        """As many prompts as earn a pod."""
        self.prompts(user, max(self.rules.threshold_count, 1))

    def state(self, user: UserId = ALICE) -> State:
        """Where the user's session stands."""
        return self.sessions.get(user).state

    async def until(
        self, state: State, user: UserId = ALICE, *, within_s: float = 1200, step_s: float = 1.0
    ) -> float:
        """Advance until the session is in the state; returns how many seconds that took."""
        return await self.clock.advance_until(
            lambda: self.state(user) is state, within_s=within_s, step_s=step_s
        )

    async def ready(self, user: UserId = ALICE) -> RentedPod:
        """Burst, and advance until the pod serves; returns the pod."""
        self.burst(user)
        await self.until(State.READY, user)
        return self.pod(user)

    def pod(self, user: UserId = ALICE) -> RentedPod:
        """The pod of the user's session. Fails when there is none."""
        pod = self.sessions.get(user).pod
        assert pod is not None
        assert pod.pod_id is not None
        return self.cloud.find(pod.pod_id)

    def events(self, user: UserId = ALICE) -> list[Event]:
        """The events of this user's session, in order."""
        return [event for who, _, event, _ in self.transitions if who == user]


def with_rules(**changes: Any) -> Rules:
    """The usual rules with some changes."""
    return replace(RULES, **changes)
