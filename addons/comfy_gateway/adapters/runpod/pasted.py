"""What may be pasted into the text of a GraphQL query.

The SDK writes values between double quotes and escapes nothing: a quote ends the string and can begin a
second mutation, a backslash or a line break changes the value or breaks the query. Everything that goes into
a call is therefore checked here first, against the smallest set of characters that RunPod's own values need.
Nothing is escaped or encoded instead: escapes would be doubled by an SDK that speaks REST, and a foreign
image would not decode base64. A value that cannot pass belongs into a RunPod secret, whose reference passes
(``{{ RUNPOD_SECRET_name }}``).

Every function raises ValueError, which names what was checked and never repeats an env value.
"""

import re
from collections.abc import Mapping
from typing import Final

MAX_ENV_ENTRIES: Final = 50
"""RunPod's own bound."""
MAX_TEXT_LENGTH: Final = 16_384

_SHAPES: Final[dict[str, re.Pattern[str]]] = {
    "pod name": re.compile(r"[a-z0-9-]{1,191}"),
    "pod id": re.compile(r"[A-Za-z0-9_-]{1,64}"),
    "GPU type id": re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+/()-]{0,99}"),
    "cloud type": re.compile(r"SECURE|COMMUNITY|ALL"),
    "data centre id": re.compile(r"[A-Za-z0-9-]{1,40}"),
    "country code": re.compile(r"[A-Z]{2}"),
    "image name": re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,511}"),
    "template id": re.compile(r"[A-Za-z0-9_-]{1,64}"),
    "network volume id": re.compile(r"[A-Za-z0-9_-]{1,64}"),
    "mount path": re.compile(r"/[A-Za-z0-9._/-]{0,254}"),
    "ports": re.compile(r"[0-9]{1,5}/(http|tcp)(,[0-9]{1,5}/(http|tcp))*"),
    "CUDA version": re.compile(r"[0-9]{1,2}\.[0-9]{1,2}"),
}
_ENV_NAME: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")


def checked(kind: str, value: object) -> str:
    """``value`` if it is a text of that kind (a key of the table above)."""
    if isinstance(value, str) and _SHAPES[kind].fullmatch(value):
        return value
    raise ValueError(f"{value!r:.100} is no {kind} that can be sent")


def checked_count(what: str, value: object, *, minimum: int = 0) -> int:
    """``value`` if it is a whole number of at least ``minimum``."""
    if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= 1_000_000:
        return value
    raise ValueError(f"{what} has to be a whole number of at least {minimum}, not {value!r:.100}")


def checked_text(what: str, value: object) -> str:
    """``value`` if it is printable text without a double quote or a backslash; errors do not repeat it."""
    if not isinstance(value, str) or len(value) > MAX_TEXT_LENGTH:
        raise ValueError(f"the value of {what} has to be a text of at most {MAX_TEXT_LENGTH} characters")
    if not value.isprintable() or '"' in value or "\\" in value:
        raise ValueError(
            f"the value of {what} cannot be sent to RunPod: it holds a double quote, a backslash, a line "
            "break or another character that is not printable; put it into a RunPod secret and refer to that"
        )
    return value


def checked_env(env: Mapping[str, str]) -> dict[str, str]:
    """A copy of ``env`` if all its names and values can be pasted."""
    return {name: checked_text(name, value) for name, value in with_checked_names(env).items()}


def with_checked_names(env: Mapping[str, str]) -> dict[str, str]:
    """A copy of ``env`` if its names are names, and RunPod takes as many."""
    if len(env) > MAX_ENV_ENTRIES:
        raise ValueError(f"{len(env)} environment variables are more than RunPod's {MAX_ENV_ENTRIES}")
    for name in env:
        if not isinstance(name, str) or not _ENV_NAME.fullmatch(name):
            raise ValueError(
                f"{name!r:.100} is no name of an environment variable: A-Z, 0-9 and _, no digit in front"
            )
    return dict(env)
