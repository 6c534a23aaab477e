"""What a failure of the SDK means, and what may be said about it.

The SDK's exceptions carry the query (the pod's env in it), and those of ``requests`` the request with the
Authorization header. None of them leaves this package: a new exception is made from the scrubbed message.

| the SDK raises                                     | after a create               | after anything else |
|----------------------------------------------------|------------------------------|---------------------|
| AuthenticationError, "Unauthorized" in the message | CloudUnauthorized            | CloudUnauthorized   |
| a known capacity text                              | CapacityRefused              | CloudUnavailable    |
| no money, or a query that GraphQL does not execute | CloudRefused                 | CloudUnavailable    |
| any other message to the queries before the create | CloudRefused                 | -                   |
| "No GPU found"                                     | CloudRefused                 | CloudUnavailable    |
| anything else, whatever it is                      | CloudUnavailable             | CloudUnavailable    |

The last row is wide on purpose: RunPod has answered 500 and made the pod all the same.
"""

import re
from collections.abc import Collection
from typing import Any, Final

from comfy_gateway.core.errors import (
    CapacityRefused,
    CloudError,
    CloudRefused,
    CloudUnauthorized,
    CloudUnavailable,
)

CAPACITY_TEXTS: Final = (
    "no longer any instances available",
    "no instances currently available",
    "does not have the resources to deploy your pod",
    "not enough free gpus",
)
UNAUTHORIZED: Final = re.compile(r"\b(unauthorized|not authorized|unauthenticated|invalid api key)\b")
_NO_MONEY: Final = re.compile(r"\b(balance|insufficient (funds|credits?)|spend(ing)? (limit|cap))\b")
_NOT_EXECUTED: Final = re.compile(
    r"^(syntax error|cannot query field|unknown (argument|type)|expected (value of )?type)\b"
)
MAX_REASON_LENGTH: Final = 200
MIN_SECRET_LENGTH: Final = 4


def meaning_of(error: BaseException, *, sdk: Any, is_create: bool, secrets: Collection[str]) -> CloudError:
    """The exception of ours that says what this one of the SDK means; not raised, and not linked to it.

    ``secrets`` must not appear in its text.
    """
    if isinstance(error, sdk.error.AuthenticationError):
        return CloudUnauthorized("RunPod refuses the API key")
    if isinstance(error, sdk.error.QueryError):
        return _meaning_of_message(
            str(error.message), query=str(error.query), is_create=is_create, secrets=secrets
        )
    if is_create and type(error) is ValueError and str(error).startswith("No GPU found"):
        return CloudRefused("RunPod knows no GPU type of that id")
    return CloudUnavailable(f"RunPod gave no usable answer ({type(error).__name__})")


def _meaning_of_message(message: str, *, query: str, is_create: bool, secrets: Collection[str]) -> CloudError:
    plain = " ".join(message.lower().split())
    reason = f"RunPod says: {scrubbed(message, secrets)}"
    if UNAUTHORIZED.search(plain):
        return CloudUnauthorized(reason)
    if is_create:
        if any(text in plain for text in CAPACITY_TEXTS):
            return CapacityRefused(reason)
        is_before_the_mutation = not query.lstrip().startswith("mutation")
        if is_before_the_mutation or _NO_MONEY.search(plain) or _NOT_EXECUTED.search(plain):
            return CloudRefused(reason)
    return CloudUnavailable(reason)


def scrubbed(message: str, secrets: Collection[str]) -> str:
    """The message on one line, bounded, without ``secrets``, quoted parts or anything that looks like a key.

    GraphQL quotes the query in its complaints, so whatever it quotes may be ours.
    """
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= MIN_SECRET_LENGTH:
            message = message.replace(secret, "***")
    message = re.sub(r'"[^"]*("|$)', '"…"', message)
    message = re.sub(r"[A-Za-z0-9_+/=-]{24,}", "***", message)
    message = "".join(letter if letter.isprintable() else " " for letter in message)
    return " ".join(message.split())[:MAX_REASON_LENGTH]
