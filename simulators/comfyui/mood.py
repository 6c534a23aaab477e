"""What a test may make the server do that a healthy ComfyUI would not."""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

DeadBy = Literal["502", "close"]


@dataclass
class Mood:
    """Changed live: by assignment in a test, or by `POST /_sim/mood`.

    step_s    seconds that a node takes for each of its steps; 0 works at once
    delay_s   seconds before any answer begins, the socket's handshake included
    paused    work stands still: the running node does not end until this is false again
    dead      no request is answered; sockets that are open stay open (see ComfySimulator.drop_sockets)
    dead_by   how: "502" as a proxy before a stopped pod does, "close" cuts the connection without a byte
    lying     GET /queue answers 200 with JSON of the wrong shape, as a stranger on our port would
    """

    step_s: float = 0.0
    delay_s: float = 0.0
    paused: bool = False
    dead: bool = False
    dead_by: DeadBy = "502"
    lying: bool = False

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
