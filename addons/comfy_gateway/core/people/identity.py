"""Who a request is from. docs/identity.md tells the same for people; this is the only place that decides
it.

The first that is there counts: header > query key > the client's own cookie > our signed cookie > client_id
> (an unknown browser gets a name of its own) > IP address. Without sign-in nothing of this is proof: a user
is whoever they say they are.
"""

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from comfy_gateway.core.people.users import MAX_NAME_LENGTH, IdKind, UserId, is_valid_name

ALLOWED_NAMES: Final = f"1 to {MAX_NAME_LENGTH} printable ASCII characters without a space at either end"


@dataclass(frozen=True, slots=True)
class IdentityRules:
    """What names a user, by the settings."""

    header: str = "X-Comfy-User"
    query_key: str = "user_id"
    cookie: str | None = None
    """Name of the client's own cookie, or None when none counts."""
    use_client_id: bool = True
    use_client_ip: bool = False
    is_required: bool = True
    """Requests without any identity are refused; else they go to duty."""


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What a request says about its sender."""

    header: tuple[str, ...] = ()
    """Values of the identity header."""
    query: tuple[str, ...] = ()
    """Decoded values of the query key."""
    cookie: tuple[str, ...] = ()
    """Values of the client's own cookie."""
    remembered: UserId | None = None
    """What our own cookie says, once its signature was found good."""
    client_id: str | None = None
    """From the query (``clientId``, ``client_id``) or the body of a prompt."""
    client_id_owner: UserId | None = None
    """Whom ``ClientIds`` knows it to belong to."""
    peer_ip: str | None = None
    is_browser: bool = False
    """The client keeps cookies; see ``looks_like_browser``."""
    wants_html: bool = False
    """A page load. Only there an unknown browser gets a name: requests beside it would get a second one."""
    spare_name: str = ""
    """Random name for a browser that turns out to be unknown."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The decision."""

    user: UserId | None = None
    """None: nobody can be told. Such a request goes to duty at most and never buys a pod."""
    remember: UserId | None = None
    """Set our cookie to this user."""
    claim: str | None = None
    """Join this client_id to ``user``."""
    problem: str | None = None
    """Answer 400 with this text: an id was given but cannot be used."""


def identify(facts: RequestFacts, rules: IdentityRules) -> Identity:
    """Decide whom a request belongs to."""
    named = (
        (facts.header, f"the header {rules.header}", True),
        (facts.query, f"the query key {rules.query_key}", True),
        (facts.cookie if rules.cookie else (), f"the cookie {rules.cookie}", False),
    )
    for values, place, is_remembered in named:
        given = {value.strip() for value in values} - {""}
        if not given:
            continue
        if len(given) > 1:
            return Identity(problem=f"{place} is given more than once with different values")
        name = given.pop()
        if not is_valid_name(name):
            return Identity(problem=f"{place} must have {ALLOWED_NAMES}")
        return _known(UserId(IdKind.NAMED, name), facts, rules, is_remembered=is_remembered)
    if facts.remembered is not None and not (rules.is_required and facts.remembered.kind is IdKind.BROWSER):
        return _known(facts.remembered, facts, rules, is_remembered=False)
    if rules.use_client_id and facts.client_id:
        owner = facts.client_id_owner
        # A client_id is no secret. Who has nothing else is not taken for somebody who has a name.
        if owner is not None and owner.kind is not IdKind.NAMED:
            return Identity(owner)
        if is_valid_name(facts.client_id):
            return Identity(UserId(IdKind.CLIENT, facts.client_id))
    if facts.is_browser and facts.wants_html and facts.spare_name and not rules.is_required:
        return _known(UserId(IdKind.BROWSER, facts.spare_name), facts, rules, is_remembered=True)
    if rules.use_client_ip and (address := plain_address(facts.peer_ip)) is not None:
        return Identity(UserId(IdKind.ADDRESS, address))
    return Identity()


def explain_missing(rules: IdentityRules) -> str:
    """One sentence for a client that must say who it is."""
    ways = [f"the header {rules.header}", f"the query key {rules.query_key}"]
    if rules.cookie:
        ways.append(f"the cookie {rules.cookie}")
    return f"Say who you are by {' or '.join(ways)}: {ALLOWED_NAMES}."


def looks_like_browser(user_agent: str | None, accept: str | None, sec_fetch_mode: str | None) -> bool:
    """Whether a client is a browser, which keeps a cookie. A wrong guess costs a needless Set-Cookie."""
    return bool(sec_fetch_mode) or (user_agent or "").startswith("Mozilla/") or wants_html(accept)


def wants_html(accept: str | None) -> bool:
    """Whether an ``Accept`` header is that of a page load."""
    return "text/html" in (accept or "").lower()


def _known(user: UserId, facts: RequestFacts, rules: IdentityRules, *, is_remembered: bool) -> Identity:
    # A cookie of another name is replaced, also for what does not look like a browser: it did keep one.
    is_news = facts.remembered != user and (facts.is_browser or facts.remembered is not None)
    is_unclaimed = (
        rules.use_client_id and facts.client_id_owner is None and is_valid_name(facts.client_id or "")
    )
    return Identity(
        user,
        remember=user if is_remembered and is_news else None,
        claim=facts.client_id if is_unclaimed else None,
    )


@lru_cache(maxsize=4096)
def plain_address(peer_ip: str | None) -> str | None:
    """The address in normal form: mapped IPv4 as IPv4, no zone. None for what is no address."""
    try:
        address = ipaddress.ip_address((peer_ip or "").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)
