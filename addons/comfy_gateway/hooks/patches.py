"""Replaces parts of mitmproxy for as long as the gateway runs.

What is replaced is private to mitmproxy: it is only done to the version that the tests hold the result to.
"""

from collections.abc import Callable
from typing import Any, Final

TESTED_VERSION: Final = "12.2.3"


class Patches:
    """What one hook has replaced."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def replace(self, holder: Any, name: str, value: object) -> None:
        """Give a class or module this attribute instead of its own; one that it only inherits is covered."""
        is_own = name in vars(holder)
        stock = vars(holder).get(name)
        setattr(holder, name, value)
        self._undo.append(lambda: setattr(holder, name, stock) if is_own else delattr(holder, name))

    def undo(self) -> None:
        """Put mitmproxy's own back, the last first."""
        while self._undo:
            self._undo.pop()()
