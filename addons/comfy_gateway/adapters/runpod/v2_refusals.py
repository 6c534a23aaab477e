"""What a refusal of v2 means, and what may be said about it.

Only RunPod's own refusals (``application/problem+json``: a title, the status again, a detail) decide anything. A page
or some other JSON may come from whatever stands in between.

| v2 answers                                       | to a create      | to anything else                         |
|--------------------------------------------------|------------------|------------------------------------------|
| 401, whatever the body; 403 that names the key   | CloudUnauthorized| CloudUnauthorized                        |
| any other 403                                    | CloudRefused     | CloudUnauthorized                        |
| a known capacity text, with whichever status     | CapacityRefused  | CloudUnavailable                         |
| 400, 402, 404, 409, 422                          | CloudRefused     | CloudUnavailable, CloudRefused for a 409 |
| 400 "something went wrong", 410, 429, 5xx        | CloudUnavailable | CloudUnavailable                         |

A 404 for a pod is no refusal: see ``v2_cloud``.
"""

from collections.abc import Collection
from typing import Final

from comfy_gateway.adapters.runpod.refusals import CAPACITY_TEXTS, UNAUTHORIZED, scrubbed
from comfy_gateway.adapters.runpod.v2_calls import Reply
from comfy_gateway.core.errors import (
    CapacityRefused,
    CloudError,
    CloudRefused,
    CloudUnauthorized,
    CloudUnavailable,
)

_DEFINITE: Final = frozenset({400, 402, 404, 409, 422})
_AMBIGUOUS: Final = "something went wrong"


def meaning_of(reply: Reply, *, is_create: bool, secrets: Collection[str]) -> CloudError:
    """The exception that says what this answer means; ``secrets`` do not appear in its text."""
    if reply.status == 401:
        return CloudUnauthorized("RunPod refuses the API key")
    if reply.detail is None:
        return CloudUnavailable(f"RunPod gave no usable answer ({reply.status})")
    plain = " ".join(reply.detail.lower().split())
    reason = f"RunPod says: {scrubbed(reply.detail, secrets)}"
    if reply.status == 403:
        names_the_key = UNAUTHORIZED.search(plain) is not None
        return CloudUnauthorized(reason) if names_the_key or not is_create else CloudRefused(reason)
    if is_create:
        if any(text in plain for text in CAPACITY_TEXTS):
            return CapacityRefused(reason)
        if reply.status in _DEFINITE and _AMBIGUOUS not in plain:
            return CloudRefused(reason)
    elif reply.status == 409:
        return CloudRefused(reason)
    return CloudUnavailable(reason)
