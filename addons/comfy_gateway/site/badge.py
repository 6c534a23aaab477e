"""The badge inside ComfyUI: its module, the page that says it has loaded it, and the news that it is told."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from aiohttp import web

from comfy_gateway.core.events import frames
from comfy_gateway.core.interface.extension_list import BADGE_MODULE
from comfy_gateway.core.life import badge
from comfy_gateway.core.life.badge import Standing
from comfy_gateway.core.life.session import Event, Session
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.prompts.prompts import PromptRecord
from comfy_gateway.site.asker import Asker, told
from comfy_gateway.site.relay import Relay

ADDRESS: Final = "/gateway/api/v1/me/badge"
ROUND_S: Final = 0.5
"""News of so long is told in one message."""
ROUNDS_UNASKED: Final = 20
"""After so many rounds without news it is looked all the same: prompts leave the window with time alone."""
DRIFT_S: Final = 2.0
"""The page counts down by itself; an end that has moved by less is not told."""

_MODULE: Final = (Path(__file__).parent / "ui" / "extension.js").read_bytes()
_TAG: Final = hashlib.sha256(_MODULE).hexdigest()[:32]


class _Shown(NamedTuple):
    view: dict[str, Any]
    """Without its seconds."""
    ends_at_s: float | None
    """Monotonic."""


class Badge:
    """``run`` tells pages what has changed for them."""

    def __init__(self, *, relay: Relay, standing_of: Callable[[UserId], Standing], clock: Clock) -> None:
        self._relay = relay
        self._standing_of = standing_of
        self._clock = clock
        self._shown: dict[UserId, _Shown] = {}
        """What the pages of each user were told last."""
        self._toasts: dict[UserId, dict[str, str]] = {}
        self._has_news = False

    def routes(self) -> list[web.RouteDef]:
        """The module, and where a page says that it has loaded it."""
        return [web.get(BADGE_MODULE, self.module), web.post(ADDRESS, self.introduce)]

    async def module(self, request: web.Request) -> web.StreamResponse:
        """The extension, or 304 for who has it."""
        headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        known = request.if_none_match or ()
        if any(tag.value in {_TAG, "*"} for tag in known):
            answer = web.Response(status=304, headers=headers)
        else:
            answer = web.Response(
                body=_MODULE, content_type="text/javascript", charset="utf-8", headers=headers
            )
        answer.etag = _TAG
        return answer

    async def introduce(self, request: web.Request) -> web.StreamResponse:
        """``{"badge": view | null, "is_heard": bool}``: from now on the page's socket is told, if it is the asker's.

        ``badge`` is null for somebody unknown, who has no session.
        """
        user = Asker.of(request).user
        if user is None:
            return told({"badge": None, "is_heard": False})
        is_heard = self._relay.mark_page(user, request.query.get("clientId", ""))
        shown = badge.view(self._standing_of(user))
        if is_heard:
            # Their other pages may have been told something older.
            self._shown.pop(user, None)
            self._has_news = True
        return told({"badge": shown, "is_heard": is_heard})

    def session_moved(self, before: Session, after: Session, _event: Event) -> None:
        """To be called after each transition."""
        toast = badge.toast(before.state, after.state)
        if toast is not None and after.user in self._shown:
            self._toasts[after.user] = toast
        self._has_news = True

    def prompt_changed(self, _record: PromptRecord) -> None:
        """To be called when a prompt was accepted, moved, begun or ended: others may have fewer ahead of them."""
        self._has_news = True

    async def run(self) -> None:
        """For ever."""
        quiet_rounds = 0
        while True:
            await self._clock.sleep(ROUND_S)
            quiet_rounds += 1
            if self._has_news or quiet_rounds >= ROUNDS_UNASKED:
                self._has_news, quiet_rounds = False, 0
                self._tell_all()

    def _tell_all(self) -> None:
        users = self._relay.page_users()
        for gone in self._shown.keys() - users:
            del self._shown[gone]
        for gone in self._toasts.keys() - users:
            del self._toasts[gone]
        for user in users:
            shown = badge.view(self._standing_of(user))
            toast = self._toasts.pop(user, None)
            if toast is not None or self._is_news(user, shown):
                self._relay.tell_pages(user, frames.write(badge.MESSAGE, shown | {"toast": toast}))

    def _is_news(self, user: UserId, shown: dict[str, Any]) -> bool:
        ends_in_s = shown["ends_in_s"]
        ends_at_s = None if ends_in_s is None else self._clock.monotonic() + ends_in_s
        before, now = self._shown.get(user), _Shown(shown | {"ends_in_s": None}, ends_at_s)
        if before is not None and before.view == now.view and _is_near(before.ends_at_s, ends_at_s):
            return False
        self._shown[user] = now
        return True


def _is_near(told_s: float | None, now_s: float | None) -> bool:
    if told_s is None or now_s is None:
        return told_s == now_s
    return abs(told_s - now_s) < DRIFT_S
