"""The clients of one channel, and what they are told: everything once, in order, after a greeting."""

from collections.abc import Callable, Iterable

from comfy_gateway.core.events import frames, merge
from comfy_gateway.core.events.frames import Frame, Message
from comfy_gateway.core.events.outbox import Outbox
from comfy_gateway.core.events.receipts import Receipts
from comfy_gateway.core.ports import Clock
from comfy_gateway.site.relay.client import ClientSocket
from comfy_gateway.site.relay.limits import RelayLimits, RelayStats


class Audience:
    """Clients that share one socket id. While there is none, events wait for the next; previews do not.

    Results that no client has confirmed are told again to the next one (``core.events.receipts``).
    """

    def __init__(
        self,
        sid: str,
        running: Callable[[], Iterable[Frame]],
        limits: RelayLimits,
        stats: RelayStats,
        clock: Clock,
    ) -> None:
        """``running`` gives what is executed at this moment."""
        self._sid = sid
        self._running = running
        self._stats = stats
        self._clock = clock
        self._clients: set[ClientSocket] = set()
        self._waiting = Outbox(preview_budget_bytes=0, event_budget_bytes=limits.event_budget_bytes)
        self._waiting_results: dict[int, tuple[Frame, str]] = {}
        """Results among what waits, and their prompts, by the identity of the frame."""
        self._receipts = Receipts(repeat_s=limits.repeat_s, max_bytes=limits.repeat_budget_bytes)
        self._status: Message | None = None
        self._remaining: int | None = None
        self._features: Frame | None = None
        self._asked_for_features: set[ClientSocket] = set()

    @property
    def is_empty(self) -> bool:
        """Whether nobody listens."""
        return not self._clients

    def unheard(self) -> set[str]:
        """Prompts with results that wait for a client or may not have reached one."""
        waiting = {prompt_id for _, prompt_id in self._waiting_results.values()}
        return waiting | self._receipts.prompts(self._clock.monotonic())

    def add(self, client: ClientSocket) -> None:
        """A client whose handshake is done: greeted with the last status, or with the first that comes."""
        self._clients.add(client)
        client.confirmed = self._receipts.confirm
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

    def tell(self, frame: Frame, *, result_of: str | None = None) -> None:
        """Give a frame to everybody; where nobody is, an event waits for the next client.

        ``result_of``: the prompt whose output, verdict or release it is.
        """
        if not self._clients:
            self._keep(frame, result_of)
            return
        for client in self._clients:
            if not client.is_greeted:  # a server that does not begin with its status
                self._greet(client)
        if result_of is not None:
            frame = self._receipts.number(frame, result_of, self._clock.monotonic())
        for client in self._clients:
            client.put(frame)

    @property
    def has_pages(self) -> bool:
        """Whether a page listens that knows our own messages."""
        return any(client.is_page for client in self._clients)

    def mark_pages(self) -> bool:
        """Those who listen now are pages that know our own messages. False where nobody listens."""
        for client in self._clients:
            client.is_page = True
        return bool(self._clients)

    def tell_pages(self, frame: Frame) -> bool:
        """Give a message of ours to pages that know it; nobody else hears it, and it waits for nobody.

        False where there is none.
        """
        pages = [client for client in self._clients if client.is_page]
        for client in pages:
            client.put(frame)
        return bool(pages)

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

    def tell_remaining(self, remaining: int | None, *, is_news: bool) -> None:
        """The count without a word of a server, when it has changed or ``is_news``: pages read their queue again."""
        if remaining is not None:
            is_news = is_news or remaining != self._remaining
            self._remaining = remaining
        if self._status is not None and is_news:
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

    def _keep(self, frame: Frame, result_of: str | None) -> None:
        if not self._waiting.put(frame):
            self._stats.dropped_events += 1
        if result_of is not None:
            self._waiting_results[id(frame)] = (frame, result_of)

    def _tell_count(self, status: Message, clients: Iterable[ClientSocket]) -> None:
        frame = frames.write("status", merge.status_data(status.data, self._remaining, None))
        for client in clients:
            client.put(frame)

    def _greet(self, client: ClientSocket) -> None:
        """The handshake, then what may not have arrived, what happened while nobody listened, and what runs."""
        client.is_greeted = True
        if self._status is not None:
            client.put(
                frames.write("status", merge.status_data(self._status.data, self._remaining, self._sid))
            )
        now_s = self._clock.monotonic()
        for frame in self._receipts.unconfirmed(now_s):
            client.put(frame)
        while (waiting := self._waiting.take()) is not None:
            _, result_of = self._waiting_results.pop(id(waiting), (waiting, None))
            client.put(waiting if result_of is None else self._receipts.number(waiting, result_of, now_s))
        for frame in self._running():
            client.put(frame)
