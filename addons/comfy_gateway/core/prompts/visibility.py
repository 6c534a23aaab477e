"""Who may see and touch which prompt. Every such decision of the gateway stands here.

What is on a private pod, or in the vault, is its user's alone, always. ``ISOLATION`` says how far people are kept apart
on the shared servers (docs/isolation.md):

* ``off``: as with a plain ComfyUI everybody sees, deletes and interrupts everybody's prompts there;
* ``actions``: everybody sees them, and nobody touches another's;
* ``full``: nobody sees another's either; in the queue it stands as an anonymous place.

``asker`` is ``UserId.key`` or None for nobody known. An ``Owner`` is the same, or UNCLAIMED where the gateway does not
know the prompt: it was put into ComfyUI past the gateway. On a shared server such a prompt is nobody's, neither theirs
who say no name nor an operator's; on a pod it is the pod's user's, and callers say so.

A prompt's own id is a key to it for those who say no name at all, as long as nobody signs in: the usual script asks on
new connections without one. It opens nothing that the lists show to everybody anyway.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, Literal

from comfy_gateway.core.requests.upstream import Source


class Isolation(StrEnum):
    """How far users are kept apart on the shared servers."""

    OFF = "off"
    ACTIONS = "actions"
    FULL = "full"


class Unclaimed(Enum):
    """The one value that is no user and not nobody."""

    UNCLAIMED = "unclaimed"


UNCLAIMED: Final = Unclaimed.UNCLAIMED

type Owner = str | Literal[Unclaimed.UNCLAIMED] | None


@dataclass(frozen=True, slots=True)
class Visibility:
    """The decisions of one gateway."""

    isolation: Isolation = Isolation.OFF
    has_sign_in: bool = False
    """Whether people prove who they are."""

    @property
    def hides_others(self) -> bool:
        """Whether what others have on the shared servers is hidden: their prompts, pictures and uploads."""
        return self.isolation is Isolation.FULL

    @property
    def guards_others(self) -> bool:
        """Whether nobody may stop, clear, delete or overwrite what others have on the shared servers."""
        return self.isolation is not Isolation.OFF

    def is_listed(self, asker: str | None, owner: Owner, source: Source) -> bool:
        """Whether a prompt on a server of that kind stands with all it holds in the lists that ``asker`` reads."""
        return is_own(asker, owner) or (source is Source.DUTY and not self.hides_others)

    def has_place(self, asker: str | None, owner: Owner, source: Source) -> bool:
        """Whether a prompt that is not listed takes an anonymous place in the asker's queue."""
        return source is Source.DUTY and not self.is_listed(asker, owner, source)

    def opens_by_id(self, asker: str | None, owner: Owner, source: Source) -> bool:
        """Whether ``asker``, who knows the prompt's id, may read it."""
        return self.is_listed(asker, owner, source) or self._id_is_key(asker, owner)

    def may_touch(self, asker: str | None, owner: Owner, source: Source) -> bool:
        """Whether ``asker`` may stop it, take it out of the queue or delete it from the history, by its id."""
        if is_own(asker, owner):
            return True
        if source is Source.DUTY and self.isolation is not Isolation.FULL:
            # Its id is no secret there: everybody's queue shows it.
            return self.isolation is Isolation.OFF
        return self._id_is_key(asker, owner)

    def _id_is_key(self, asker: str | None, owner: Owner) -> bool:
        return asker is None and not self.has_sign_in and owner is not UNCLAIMED


OPEN: Final = Visibility()


def is_own(asker: str | None, owner: Owner) -> bool:
    """Whether what the gateway keeps of ``owner`` is for ``asker``. Those who say no name are one."""
    return asker == owner
