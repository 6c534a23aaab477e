"""Secrets derived from the gateway's one master secret, so that none of them has to be stored.

Every derived value is HMAC-SHA256 over a purpose and a context. A restart with the same master secret finds the
same values again: the tokens of pods that are still alive, the socket ids of pages that are still open.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field

from comfy_gateway.core.people.users import UserId

MASTER_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Keys:
    """Derives tokens and ids from the master secret (at least 32 bytes)."""

    master: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.master) < MASTER_SECRET_BYTES:
            raise ValueError(f"the master secret needs at least {MASTER_SECRET_BYTES} bytes")

    def pod_token(self, pod_name: str) -> str:
        """What the pod's front door asks for (``X-Comfy-Gateway-Token``): 64 hex digits."""
        return self._derive("pod", pod_name)

    def agent_token(self, pod_name: str) -> str:
        """What the pod's agent asks for (``Authorization: Bearer``): 64 hex digits."""
        return self._derive("agent", pod_name)

    def upstream_sid(self, user: UserId, sid: str) -> str:
        """The socket id that a ComfyUI server sees for a client's ``clientId``: 32 hex digits.

        Two users who name the same ``clientId`` get different sockets, and nobody can guess another's.
        """
        return self._derive("sid", user.key, sid)[:32]

    def cookie_key(self) -> str:
        """Signing key of the identity cookie."""
        return self._derive("cookie")

    def session_key(self) -> str:
        """Signing key of the cookie of people who have signed in."""
        return self._derive("session")

    def seal(self, mode: str, name: str, stamp: str) -> str:
        """What a session is bound to: 32 hex digits that change with ``stamp``, say a password's hash."""
        return self._derive("seal", mode, name, stamp)[:32]

    def proof(self, mode: str, *credential: str) -> str:
        """A credential as it is remembered while the gateway runs: nobody gets it back from that."""
        return self._derive("proof", mode, *credential)

    def space(self, user_key: str | None) -> str:
        """Folder of a user's own inputs and home on a shared server: ``user-`` and 26 letters of base32."""
        digest = bytes.fromhex(self._derive("space", *(() if user_key is None else (user_key,))))
        return "user-" + base64.b32encode(digest[:17]).decode().lower()[:26]

    def slug_suffix(self, user: UserId) -> str:
        """Eight hex digits that tell users apart in pod names without saying who they are."""
        return self._derive("slug", user.key)[:8]

    def _derive(self, purpose: str, *context: str) -> str:
        # A socket id is whatever a client sent, also what is no proper text.
        parts = [text.encode(errors="surrogatepass") for text in (purpose, *context)]
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.new(self.master, message, hashlib.sha256).hexdigest()
