"""Free ports for programs that cannot be given port 0.

They lie below the range out of which the system serves port 0 and outgoing connections: another test that runs at
this moment would get one of those between the look and the program's start, and be taken for the program.
"""

import random
import socket
from pathlib import Path
from typing import Final

FIRST: Final = 12_000
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_END: Final = 32_768


def free_ports(count: int) -> list[int]:
    """Different ones of 127.0.0.1, that nothing is bound to at this moment."""
    end = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else _USUAL_END
    found: list[int] = []
    # Not the seeded generator: two workers would draw the same ones.
    for port in random.SystemRandom().sample(range(FIRST, end), 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"of a thousand ports from {FIRST} on none is free")


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
