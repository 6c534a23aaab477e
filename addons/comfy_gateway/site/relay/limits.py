"""Bounds and counters of the relay."""

from dataclasses import dataclass

MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """How long and how much. The defaults are for production; tests shorten the seconds."""

    connect_timeout_s: float = 10.0
    """For the upstream's handshake; a client that waits for it gets 504 after this."""
    ping_s: float = 25.0
    """Both ways. Cloudflare cuts silent sockets after 100 s."""
    silent_pings: int = 3
    """A client that sent nothing for so many pings, no pong either, is gone."""
    close_timeout_s: float = 2.0
    """For a closing handshake; after it the connection is cut."""
    backoff_first_s: float = 0.3
    backoff_most_s: float = 5.0
    steady_s: float = 10.0
    """An upstream socket that lived this long starts the backoff anew."""
    lost_tries: int = 5
    """So often a server that the user has no route to any more is called again."""
    linger_s: float = 5.0
    """Upstream sockets outlive the last client by this: a page that reconnects is back in some 300 ms."""
    farewell_s: float = 5.0
    """A server with nothing more to say stays connected for this: it may be accepting a prompt."""
    hold_s: float = 5.0
    """After a reconnect events wait so long at most until earlier endings are made up."""
    look_up_timeout_s: float = 10.0
    audit_s: float = 30.0
    """After this much silence about an unfinished prompt its server is asked."""
    release_wait_s: float = 1.0
    """A verdict before which outputs were missed waits so long for the release: the history has them by then."""
    ending_grace_s: float = 1.0
    """When the ledger knows an ending, the server's own words have this long before the end is made up."""
    entry_timeout_s: float = 5.0
    """For the entry from which an ending is made up; without one it is told in few words."""
    expect_s: float = 30.0
    """A server that a prompt is being sent to stays connected so long, until the ledger has the answer."""
    repeat_s: float = 2.0
    """Results younger than this are told again to a client that comes back, unless they were confirmed."""
    repeat_budget_bytes: int = 4 * MEGABYTE
    preview_budget_bytes: int = 4 * MEGABYTE
    event_budget_bytes: int = 16 * MEGABYTE
    uplink_budget_bytes: int = MEGABYTE
    """Of what clients send while a server cannot be reached; beyond it is dropped."""
    max_upstream_message_bytes: int = 256 * MEGABYTE
    max_client_message_bytes: int = 4 * MEGABYTE
    """As ComfyUI's own server has it."""
    client_messages_per_s: float = 50.0
    """Of one client in the long run, pings included; beyond it the socket is closed with 1008. 0: no bound."""
    sockets_per_user: int = 100
    """At one time; beyond it 429. Those who say no name are counted by their address. 0: no bound."""


@dataclass(slots=True)
class RelayStats:
    """Counters for the metrics page."""

    client_sockets: int = 0
    """Open at this moment."""
    upstream_sockets: int = 0
    """Open at this moment."""
    dropped_previews: int = 0
    dropped_events: int = 0
    """Of sockets that nobody came back to while 16 MB waited."""
    overflows: int = 0
    """Clients closed with 1013 because they did not read."""
    floods: int = 0
    """Clients closed with 1008 because they sent too many messages."""
    reconnects: int = 0
    """Upstream sockets that were lost and opened again."""
    made_up_endings: int = 0
