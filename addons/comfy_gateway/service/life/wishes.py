"""Which profile of pods the last prompt of each user has asked for."""

import logging
from collections import OrderedDict
from typing import Final

from comfy_gateway.core.money.profiles import Profiles
from comfy_gateway.core.people.users import UserId

logger = logging.getLogger(__name__)

MOST_USERS: Final = 100_000


class Wishes:
    """Kept in memory: after a restart a user's next prompt says it again."""

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles
        self._by_user: OrderedDict[UserId, str] = OrderedDict()

    def note(self, user: UserId, wish: str | None) -> None:
        """A prompt was accepted that asks for this profile, or for none."""
        before = self._by_user.pop(user, None)
        if wish is None or not self._profiles.named:
            return
        self._by_user[user] = wish
        while len(self._by_user) > MOST_USERS:
            self._by_user.popitem(last=False)
        if wish != before and self._profiles.of(user, wish).name != wish:
            logger.warning("RunPod session %s: profile %r is not theirs or is none", user.key, wish)

    def of(self, user: UserId) -> str | None:
        """The wish, or None."""
        return self._by_user.get(user)
