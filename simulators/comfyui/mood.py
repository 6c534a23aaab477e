"""What a test may make the server do that a healthy ComfyUI would not."""

import asyncio
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

DeadBy = Literal["502", "close"]
PAUSE_POLL_S = 0.01
"""How often what stands still looks whether it may go on."""


@dataclass
class Mood:
    """Changed live: by assignment in a test, or by `POST /_sim/mood`.

    step_s    seconds that a node takes for each of its steps; 0 works at once
    delay_s   seconds before any answer begins, the socket's handshake included
    paused    work stands still: the running node does not end until this is false again
    wedged    the node that runs hangs for good: nothing interrupts it, and the next prompts wait behind it
    mute      as a stopped process: connections are taken, nothing is answered, open sockets say nothing
    dead      no request is answered; sockets that are open stay open (see ComfySimulator.drop_sockets)
    dead_by   how: "502" as a proxy before a stopped pod does, "close" cuts the connection without a byte
    lying     GET /queue, /history, /object_info and /prompt answer 200 with JSON of the wrong shape, as a
              stranger on our port would
    forgetful a prompt is accepted and never heard of again
    """

    step_s: float = 0.0
    delay_s: float = 0.0
    paused: bool = False
    wedged: bool = False
    mute: bool = False
    dead: bool = False
    dead_by: DeadBy = "502"
    lying: bool = False
    forgetful: bool = False

    async def until_heard(self) -> None:
        """Returns at once unless the server is mute, else when it no longer is."""
        while self.mute:  # noqa: ASYNC110 - a mood is changed by mere assignment
            await asyncio.sleep(PAUSE_POLL_S)

    def change(self, wishes: dict[str, Any]) -> None:
        """Sets the named moods, or none of them: raises ValueError for an unknown name or a wrong value."""
        accepted: dict[str, Any] = {}
        known = {field.name for field in fields(self)}
        for name, value in wishes.items():
            if name not in known:
                raise ValueError(f"there is no mood {name!r}; known: {', '.join(sorted(known))}")
            accepted[name] = _checked(name, value)
        for name, value in accepted.items():
            setattr(self, name, value)


def _checked(name: str, value: Any) -> Any:
    if name == "dead_by":
        if value not in get_args(DeadBy):
            raise ValueError(f"{name} is one of {', '.join(get_args(DeadBy))}, not {value!r}")
        return value
    if name.endswith("_s"):
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ValueError(f"{name} is a number of seconds, not {value!r}")
        return float(value)
    if not isinstance(value, bool):
        raise ValueError(f"{name} is true or false, not {value!r}")
    return value
