"""Which backend answers which class of request (the last table of the design)."""

from typing import Final

from comfy_gateway.core.requests.classify import RequestClass
from comfy_gateway.core.requests.upstream import Backend

AT_HOME: Final = frozenset({RequestClass.HOME, RequestClass.INTERFACE})
"""Always the first duty server: there is one copy of everybody's files and one front-end version."""

IS_TRANSFER: Final = frozenset({RequestClass.PROMPT, RequestClass.RESULTS, RequestClass.INPUTS})
"""Requests that are work while they are in flight; polling and pages are not."""


def choose(
    request_class: RequestClass,
    *,
    home: Backend,
    current: Backend,
    owner: Backend | None = None,
) -> Backend:
    """The backend for one request.

    ``current`` is where the user's new work goes; ``owner`` is the server that has the file which the request names,
    or None.
    """
    if request_class in AT_HOME:
        return home
    if owner is not None:
        return owner
    return current
