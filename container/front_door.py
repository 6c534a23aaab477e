"""Writes nginx's configuration for the front door.

    printf %s "$GATEWAY_POD_TOKEN" | python front_door.py --folder /run/pod/front_door ...

The token comes on standard input, so that no process list shows it, and goes nowhere: the file holds a fresh random
salt and the MD5 digest of salt and token, which nginx's secure_link module compares with the digest of what a request
brings.
"""

import argparse
import base64
import hashlib
import os
import re
import secrets
import string
import sys
from pathlib import Path
from typing import Final

TEMPLATE: Final = Path(__file__).with_name("front_door.conf.template")
CONFIGURATION: Final = "nginx.conf"
SALT_BYTES: Final = 32
MOST_TOKEN_BYTES: Final = 4096

REFUSALS: Final = {"guarded": "401", "open": "", "closed": "503"}
"""What a request without the right token gets, by mode; "" lets it in. `closed` refuses everybody."""

PATTERNS: Final = {
    "listen": re.compile(r"(?:[0-9.]+|\[[0-9a-fA-F:]+\]):\d{1,5}"),
    "comfyui": re.compile(r"[0-9A-Za-z.-]+:\d{1,5}"),
    "max_body": re.compile(r"\d+[kKmMgG]?"),
    "silence": re.compile(r"\d+(?:ms|s|m|h|d)?"),
}
"""What may be written into the file: nothing that could end a line or a quotation."""


class _Template(string.Template):
    """`%%{name}`, since `$name` is nginx's own."""

    delimiter = "%%"


def digest(salt: str, token: bytes) -> str:
    """What nginx expects in `secure_link`: base64url without padding."""
    # MD5 because secure_link knows no other. Nobody can choose a colliding pair without the salt.
    made = hashlib.md5(salt.encode() + token, usedforsecurity=False).digest()
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()


def render(token: bytes, mode: str, values: dict[str, str], *, as_root: bool) -> str:
    """The configuration. `values` has the names of PATTERNS.

    mode     guarded needs a token; open lets everybody in; closed nobody, whatever the token
    as_root  nginx keeps root's rights: only for tests and for a pod that cannot drop them
    Raises ValueError for a value or a token that cannot be used.
    """
    for name, pattern in PATTERNS.items():
        if not pattern.fullmatch(values[name]):
            raise ValueError(f"{name} cannot be {values[name]!r}")
    if mode == "guarded" and not re.fullmatch(rb"[\x21-\x7e]{16,%d}" % MOST_TOKEN_BYTES, token):
        raise ValueError("the token must have 16 or more printable ASCII characters and no space")
    salt = secrets.token_hex(SALT_BYTES)
    # A digest that no request can bring, where there is no token to ask for.
    expected = digest(salt, token if mode == "guarded" else secrets.token_bytes(SALT_BYTES))
    return _Template(TEMPLATE.read_text()).substitute(
        values,
        otherwise=REFUSALS[mode],
        salt=salt,
        digest=expected,
        user="user root;" if as_root else "",
    )


def write(folder: Path, text: str) -> None:
    """Only the owner may read it, from the first byte on."""
    path = folder / CONFIGURATION
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help=f"gets {CONFIGURATION}")
    parser.add_argument("--mode", choices=REFUSALS, default="guarded")
    parser.add_argument("--listen", default="0.0.0.0:8188")
    parser.add_argument("--comfyui", default="127.0.0.1:8189")
    parser.add_argument("--max-body", default="2g", help="as nginx writes sizes")
    parser.add_argument("--silence", default="24h", help="how long a socket or answer may be silent")
    parser.add_argument("--as-root", action="store_true")
    options = parser.parse_args()
    values = {name: getattr(options, name) for name in PATTERNS}
    try:
        text = render(sys.stdin.buffer.read(), options.mode, values, as_root=options.as_root)
    except ValueError as error:
        sys.stderr.write(f"front door: {error}\n")
        return 2
    write(options.folder, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
