"""Where a browser goes after it has signed in: a path of ours, whatever the address says."""

import re
from typing import Final

from comfy_gateway.core.people.roles import SIGN_IN_PATH, SIGN_OUT_PATH

MAX_LENGTH: Final = 2000

# Browsers read a backslash as a slash and leave out tabs and line ends: "//host", "/\host" and "/<tab>/host" all
# name another host. What is left here can only be a path.
_LOCAL: Final = re.compile(r"/(?!/)[!-\[\]-~]*")
_POINTLESS: Final = (SIGN_IN_PATH, SIGN_OUT_PATH)


def safe_return(path: str | None) -> str:
    """The path (with its query) if a browser that is sent there stays with us, else ``/``."""
    if not path or len(path) > MAX_LENGTH or not _LOCAL.fullmatch(path):
        return "/"
    return "/" if path.partition("?")[0] in _POINTLESS else path
