"""What shared servers are called, so that nothing changes its meaning when their list in the settings does.

A server is its address. Its place in the list says only whether it is home.
"""

import hashlib
from typing import Final

from comfy_gateway.core.requests.upstream import Upstream

_ID_CHARACTERS: Final = 16
_ALIAS_CHARACTERS: Final = 8
"""Addresses of files bear it, so it can never change."""


def id_of(upstream: Upstream) -> str:
    """What the ledger calls the server."""
    return f"duty-{_mark_of(upstream)[:_ID_CHARACTERS]}"


def alias_of(upstream: Upstream) -> str:
    """First subfolder of the server's files in what clients see, unless its files are shown without one."""
    return f"server-{_mark_of(upstream)[:_ALIAS_CHARACTERS]}"


def id_by_position(position: int) -> str:
    """What earlier versions called the server that stood there in the list."""
    return f"duty-{position}"


def _mark_of(upstream: Upstream) -> str:
    return hashlib.sha256(upstream.url("/").encode()).hexdigest()
