"""Which ComfyUI server a user's traffic goes to at this moment."""

from collections.abc import Callable, Mapping, Sequence

from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.requests.upstream import Backend

Watcher = Callable[[UserId], None]


class Routes:
    """The route table: written by the session service and the duty pool, read by hooks, relay and site.

    ``duty`` answers with the duty server of a user (None for a request that nobody is known for); it is a callable
    because the choice belongs to the duty pool, whose ``servers`` are all of its servers.
    """

    def __init__(
        self, home: Backend, duty: Callable[[UserId | None], Backend], servers: Sequence[Backend] = ()
    ) -> None:
        self.home = home
        """The first duty server: userdata, settings and the front end's files. Its outputs may bear an alias."""
        self._duty = duty
        self._servers = tuple(servers)
        self._private: dict[UserId, Backend] = {}
        self._leaving: dict[UserId, Backend] = {}
        self._watchers: list[Watcher] = []

    def duty(self, user: UserId | None) -> Backend:
        """The duty server that this user is on."""
        return self._duty(user)

    def private(self, user: UserId | None) -> Backend | None:
        """The user's private pod, or None while there is none that may be used."""
        return None if user is None else self._private.get(user)

    def current(self, user: UserId | None) -> Backend:
        """Where new work of this user goes."""
        return self.private(user) or self.duty(user)

    def by_id(self, user: UserId | None, backend_id: str) -> Backend | None:
        """The backend of that id if this user's work may be on it: their pod, also while it drains, or a duty server.

        A duty server counts although the user has been put on another: what was sent to it is still there.
        """
        leaving = None if user is None else self._leaving.get(user)
        for backend in (self.private(user), leaving, self.duty(user), self.home, *self._servers):
            if backend is not None and backend.id == backend_id:
                return backend
        return None

    def servers_of(self, user: UserId | None) -> tuple[Backend, ...]:
        """The servers that this user's work goes to or may still be on: duty, then their pod, also while it drains.

        For nobody known these are all duty servers: work of theirs is put on any of them.
        """
        if user is None:
            return self._servers or (self.home,)
        pods = (self._private.get(user), self._leaving.get(user))
        return (self.duty(user), *(pod for pod in pods if pod is not None))

    def duty_servers(self) -> tuple[Backend, ...]:
        """All shared servers, home first."""
        return self._servers or (self.home,)

    def plain(self) -> Backend | None:
        """The shared server whose files are shown without an alias, or None while it is not in the settings."""
        return next((server for server in self.duty_servers() if not server.alias), None)

    def pods(self) -> tuple[Backend, ...]:
        """All pods that have a route, and those that lost it and still have work."""
        return (*self._private.values(), *self._leaving.values())

    def privates(self) -> Mapping[UserId, Backend]:
        """All private routes."""
        return self._private

    def set_private(self, user: UserId, backend: Backend) -> None:
        """Send the user's new traffic to this pod from now on, and tell the watchers."""
        self._leaving.pop(user, None)
        self._private[user] = backend
        self._tell(user)

    def retire_private(self, user: UserId) -> None:
        """Send the user's new traffic to duty again, and keep the pod for what it still has until ``clear_private``.

        Tells the watchers. Nothing happens where there is no pod.
        """
        backend = self._private.pop(user, None)
        if backend is not None:
            self._leaving[user] = backend
            self._tell(user)

    def clear_private(self, user: UserId) -> None:
        """Send the user's new traffic to duty again, and tell the watchers. Nothing happens where there is no pod."""
        was_leaving = self._leaving.pop(user, None) is not None
        if self._private.pop(user, None) is not None or was_leaving:
            self._tell(user)

    def duty_changed(self, user: UserId) -> None:
        """Tell the watchers that the duty pool moved this user."""
        self._tell(user)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have ``watcher(user)`` called after each change, synchronously; returns what ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def _tell(self, user: UserId) -> None:
        for watcher in tuple(self._watchers):
            watcher(user)
