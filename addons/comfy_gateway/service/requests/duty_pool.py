"""The shared ComfyUI servers: which are healthy, how long their queues are, who is on which."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence

from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock, Health, Prober
from comfy_gateway.core.requests import duty_choice
from comfy_gateway.core.requests.upstream import Backend

logger = logging.getLogger(__name__)

FAILURES_UNTIL_DEAD = 2
MAX_REMEMBERED_USERS = 100_000


class DutyPool:
    """Chooses a duty server for each user; users stick until theirs is dead.

    A pool of one is never judged: its errors reach the client as they are.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        prober: Prober,
        clock: Clock,
        *,
        probe_interval_s: float = 5.0,
        max_users: int = MAX_REMEMBERED_USERS,
    ) -> None:
        self.backends = tuple(backends)
        self._by_id = {backend.id: backend for backend in self.backends}
        self._order = [backend.id for backend in self.backends]
        self._prober = prober
        self._clock = clock
        self._probe_interval_s = probe_interval_s
        self._max_users = max_users
        self._failures = dict.fromkeys(self._order, 0)
        self._load: dict[str, int | None] = dict.fromkeys(self._order, 0)
        self._stuck: OrderedDict[UserId, str] = OrderedDict()
        self._moved: Callable[[UserId], None] = lambda _user: None
        self.last_health: dict[str, Health] = {}

    @property
    def home(self) -> Backend:
        """The first server, which keeps userdata and settings."""
        return self.backends[0]

    def on_move(self, callback: Callable[[UserId], None]) -> None:
        """Have ``callback(user)`` called when a user's server changed because it is dead."""
        self._moved = callback

    def choose(self, user: UserId | None) -> Backend:
        """The duty server of this user; without a user the best one at this moment, not remembered."""
        if len(self.backends) == 1:
            return self.home
        if user is None:
            return self._by_id[duty_choice.pick(self._order, self._load, None)]
        chosen = duty_choice.pick(self._order, self._load, self._stuck.get(user))
        load = self._load[chosen]
        if self._stuck.get(user) != chosen and load is not None:
            # The server's own count lags by a probe; without this a crowd would all take the same one.
            self._load[chosen] = load + 1
        self._stuck[user] = chosen
        self._stuck.move_to_end(user)
        while len(self._stuck) > self._max_users:
            self._stuck.popitem(last=False)
        return self._by_id[chosen]

    def has_stand_in(self, backend_id: str) -> bool:
        """Whether this server is dead and another one lives."""
        is_dead = backend_id in self._load and self._load[backend_id] is None
        return is_dead and any(load is not None for load in self._load.values())

    async def run(self) -> None:
        """Probe all servers at the interval, for ever."""
        while True:
            try:
                await self.probe_all()
            except Exception:
                logger.exception("probing the duty servers failed once")
            await self._clock.sleep(self._probe_interval_s)

    async def probe_all(self) -> None:
        """Ask each server once and move users off a server that has just died."""
        for backend in self.backends:
            self._note(backend, await self._prober.probe(backend.upstream))

    def _note(self, backend: Backend, health: Health) -> None:
        was_healthy = self._load[backend.id] is not None
        self.last_health[backend.id] = health
        if health.is_healthy:
            self._failures[backend.id] = 0
            self._load[backend.id] = health.queue_remaining or 0
            if not was_healthy:
                logger.info("duty server %s answers again", backend.id)
                self._leave_the_dead()
            return
        self._failures[backend.id] += 1
        if self._failures[backend.id] == FAILURES_UNTIL_DEAD:
            logger.warning("duty server %s does not answer: %s", backend.id, health.reason)
            self._load[backend.id] = None
            self._leave_the_dead()

    def _leave_the_dead(self) -> None:
        """Also after a server has come back: with none alive everybody stayed where they were."""
        for user, id_ in tuple(self._stuck.items()):
            if self._load[id_] is None and self.choose(user).id != id_:
                self._moved(user)
