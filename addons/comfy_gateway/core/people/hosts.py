"""Whether the page that sends a request is one of ours: a decision on ``Host`` and ``Origin``.

A browser tells the page's origin by ``Origin`` with every socket, every POST and every request from another
site, but with a plain GET from the page itself it tells nothing. Equal Host and Origin prove little: a page
of ``evil.example`` whose DNS record is changed to our address (DNS rebinding) sends both as
``evil.example``, and its GETs without any Origin. What it cannot change is the name in Host. So the name
decides first. Trusted names:

* loopback names (``localhost``, ``*.localhost``, ``127.0.0.0/8``, ``[::1]``) and every other IP literal:
  there is no name that could be rebound;
* names that public DNS does not hand out, so that no stranger can serve a page from them: names without a
  dot (``gpu-box``, a container's name), ``*.local``, ``*.internal``, ``*.home.arpa``;
* the hosts of ``GATEWAY_PUBLIC_URL``.

A request for any other name is foreign, with and without Origin: curl by such a name needs
``GATEWAY_PUBLIC_URL`` too. For a trusted name an Origin must be the same host and port, or one of
``GATEWAY_PUBLIC_URL`` (a proxy in front may have changed Host). ``null`` and origins that are not http(s)
are foreign. ``Sec-Fetch-Site`` is not relied on, because browsers leave it out towards plain http
addresses; where it is there and says that another site wants to change something, that is believed. A request
without Host (HTTP/1.0) is from no browser.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from comfy_gateway.core.requests.upstream import Upstream

_NAME: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_PRIVATE_SUFFIXES: Final = (".localhost", ".local", ".internal", ".home.arpa")
_CHANGES_NOTHING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OTHER_SITES: Final = frozenset({"cross-site", "same-site"})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_PORT: Final = 65535
_MAX_HOST_LENGTH: Final = 270
"""A name has 255 characters at most (RFC 1035), and there may be a port."""


class OriginVerdict(StrEnum):
    """What to do about Host and Origin."""

    OURS = "ours"
    """Our own page: rewrite Origin to the upstream's."""
    NONE = "none"
    """A trusted Host and no Origin: nothing to rewrite."""
    FOREIGN = "foreign"
    """Refuse with 403; ``explain_foreign`` says why."""


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """What ``GATEWAY_PUBLIC_URL`` adds to the names that are trusted anyway."""

    origins: frozenset[str] = frozenset()
    """As a browser sends them: ``https://comfy.example.com``."""
    names: frozenset[str] = frozenset()
    """Their host names in lower case."""

    @classmethod
    def of(cls, public_urls: Iterable[Upstream]) -> "AllowedHosts":
        """From the addresses of the settings."""
        urls = tuple(public_urls)
        return cls(frozenset(url.origin for url in urls), frozenset(url.host for url in urls))


def check_origin(host: str, origin: str | None, allowed: AllowedHosts) -> OriginVerdict:
    """Judge a request by its ``Host`` (empty if there is none) and ``Origin`` (None if there is none)."""
    if not host:
        return OriginVerdict.NONE if origin is None else OriginVerdict.FOREIGN
    place = _split_host(host)
    if place is None or not _is_trusted(place[0], allowed):
        return OriginVerdict.FOREIGN
    if origin is None:
        return OriginVerdict.NONE
    page = _split_origin(origin)
    if page is None:
        return OriginVerdict.FOREIGN
    scheme, name, port = page
    host_port = place[1] if place[1] is not None else _DEFAULT_PORTS[scheme]
    if (name, port) == (place[0], host_port) or Upstream(scheme, name, port).origin in allowed.origins:
        return OriginVerdict.OURS
    return OriginVerdict.FOREIGN


def is_change_from_elsewhere(method: str, origin: str | None, sec_fetch_site: str | None) -> bool:
    """Whether a page of another site wants to change something, and its browser left out the Origin."""
    is_said = (sec_fetch_site or "").strip().lower() in _OTHER_SITES
    return origin is None and is_said and method not in _CHANGES_NOTHING


def explain_foreign(host: str, origin: str | None, allowed: AllowedHosts) -> str:
    """One sentence for the client whose request was foreign; repeats nothing that the client sent."""
    place = _split_host(host)
    if place is None or not _is_trusted(place[0], allowed):
        return "The gateway is not known under this host name; add its address to GATEWAY_PUBLIC_URL."
    return "This request comes from a page of another site (Origin), which may not use the gateway."


def is_loopback(host: str) -> bool:
    """Whether a ``Host`` value names this machine itself."""
    place = _split_host(host)
    if place is None:
        return False
    name = place[0]
    address = _address(name)
    return name == "localhost" or name.endswith(".localhost") or (address is not None and address.is_loopback)


def _is_trusted(name: str, allowed: AllowedHosts) -> bool:
    return (
        name in allowed.names
        or "." not in name
        or _address(name) is not None
        or name.endswith(_PRIVATE_SUFFIXES)
    )


@lru_cache(maxsize=1024)
def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def _split_host(host: str) -> tuple[str, int | None] | None:
    """Name in lower case without brackets and final dot, and the port if there is one; None for no host."""
    if len(host) > _MAX_HOST_LENGTH:
        return None
    bracketed = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?", host)
    plain = bracketed or re.fullmatch(r"([^:\[\]/@]+)(?::([0-9]{1,5}))?", host)
    if plain is None:
        return None
    name = plain[1].lower().removesuffix(".")
    port = int(plain[2]) if plain[2] else None
    if port is not None and port > _MAX_PORT:
        return None
    if bracketed:
        address = _address(name)
        return None if address is None else (str(address), port)
    return (name, port) if _NAME.fullmatch(name) else None


def _split_origin(origin: str) -> tuple[str, str, int] | None:
    """Scheme, name and port of an http(s) origin; None for ``null`` and everything else."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or parts.path or parts.query or parts.fragment:
        return None
    place = _split_host(parts.netloc)
    if place is None:
        return None
    return parts.scheme, place[0], place[1] if place[1] is not None else _DEFAULT_PORTS[parts.scheme]
