"""Attempts to sign in: what was found about a credential is remembered, and whoever guesses is held up.

Checking a credential is made to be slow, so

* what was found is remembered under a keyed digest: a page that sends 500 requests has its token checked once, also
  when it sends them together;
* few are checked at one time, off the event loop, and few wait for that;
* failures are counted by address (an IPv6 one by its /64) and by name. Past the limit nothing is checked any more
  until the window is over. A credential that was right before is no guess and is not held up.

A wrong credential that is repeated counts once: a forgotten script does not lock out the office that it runs in.
"""

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from comfy_gateway.core.people.sign_in import BUSY, DIRECTORY_DOWN, PasswordsUnavailable, too_many_failures
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.requests.refusals import Refusal

AT_ONCE: Final = 2
MAX_WAITING: Final = 64
MAX_WAITING_OF_ONE_ADDRESS: Final = 8

type OffLoop = Callable[[Callable[[], bool]], Awaitable[bool]]
"""Runs a check in a thread."""


@dataclass(frozen=True, slots=True)
class AttemptLimits:
    """How many wrong credentials are heard out."""

    max_failures: int = 10
    """Of one address or for one name, within the window."""
    window_s: int = 60
    right_for_s: float | None = None
    """How long a right credential is not checked again while its stamp stays; None: as long as we run."""
    check_timeout_s: float = 15.0
    """A directory that says nothing for so long is given up."""
    max_remembered: int = 10_000
    """Right credentials, and wrong ones besides."""


@dataclass(frozen=True, slots=True)
class _Found:
    is_right: bool
    stamp: str
    at_s: float


class Attempts:
    """All attempts of one sign-in mode."""

    def __init__(
        self, *, digest: Callable[..., str], off_loop: OffLoop, clock: Clock, limits: AttemptLimits
    ) -> None:
        """``digest`` is a keyed one of the credential's parts: what is remembered is no credential."""
        self._digest = digest
        self._off_loop = off_loop
        self._clock = clock
        self._limits = limits
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._item = RateLimitItemPerSecond(limits.max_failures, limits.window_s)
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._waiting: dict[str, int] = {}
        self._under_way: dict[tuple[str, str], asyncio.Future[Refusal | None]] = {}
        self._right: OrderedDict[str, _Found] = OrderedDict()
        self._wrong: OrderedDict[str, _Found] = OrderedDict()

    async def prove(
        self,
        *credential: str,
        stamp: str,
        name: str | None,
        address: str,
        check: Callable[[], bool],
        wrong: Refusal,
    ) -> Refusal | None:
        """None for a right credential, else why not: ``wrong``, too many failures, or no answer now.

        ``stamp`` changes when what the credential is held against does. ``check`` runs in a thread and may raise
        PasswordsUnavailable. ``name`` is None where the credential names nobody.
        """
        digest = self._digest(*credential)
        known = self._known(digest, stamp)
        if known is not None:
            return None if known else wrong
        under_way = self._under_way.get((digest, stamp))
        if under_way is not None:
            return await asyncio.shield(under_way)
        answer: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        self._under_way[digest, stamp] = answer
        try:
            found = await self._wait(digest, stamp, _place(address), name, check, wrong)
            answer.set_result(found)
        finally:
            del self._under_way[digest, stamp]
            if not answer.done():  # whoever asked first has gone away
                answer.set_result(BUSY)
        return found

    def fail(self, address: str) -> None:
        """Count a failure that needed no check."""
        self._limiter.hit(self._item, "address", _place(address))

    def held_up(self, address: str) -> Refusal | None:
        """Why nobody at this address is heard now, or None."""
        return self._held_up(_place(address), None)

    async def _wait(
        self,
        digest: str,
        stamp: str,
        place: str,
        name: str | None,
        check: Callable[[], bool],
        wrong: Refusal,
    ) -> Refusal | None:
        was_right = digest in self._right
        if not was_right and (refusal := self._held_up(place, name)) is not None:
            return refusal
        if (
            sum(self._waiting.values()) >= MAX_WAITING
            or self._waiting.get(place, 0) >= MAX_WAITING_OF_ONE_ADDRESS
        ):
            return BUSY
        self._waiting[place] = self._waiting.get(place, 0) + 1
        try:
            async with self._gate:
                # Others may have failed while this one waited.
                if not was_right and (refusal := self._held_up(place, name)) is not None:
                    return refusal
                return await self._check(digest, stamp, place, name, check, wrong)
        finally:
            self._waiting[place] -= 1
            if not self._waiting[place]:
                del self._waiting[place]

    async def _check(
        self,
        digest: str,
        stamp: str,
        place: str,
        name: str | None,
        check: Callable[[], bool],
        wrong: Refusal,
    ) -> Refusal | None:
        try:
            async with asyncio.timeout(self._limits.check_timeout_s):
                is_right = await self._off_loop(check)
        except (PasswordsUnavailable, TimeoutError):
            return DIRECTORY_DOWN
        found = _Found(is_right, stamp, self._clock.monotonic())
        self._right.pop(digest, None)
        remembered = self._right if is_right else self._wrong
        remembered[digest] = found
        if len(remembered) > self._limits.max_remembered:
            remembered.popitem(last=False)
        if is_right:
            return None
        self._limiter.hit(self._item, "address", place)
        if name is not None:
            self._limiter.hit(self._item, "name", name)
        return wrong

    def _known(self, digest: str, stamp: str) -> bool | None:
        for remembered, longest_s in (
            (self._right, self._limits.right_for_s),
            (self._wrong, float(self._limits.window_s)),
        ):
            found = remembered.get(digest)
            if found is None or found.stamp != stamp:
                continue
            if longest_s is not None and self._clock.monotonic() - found.at_s > longest_s:
                continue
            remembered.move_to_end(digest)
            return found.is_right
        return None

    def _held_up(self, place: str, name: str | None) -> Refusal | None:
        keys = [("address", place)] + ([("name", name)] if name is not None else [])
        full = [key for key in keys if not self._limiter.test(self._item, *key)]
        if not full:
            return None
        ends_at_s = max(self._limiter.get_window_stats(self._item, *key).reset_time for key in full)
        # The library's windows are those of the machine's clock.
        return too_many_failures(max(1, round(ends_at_s - time.time() + 0.5)))  # noqa: TID251


def _place(address: str) -> str:
    """What counts as one address: a household or a machine has a whole /64 of IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "none"
    if found.version == 4:
        return str(found)
    return str(ipaddress.ip_network((found, 64), strict=False))
