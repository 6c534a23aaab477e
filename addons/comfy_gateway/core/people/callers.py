"""Who is at the other end of a connection: an address, or a proxy that tells whose request it passes on.

Only addresses of ``TRUSTED_PROXIES`` are believed. Behind them the caller's address is the right-most one of
``X-Forwarded-For`` that is not itself a trusted proxy: everything to the left of it is the caller's own word.
``Forwarded`` (RFC 7239) and ``X-Real-IP`` count where the one before them is missing.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_plus

from comfy_gateway.core.people.hosts import is_loopback
from comfy_gateway.core.people.identity import plain_address

_FORWARDING_PREFIXES: Final = ("x-forwarded-", "x-auth-request-")
_FORWARDING: Final = frozenset(
    {
        "forwarded",
        "x-real-ip",
        "x-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "remote-user",
        "x-remote-user",
        "x-webauth-user",
    }
)
_FORWARDED_PART: Final = re.compile(
    r"""(?:^|[;,])\s*(for|proto|host)\s*=\s*("[^"]*"|[^;,\s]*)""", re.IGNORECASE
)
_WITH_PORT: Final = re.compile(r"\[([^\]]+)\](?::\d+)?|([^:]+):\d+")

type Values = Callable[[str], Sequence[str]]
"""All values of one header, by its name in any case."""


def is_forwarding(name: str) -> bool:
    """Whether a header (in lower case) tells whose request a proxy passes on. None of them goes up as it came."""
    return name in _FORWARDING or name.startswith(_FORWARDING_PREFIXES)


class TrustedProxies:
    """``TRUSTED_PROXIES``: whose word about the caller counts."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """``networks`` are addresses or CIDR networks. Raises ValueError for anything else."""
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)
        self._judged = lru_cache(maxsize=4096)(self._judge)  # the same few peers send every request

    def __contains__(self, address: object) -> bool:
        return isinstance(address, str) and self._judged(address)

    def _judge(self, address: str) -> bool:
        plain = plain_address(address)
        if plain is None:
            return False
        found = ipaddress.ip_address(plain)
        return any(found in network for network in self._networks)


@dataclass(frozen=True, slots=True)
class Caller:
    """One request's sender, before anybody asks who it is."""

    address: str = ""
    """In normal form; empty where there is none (a replayed flow)."""
    host: str = ""
    """``Host`` as the caller's browser sent it."""
    is_https: bool = False
    """Whether the caller's browser speaks HTTPS, to us or to the proxy."""
    is_by_proxy: bool = False
    """Whether a trusted proxy has sent it: the only ones who may name its user."""
    is_local: bool = False
    """Whether it comes from this very machine, asking for it by a loopback name, and past no proxy."""
    is_page_load: bool = False
    named: tuple[str, ...] = ()
    """Values of the identity header; empty unless a trusted proxy has sent them."""
    authorization: tuple[str, ...] = field(default=(), repr=False)
    sessions: tuple[str, ...] = field(default=(), repr=False)
    """Values of our session cookie."""


def find_caller(
    values: Values,
    *,
    peer: str,
    host: str,
    is_tls: bool,
    is_public_https: bool,
    trusted: TrustedProxies,
    is_page_load: bool = False,
) -> Caller:
    """Where a request comes from. ``host`` is its ``Host``; ``is_public_https`` counts where no proxy says better."""
    address = plain_address(peer) or ""
    if peer not in trusted:
        is_local = bool(address) and ipaddress.ip_address(address).is_loopback
        is_past_nobody = is_local and not any(
            values(name) for name in ("x-forwarded-for", "forwarded", "x-real-ip", "via")
        )
        return Caller(
            address=address,
            host=host,
            is_https=is_tls or is_public_https,
            is_local=is_past_nobody and is_loopback(host),
            is_page_load=is_page_load,
        )
    told = _Told.by(values)
    return Caller(
        address=_right_most_stranger(told.addresses, address, trusted),
        host=told.host or host,
        is_https=is_public_https or is_tls if told.scheme is None else told.scheme == "https",
        is_by_proxy=True,
        is_page_load=is_page_load,
    )


def without_query_key(path: str, key: str) -> str:
    """The path without every value of one query key; the rest stays as it came, byte for byte."""
    bare, mark, query = path.partition("?")
    if not mark:
        return path
    kept = [part for part in query.split("&") if unquote_plus(part.partition("=")[0]) != key]
    return f"{bare}?{'&'.join(kept)}" if kept else bare


@dataclass(frozen=True, slots=True)
class _Told:
    """What a proxy says."""

    addresses: list[str]
    """From the caller's own word on the left to the proxy's on the right."""
    scheme: str | None
    host: str | None

    @classmethod
    def by(cls, values: Values) -> "_Told":
        parts = [
            (found[1].lower(), found[2].strip('"'))
            for found in _FORWARDED_PART.finditer(",".join(values("forwarded")))
        ]
        standard = {key: [value for name, value in parts if name == key] for key in ("for", "proto", "host")}
        addresses = _listed(values("x-forwarded-for")) or standard["for"] or _listed(values("x-real-ip"))[-1:]
        scheme = _last(_listed(values("x-forwarded-proto"))) or _last(standard["proto"])
        host = _last(_listed(values("x-forwarded-host"))) or _last(standard["host"])
        return cls(addresses, scheme.lower() or None, host or None)


def _right_most_stranger(addresses: list[str], proxy: str, trusted: TrustedProxies) -> str:
    """The last address that is still vouched for: a proxy's own one where it names nobody."""
    found = proxy
    for told in reversed(addresses):
        match = _WITH_PORT.fullmatch(told)
        address = plain_address((match[1] or match[2]) if match else told)
        if address is None:
            return found
        found = address
        if address not in trusted:
            return found
    return found


def _listed(values: Sequence[str]) -> list[str]:
    return [part.strip() for part in ",".join(values).split(",") if part.strip()]


def _last(values: Sequence[str]) -> str:
    return values[-1] if values else ""
