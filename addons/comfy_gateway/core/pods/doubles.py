"""Which of several pods that bear the name of one order is kept: the same one, whoever looks at whichever list."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from comfy_gateway.core.ports import CloudPod

_UNKNOWN_AGE: Final = datetime.max.replace(tzinfo=UTC)
"""Counts as the youngest."""


def kept(same_name: Iterable[CloudPod]) -> CloudPod:
    """The oldest, by its id where the cloud does not say. There must be one."""
    return min(same_name, key=lambda pod: (pod.created_at or _UNKNOWN_AGE, pod.id))
