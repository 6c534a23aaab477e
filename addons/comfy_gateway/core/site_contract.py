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
REFUSAL: Final = "X-Gateway-Site-Refusal"
"""Base64 of the JSON of a Refusal's fields."""

RELAY_PATH: Final = "/-/relay"
REFUSAL_PATH: Final = "/-/refusal"
HISTORY_PATH: Final = "/-/history/"
