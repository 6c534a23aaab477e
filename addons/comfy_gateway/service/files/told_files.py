"""Whose files a peer was last told of: the only key of a script that asks without any name."""

from collections import OrderedDict
from typing import Final

from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.ports import Clock

MAX_TOLD: Final = 20_000
TOLD_FOR_S: Final = 3600.0


class ToldFiles:
    """Files by the names under which they were shown to a peer (an IP address), and whose they are."""

    def __init__(self, clock: Clock, max_told: int = MAX_TOLD) -> None:
        self._clock = clock
        self._max_told = max_told
        self._told: OrderedDict[tuple[str, FileName], tuple[str, float]] = OrderedDict()

    def note(self, peer: str, file: FileName, user_key: str) -> None:
        """The peer has just read this name in an answer or an event about that user's prompt."""
        self._told[peer, file] = (user_key, self._clock.monotonic())
        self._told.move_to_end((peer, file))
        while len(self._told) > self._max_told:
            self._told.popitem(last=False)

    def owner(self, peer: str, file: FileName) -> str | None:
        """Key of the user whose file the peer means, or None when it was not told of it lately."""
        told = self._told.get((peer, file))
        if told is None or self._clock.monotonic() - told[1] > TOLD_FOR_S:
            return None
        return told[0]
