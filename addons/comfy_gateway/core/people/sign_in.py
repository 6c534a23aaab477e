"""What the parts of sign-in say to one another, and the ports that adapters implement."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from comfy_gateway.core.people.accounts import Accounts
from comfy_gateway.core.people.callers import Caller
from comfy_gateway.core.people.roles import NOBODY, Standing
from comfy_gateway.core.people.session_cookie import SignedIn
from comfy_gateway.core.requests.refusals import Refusal


class AuthMode(StrEnum):
    """How people sign in."""

    NONE = "none"
    """Not at all: a user is whoever they say they are."""
    TOKENS = "tokens"
    """By a token of ours, sent as Bearer or typed into the sign-in page once."""
    BASIC = "basic"
    """By name and password, as mitmproxy's own proxyauth checks them: htpasswd or LDAP."""
    PROXY = "proxy"
    """By a trusted proxy in front, which names the user in a header."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """What sign-in found about a request."""

    standing: Standing = NOBODY
    session: SignedIn | None = None
    """The session that its cookie belongs to."""
    remember: SignedIn | None = None
    """Give the browser this session's cookie."""
    refusal: Refusal | None = None
    """Nobody was recognised, and this is why."""
    is_sent_to_page: bool = False
    """A page load may be sent to the sign-in page instead."""


BEARER: Final = 'Bearer realm="ComfyUI"'
BASIC: Final = 'Basic realm="ComfyUI", charset="UTF-8"'


def not_signed_in(challenge: str | None, details: str = "") -> Refusal:
    """Nobody said who they are. ``challenge`` tells scripts how; None where there is no such way."""
    return Refusal(401, "sign_in_required", "Sign in to use ComfyUI.", details, challenge=challenge)


def wrong_credentials(challenge: str) -> Refusal:
    """Somebody said so, and it is not true."""
    return Refusal(401, "wrong_credentials", "This token or password is not valid.", challenge=challenge)


BUSY: Final = Refusal(503, "sign_in_busy", "Too many people try to sign in at this moment.", retry_after_s=5)
DIRECTORY_DOWN: Final = Refusal(
    503, "sign_in_unavailable", "Passwords cannot be checked at this moment.", retry_after_s=15
)


def too_many_failures(retry_after_s: int) -> Refusal:
    """Somebody guesses, or has forgotten."""
    return Refusal(
        429,
        "too_many_failed_sign_ins",
        "Too many failed attempts to sign in.",
        f"Try again in {retry_after_s} seconds.",
        retry_after_s=retry_after_s,
    )


class PasswordsUnavailable(Exception):
    """Whether a password is right cannot be said at this moment: the directory does not answer."""


class TokenHashes(Protocol):
    """Argon2. Both calls take tens of milliseconds and megabytes, and belong into a thread."""

    def make(self, token: str) -> str:
        """A salted hash."""
        ...

    def verify(self, hashed: str | None, token: str) -> bool:
        """Whether the token is the one that was hashed; takes as long for None, and says no."""
        ...


class AccountFile(Protocol):
    """Where accounts are kept. All calls read the disk."""

    def version(self) -> object:
        """Changes whenever the content may have; equal while it has not."""
        ...

    def read(self) -> Accounts:
        """All accounts; none where there is no file. Raises AccountsUnreadable and OSError."""
        ...


class Passwords(Protocol):
    """Names and passwords of ``AUTH_MODE=basic``."""

    def canonical(self, name: str) -> str:
        """The one spelling of a name that the directory takes for the same person."""
        ...

    def stamp(self, name: str) -> str | None:
        """Changes with the person's password where the directory shows that, None where the person is gone.

        Answered from memory.
        """
        ...

    def check(self, name: str, password: str) -> bool:
        """Whether the password is right. Blocks. Raises PasswordsUnavailable."""
        ...


class SignOutStore(Protocol):
    """Sessions that were ended before their time. Raises StoreUnavailable."""

    async def add(self, session_id: str, until: datetime, now: datetime) -> None:
        """End a session, which would have ended by itself at ``until``. Those that have by now are forgotten."""
        ...

    async def load(self, now: datetime) -> frozenset[str]:
        """All that have not ended by themselves."""
        ...


class SignIn(Protocol):
    """One way in. What the hooks ask with every request; cheap for whoever has been here before."""

    async def recognise(self, caller: Caller) -> Recognised:
        """Who sends a request, or why it is refused."""
        ...

    def session_of(self, caller: Caller) -> Recognised:
        """Who a browser's session says it is, for pages that need no sign-in; nobody where it has none."""
        ...
