"""The way in that ``AUTH_MODE`` names."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from comfy_gateway.adapters.argon2_hashes import Argon2Hashes
from comfy_gateway.adapters.lane import Lane
from comfy_gateway.adapters.sql import SqlSignOuts
from comfy_gateway.adapters.users_file import UsersFile
from comfy_gateway.core.people.callers import TrustedProxies
from comfy_gateway.core.people.identity import ALLOWED_NAMES
from comfy_gateway.core.people.session_cookie import SessionCookies
from comfy_gateway.core.people.sign_in import AuthMode, SignIn
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.hooks.callers import CallerRules
from comfy_gateway.hooks.passwords import directory_of, follow
from comfy_gateway.service.people.accounts import AccountBook
from comfy_gateway.service.people.attempts import AttemptLimits, Attempts
from comfy_gateway.service.people.sign_in_basic import BasicSignIn
from comfy_gateway.service.people.sign_in_proxy import ProxySignIn
from comfy_gateway.service.people.sign_in_tokens import TokensSignIn
from comfy_gateway.service.people.signed_in import SignedInSessions
from comfy_gateway.settings import Settings
from comfy_gateway.site.app import Part
from comfy_gateway.site.relay import Relay
from comfy_gateway.site.sign_in import SignInPages
from comfy_gateway.wiring.base import Base

BASIC_SESSION_S: Final = 3600.0
"""A directory does not say when somebody leaves."""
ASK_DIRECTORY_AGAIN_S: Final = 60.0
LANE_WIDTH: Final = 4


@dataclass(frozen=True)
class WayIn:
    """What the rest of the gateway gets."""

    sign_in: SignIn | None = None
    sessions: SignedInSessions | None = None
    pages: tuple[Part, ...] = ()
    """To sign in and out."""


def caller_rules(settings: Settings) -> CallerRules:
    """What the hooks need of the settings before a flow meets anything else."""
    access, listen = settings.access, settings.listen
    return CallerRules(
        mode=access.auth_mode,
        trusted=TrustedProxies(access.trusted_proxies),
        identity=settings.identity.rules,
        is_public_https=listen.is_public_https,
        has_tls=listen.tls_cert is not None,
    )


async def way_in(base: Base, *, relay: Relay) -> WayIn:
    """Build it and start what follows files. Raises GatewayError or OSError for what stops the start."""
    settings, keys, clock, tasks = base.settings, base.keys, base.clock, base.tasks
    access = settings.access
    match access.auth_mode:
        case AuthMode.NONE:
            return WayIn()
        case AuthMode.PROXY:
            header = settings.identity.header
            return WayIn(ProxySignIn(header=header, allowed_names=ALLOWED_NAMES, operators=access.operators))
    lane = Lane("sign-in", LANE_WIDTH)
    base.stack.callback(lane.close)
    limits = AttemptLimits(access.max_failures, access.failure_window_s)

    def dismiss(name: str) -> None:
        relay.dismiss(UserId(IdKind.NAMED, name))

    async def sessions_of(life_s: float) -> SignedInSessions:
        sessions = SignedInSessions(
            cookies=SessionCookies(keys.session_key(), access.auth_mode),
            store=SqlSignOuts(base.database),
            clock=clock,
            life_s=life_s,
        )
        sessions.on_end(dismiss)
        await sessions.load()
        tasks.start(sessions.run(), name="sign-outs")
        return sessions

    def attempts_of(limits: AttemptLimits) -> Attempts:
        return Attempts(
            digest=lambda *parts: keys.proof(access.auth_mode, *parts),
            off_loop=lambda check: _in(lane, check),
            clock=clock,
            limits=limits,
        )

    if access.auth_mode is AuthMode.TOKENS:
        book = AccountBook(UsersFile(access.users_file), clock)
        book.on_leave(dismiss)
        await book.load()
        tasks.start(book.run(), name="file of users")
        sessions = await sessions_of(access.session_s)
        tokens = TokensSignIn(
            book=book,
            hashes=await asyncio.to_thread(Argon2Hashes),
            attempts=attempts_of(limits),
            sessions=sessions,
            keys=keys,
            operators=access.operators,
        )
        return WayIn(tokens, sessions, (SignInPages(sessions, tokens.enter),))
    assert access.basic is not None, "the settings were checked"
    directory = await asyncio.to_thread(directory_of, access.basic.get_secret_value())
    tasks.start(follow(directory, clock, dismiss), name="file of passwords")
    sessions = await sessions_of(min(access.session_s, BASIC_SESSION_S))
    basic = BasicSignIn(
        passwords=directory,
        attempts=attempts_of(replace(limits, right_for_s=ASK_DIRECTORY_AGAIN_S)),
        sessions=sessions,
        keys=keys,
        operators=access.operators,
    )
    return WayIn(basic, sessions, (SignInPages(sessions, None),))


def _in(lane: Lane, check: Callable[[], bool]) -> Awaitable[bool]:
    return asyncio.wrap_future(lane.submit(check))
