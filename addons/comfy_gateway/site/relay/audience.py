"""The clients of one channel, and what they are told: everything once, in order, after a greeting."""

from collections.abc import Callable, Iterable

from comfy_gateway.core import frames, merge
from comfy_gateway.core.frames import Frame, Message
from comfy_gateway.core.outbox import Outbox
from comfy_gateway.site.relay.client import ClientSocket
from comfy_gateway.site.relay.limits import RelayLimits, RelayStats


class Audience:
    """Clients that share one socket id. While there is none, events wait for the next; previews do not."""

    def __init__(
        self, sid: str, running: Callable[[], Iterable[Frame]], limits: RelayLimits, stats: RelayStats
    ) -> None:
        """``running`` gives the last ``executing`` and ``progress_state`` of what runs."""
        self._sid = sid
        self._running = running
        self._stats = stats
        self._clients: set[ClientSocket] = set()
        self._waiting = Outbox(preview_budget_bytes=0, event_budget_bytes=limits.event_budget_bytes)
        self._status: Message | None = None
        self._remaining: int | None = None
        self._features: Frame | None = None
        self._asked_for_features: set[ClientSocket] = set()

    @property
    def is_empty(self) -> bool:
        """Whether nobody listens."""
        return not self._clients

    def add(self, client: ClientSocket) -> None:
        """A client whose handshake is done: greeted with the last status, or with the first that comes."""
        self._clients.add(client)
        if self._status is not None:
            self._greet(client)

    def remove(self, client: ClientSocket) -> None:
        """The client is gone."""
        self._clients.discard(client)
        self._asked_for_features.discard(client)

    def end(self, code: int) -> None:
        """Close all sockets with this code."""
        for client in self._clients:
            client.end(code)

    def tell(self, frame: Frame) -> None:
        """Give a frame to everybody; where nobody is, an event waits for the next client."""
        if not self._clients and not self._waiting.put(frame):
            self._stats.dropped_events += 1
        for client in self._clients:
            if not client.is_greeted:  # a server that does not begin with its status
                self._greet(client)
            client.put(frame)

    def tell_status(self, message: Message, remaining: int | None, *, is_greeting: bool) -> None:
        """A server's ``status`` with the count that all servers have together.

        A server's greeting to us is news for those clients only who were not greeted, unless it changes the
        count.
        """
        greeted = [client for client in self._clients if client.is_greeted]
        is_news = not is_greeting or remaining != self._remaining
        self._status, self._remaining = message, remaining
        if is_news:
            self._tell_count(message, greeted)
        for client in self._clients.difference(greeted):
            self._greet(client)

    def tell_remaining(self, remaining: int | None) -> None:
        """The count has changed without a word of a server."""
        if self._status is not None and remaining is not None and remaining != self._remaining:
            self._remaining = remaining
            self._tell_count(self._status, [client for client in self._clients if client.is_greeted])

    def ask_features(self, client: ClientSocket) -> None:
        """Answer a client's ``feature_flags``, at once where the server's are known."""
        if self._features is None:
            self._asked_for_features.add(client)
        else:
            client.put(self._features)

    def tell_features(self, frame: Frame, *, is_current: bool) -> None:
        """A server's answer. Clients hear one; that of a further server replaces it for clients to come."""
        if self._features is None or is_current:
            self._features = frame
        for client in self._asked_for_features:
            client.put(self._features)
        self._asked_for_features.clear()

    def _tell_count(self, status: Message, clients: Iterable[ClientSocket]) -> None:
        frame = frames.write("status", merge.status_data(status.data, self._remaining, None))
        for client in clients:
            client.put(frame)

    def _greet(self, client: ClientSocket) -> None:
        """The handshake, then what happened while nobody listened, then what runs."""
        client.is_greeted = True
        if self._status is not None:
            client.put(
                frames.write("status", merge.status_data(self._status.data, self._remaining, self._sid))
            )
        while (frame := self._waiting.take()) is not None:
            client.put(frame)
        for frame in self._running():
            client.put(frame)
