"""The socket id that a ComfyUI server sees instead of the client's own."""

from typing import Final

from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.users import IdKind, UserId

_NOBODY: Final = UserId(IdKind.CLIENT, "")
"""An empty name is no valid one, so nobody who has a name can reach these sockets."""


def upstream_sid(keys: Keys, user: UserId | None, sid: str) -> str:
    """What goes up as ``clientId`` of a socket and as ``client_id`` of a prompt: 32 hex digits.

    Without a user the client's id is all there is: whoever says it again is the same client, as with ComfyUI
    itself.
    """
    return keys.upstream_sid(user or _NOBODY, sid)
