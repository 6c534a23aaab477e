"""Whether a pod's front door is shut: what its answer to a request without the token says.

A pod's address is public, and an open ComfyUI on it is found and used by strangers. So before a pod is used the
gateway knocks without the token, at the path that has just been healthy with it.

* 401 or 403: somebody asks for the token. Only this proves that the door is shut.
* healthy as with the token: nobody does.
* anything else (no answer, 5xx, a redirect) proves neither: knock again.
"""

from enum import StrEnum
from typing import Final

from comfy_gateway.core.ports import Health

OPEN_CAUSE: Final = "ComfyUI in the pod answers without the token: anybody could use it (POD_ALLOW_OPEN)"
_REFUSALS: Final = frozenset({401, 403})


class DoorState(StrEnum):
    """What is known of a front door."""

    SHUT = "shut"
    OPEN = "open"
    UNKNOWN = "unknown"


def judge_knock(knock: Health) -> DoorState:
    """By the answer to a probe without the token, of a server that has just been healthy with it."""
    if knock.is_healthy:
        return DoorState.OPEN
    return DoorState.SHUT if knock.status in _REFUSALS else DoorState.UNKNOWN
