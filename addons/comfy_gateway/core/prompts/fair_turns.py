"""Whose turn it is on a shared server: start-time fair queueing over users.

ComfyUI runs the waiting prompt with the lowest ``number`` first, so a fair order needs no queue of our own. A turn is
one prompt, however long it runs. *Virtual time* is the tag of the prompt that was begun last; a user's next prompt is
tagged with it or, where that is later, with the end of the user's last turn, and a turn lasts ``1 / weight``.
Who comes new is therefore next after those whose turn it is, and who has queued twenty waits for the others after each.

The number of a prompt is its tag, moved by a hair where two users have the same: first come, first served. A waiting
prompt cannot be given another number, so one that goes ahead of its user's own is squeezed in just before them and the
tags of those behind move on by one turn: whoever comes later finds the user's share used up. Others who already wait
behind are delayed by it, at most by ``MOST_AHEAD`` prompts of one user; further ones take the usual place.

A prompt that reaches ComfyUI without the gateway is numbered by its counter. So that the two can be compared, the first
prompt after a pause is left to the counter, and time goes on from what it says: who comes past the gateway is treated
about as one more user who was there since.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

STEP: Final = 2.0**-14
"""Between the numbers of equal tags."""
MOST_AHEAD: Final = 2


@dataclass(slots=True)
class _Turn:
    prompt_id: str
    user: str
    rank: float
    tag: float
    number: float
    ahead: int = 0
    """Prompts of the same user that were squeezed in before it while others waited behind it."""


class FairTurns:
    """The turns of one server."""

    def __init__(self, weight_of: Callable[[str], float] = lambda _user: 1.0) -> None:
        """``weight_of(user)`` is more than 0; twice the weight has twice the turns."""
        self._weight_of = weight_of
        self._now = 0.0
        """Virtual time."""
        self._start = 0.0
        """Where it begins after a pause: at the server's own counter, as far as that is known."""
        self._waiting: dict[str, _Turn] = {}
        self._own: dict[str, list[_Turn]] = {}
        """By user, in the order of their turns."""
        self._running: dict[str, _Turn] = {}
        self._used_until: dict[str, float] = {}
        """By user: the end of the last turn that was used."""

    def __contains__(self, prompt_id: str) -> bool:
        return prompt_id in self._waiting or prompt_id in self._running

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)

    def count(self, user: str) -> int:
        """Prompts of this user that run or wait."""
        return len(self._own.get(user, ())) + sum(turn.user == user for turn in self._running.values())

    def found(self, prompt_id: str, user: str, rank: float, number: float, *, is_running: bool) -> None:
        """A prompt is in the server's queue already, under that number."""
        turn = _Turn(prompt_id, user, rank, number, number)
        self._waiting[prompt_id] = turn
        own = self._own.setdefault(user, [])
        own.append(turn)
        own.sort(key=lambda one: one.number)
        if is_running:
            self.begun(prompt_id)
            self._now = number
        elif not self._running:
            self._now = min(one.tag for one in self._waiting.values())

    def place(self, prompt_id: str, user: str, rank: float, *, is_late: bool = False) -> float:
        """The number for a prompt that comes now. ``rank`` orders it among the user's own, as plain ComfyUI would.

        ``is_late``: it had its place before, and gets it again whoever waits behind.
        """
        own = self._own.setdefault(user, [])
        turn_s = 1.0 / self._weight_of(user)
        place = next((place for place, turn in enumerate(own) if turn.rank > rank), len(own))
        if place < len(own) and not is_late and not self._may_go_before(own[place:]):
            place = len(own)
        behind = own[place:]
        if behind:
            tag = behind[0].tag
            number = self._between(self._last_before(behind[0]), behind[0].number, behind[0].number)
        else:
            tag = max(self._now, self._end_of(user, turn_s))
            number = self._number_of(tag, own[-1].number if own else None)
        turn = _Turn(prompt_id, user, rank, tag, number)
        own.insert(place, turn)
        self._waiting[prompt_id] = turn
        for one in behind:
            tag = one.tag = max(one.tag, tag + turn_s)
        return number

    def number_of(self, prompt_id: str) -> float | None:
        """The number by which the server orders it; None for one that is not there."""
        turn = self._waiting.get(prompt_id) or self._running.get(prompt_id)
        return None if turn is None else turn.number

    def is_alone(self, prompt_id: str) -> bool:
        """Whether nothing else of ours is there, so that the server may number it itself."""
        return len(self) == 1 and prompt_id in self

    def answered(self, prompt_id: str, number: float) -> None:
        """The server has numbered this one by its counter."""
        self._start = number + 1
        turn = self._waiting.get(prompt_id) or self._running.get(prompt_id)
        if turn is not None and self.is_alone(prompt_id):
            turn.tag = turn.number = self._now = number
            if prompt_id in self._running:
                self._used_until[turn.user] = number + 1.0 / self._weight_of(turn.user)

    def begun(self, prompt_id: str) -> None:
        """The server has begun to run it: time moves on to its turn."""
        turn = self._waiting.pop(prompt_id, None)
        if turn is not None:
            self._take_out(turn)
            self._running[prompt_id] = turn
            self._now = max(self._now, turn.tag)
            end = turn.tag + 1.0 / self._weight_of(turn.user)
            self._used_until[turn.user] = max(self._used_until.get(turn.user, end), end)

    def gone(self, prompt_id: str, *, was_run: bool = False) -> None:
        """It has ended, was taken out, or was not accepted. ``was_run``: even if nobody said that it began.

        When nothing is left all begin anew.
        """
        if was_run:
            self.begun(prompt_id)
        turn = self._waiting.pop(prompt_id, None)
        if turn is not None:
            self._take_out(turn)
        self._running.pop(prompt_id, None)
        if not self._waiting and not self._running:
            self._now = self._start
            self._used_until.clear()

    def _take_out(self, turn: _Turn) -> None:
        own = self._own[turn.user]
        own.remove(turn)
        if not own:
            del self._own[turn.user]

    def _end_of(self, user: str, turn_s: float) -> float:
        own = self._own[user]
        return own[-1].tag + turn_s if own else self._used_until.get(user, self._now)

    def _may_go_before(self, behind: list[_Turn]) -> bool:
        """Whether these may be pushed back by one more; says yes only once for each."""
        others = [turn.number for turn in self._waiting.values() if turn.user != behind[0].user]
        delaying = [turn for turn in behind if any(number > turn.number for number in others)]
        if any(turn.ahead >= MOST_AHEAD for turn in delaying):
            return False
        for turn in delaying:
            turn.ahead += 1
        return True

    def _number_of(self, tag: float, own_last: float | None) -> float:
        """Behind all whose tags are not later and behind the user's own, before the next."""
        earlier = [turn.number for turn in self._waiting.values() if turn.tag <= tag]
        if own_last is not None:
            earlier.append(own_last)
        lower = max(earlier, default=None)
        later = [turn.number for turn in self._waiting.values() if lower is None or turn.number > lower]
        return self._between(lower, min(later, default=None), tag)

    def _last_before(self, turn: _Turn) -> float | None:
        return max((one.number for one in self._waiting.values() if one.number < turn.number), default=None)

    @staticmethod
    def _between(lower: float | None, upper: float | None, wanted: float) -> float:
        """``wanted`` where it is between the two, else a number near to the bound that it has passed."""
        room = STEP if lower is None or upper is None else min(STEP, (upper - lower) / 2)
        if lower is not None and wanted <= lower:
            return lower + room
        if upper is not None and wanted >= upper:
            return upper - room
        return wanted
