"""Names of our pods: ``<tag>-<slug>-<attempt>``, and how to tell them from everybody else's.

An account may hold pods of other people and of gateways with other tags. A pod is ours only if its whole
name has this shape with exactly this tag; slug and attempt hold no hyphen, so the tag ``comfy-gw`` can never
take a pod of ``comfy-gw-eu`` for its own, nor the other way round.
"""

import re
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Final

from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.users import UserId

MAX_NAME_LENGTH: Final = 191
"""RunPod's own bound on pod names."""
MAX_TAG_LENGTH: Final = 64
MAX_READABLE_LENGTH: Final = 20
MAX_ATTEMPT_LENGTH: Final = 64

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_TAG: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_ATTEMPT: Final = re.compile(r"[a-z0-9]+")
_TIME_DIGITS: Final = 9
"""Milliseconds since 1970 in base 36 keep this width until the year 5188, so text order is time order."""
_RANDOM_DIGITS: Final = 4


class PodNames:
    """Makes and recognises the pod names of one tag.

    Raises ValueError for a tag that is not lower-case letters, digits and single hyphens between them.
    """

    def __init__(self, tag: str, keys: Keys) -> None:
        if len(tag) > MAX_TAG_LENGTH or not _TAG.fullmatch(tag):
            raise ValueError(
                f"{tag!r} is no pod name tag: up to {MAX_TAG_LENGTH} characters, a-z and 0-9 "
                "with single hyphens between them"
            )
        self._tag = tag
        self._keys = keys
        self._ours = re.compile(rf"{re.escape(tag)}-[a-z0-9]+-[a-z0-9]+")

    def make(self, user: UserId, attempt: str) -> str:
        """The name of this attempt's pod: at most 191 characters of a-z, 0-9 and hyphen.

        The slug is up to 20 readable letters of the user's name and a keyed hash of the user, which keeps
        users with the same letters apart. Raises ValueError for an attempt that is not 1-64 characters of
        a-z and 0-9.
        """
        if len(attempt) > MAX_ATTEMPT_LENGTH or not _ATTEMPT.fullmatch(attempt):
            raise ValueError(f"{attempt!r} is no attempt: up to {MAX_ATTEMPT_LENGTH} of a-z and 0-9")
        readable = re.sub(r"[^a-z0-9]", "", user.name.lower())[:MAX_READABLE_LENGTH]
        return f"{self._tag}-{readable}{self._keys.slug_suffix(user)}-{attempt}"

    def is_ours(self, name: str) -> bool:
        """Whether a pod of this name may be ended by us."""
        return len(name) <= MAX_NAME_LENGTH and self._ours.fullmatch(name) is not None


def new_attempt(now: datetime, choose: Callable[[str], str] = secrets.choice) -> str:
    """A name for one attempt: its time in base 36, then four random digits. Later attempts sort later.

    ``choose`` picks one character of a text; ``now`` is aware.
    """
    milliseconds = int(now.timestamp() * 1000)
    time = ""
    for _ in range(_TIME_DIGITS):
        milliseconds, digit = divmod(milliseconds, len(_DIGITS))
        time = _DIGITS[digit] + time
    return time + "".join(choose(_DIGITS) for _ in range(_RANDOM_DIGITS))
