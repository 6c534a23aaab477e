"""The contract between hooks and site: paths, and headers that no client can set.

Hooks remove every header of these names from what a client sends, and the site answers nobody who lacks the key,
which is made anew at each start and never leaves the process.
"""

from typing import Final

PREFIX: Final = "x-gateway-site-"

KEY: Final = "X-Gateway-Site-Key"
USER: Final = "X-Gateway-Site-User"
"""``UserId.key``; absent where nobody is known."""
PEER: Final = "X-Gateway-Site-Peer"
"""The client's IP address."""
ROLE: Final = "X-Gateway-Site-Role"
"""``core.people.roles.Role``; absent for a user."""
PROVEN: Final = "X-Gateway-Site-Proven"
"""``1`` where USER has proved who they are; absent where it is only what they say."""
SESSION: Final = "X-Gateway-Site-Session"
"""Id of the browser's session of sign-in; absent where it has none."""
HTTPS: Final = "X-Gateway-Site-Https"
"""``1`` where the browser speaks HTTPS; absent otherwise."""
OWNER: Final = "X-Gateway-Site-Owner"
"""``UserId.key`` of whose stored file is asked for: not USER where a peer was told of it, absent for nobody's."""
REFUSAL: Final = "X-Gateway-Site-Refusal"
"""Base64 of the JSON of a Refusal's fields."""
SOURCE: Final = "X-Gateway-Site-Source"
"""In an answer of the site: the ``Source`` that its substance comes from, where that is one server alone."""

RELAY_PATH: Final = "/-/relay"
REFUSAL_PATH: Final = "/-/refusal"
COMFY_PATH: Final = "/-/comfy"
"""A route of ComfyUI's own follows, without ``/api``: ``/history``, ``/queue``, ``/interrupt``, ``/jobs``."""
UPLOAD_PATH: Final = "/-/upload/"
"""``image`` or ``mask`` follows, then the query as it came. The body streams."""
OBJECT_INFO_PATH: Final = "/-/object_info"
"""``/{node class}`` may follow as it came, then the query."""
FILE_LISTS_PATH: Final = "/-/files/"
"""``input``, ``output`` or ``temp`` follows: the lists under ``/internal/files``."""
HOME_PATH: Final = "/-/home"
"""A route of ComfyUI's own follows, without ``/api``: ``/userdata…``, ``/v2/userdata``, ``/settings…``, ``/users``.
Names stay encoded as they came. The body streams."""
VAULT_PATH: Final = "/-/vault"
"""The query of ``/view`` follows; ``filename``, ``subfolder`` and ``type`` name the file as it was shown. See OWNER."""
POD_FILE_PATH: Final = "/-/pod_file"
"""As VAULT_PATH, for a file of a pod that lives: the vault answers where the pod fails."""
INPUT_PATH: Final = "/-/input"
"""As VAULT_PATH, for an upload that only the gateway still has."""
