"""Who may ask for which of the gateway's own pages, and the one record that says who asks.

* Without sign-in nobody has proved anything: the operator's pages answer this machine alone.
* With sign-in they answer operators alone, wherever they are.

Everything below ``/gateway/`` is the operator's unless it is named here: a page that somebody adds and forgets is
closed, not open.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.requests.refusals import Refusal

SIGN_IN_PATH: Final = "/gateway/signin"
SIGN_OUT_PATH: Final = "/gateway/signout"

PROBES: Final = frozenset({"/gateway/healthz", "/gateway/readyz"})
"""For load balancers and containers, also by plain HTTP where there is TLS. They tell no name and no address."""
_OPEN: Final = PROBES | {SIGN_IN_PATH}
_OPEN_WITHOUT_SIGN_IN: Final = frozenset({"/gateway/metrics"})
"""Numbers without names. With sign-in they are the operator's, since Prometheus can be given a credential."""
_PANEL: Final = "/gateway/ui/"
"""The panel's module in ComfyUI's page; the same bytes for everybody."""
OWN_PATH: Final = "/gateway/api/v1/me"
"""What people are told of their own session, and what they may do with it. It knows no other user."""
_EVERYBODYS: Final = frozenset({SIGN_OUT_PATH, OWN_PATH})

OPERATORS_ONLY: Final = Refusal(403, "operators_only", "This page is for operators.")
LOOPBACK_ONLY: Final = Refusal(
    403,
    "loopback_only",
    "This page answers on the gateway's own machine only.",
    "Nobody signs in (AUTH_MODE=none), so nobody else can be told to be an operator.",
)


class Role(StrEnum):
    """What somebody may do."""

    USER = "user"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Standing:
    """Who asks, what they may do, and whether they have proved who they are."""

    user: UserId | None = None
    """None: nobody can be told."""
    role: Role = Role.USER
    is_proven: bool = False
    """By a credential, or by the word of a trusted proxy. False: whoever they say they are."""


NOBODY: Final = Standing()


def is_open(path: str) -> bool:
    """Whether a plain path below ``/gateway/`` answers people who have not signed in."""
    return path in _OPEN or path.startswith(_PANEL)


def refuse(path: str, role: Role, *, has_sign_in: bool) -> Refusal | None:
    """Why a plain path below ``/gateway/`` does not answer this role, or None when it does."""
    is_own = path in _EVERYBODYS or path.startswith(f"{OWN_PATH}/")
    if role is Role.OPERATOR or is_own or is_open(path):
        return None
    if has_sign_in:
        return OPERATORS_ONLY
    return None if path in _OPEN_WITHOUT_SIGN_IN else LOOPBACK_ONLY
