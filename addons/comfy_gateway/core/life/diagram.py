"""The table of ``core.life.session`` as a Mermaid diagram: ``python -m comfy_gateway.core.life.diagram``.

docs/session.md holds what this prints, and a test compares the two.
"""

import sys

from comfy_gateway.core.life.session import ROUTED, TRANSITIONS, State


def diagram() -> str:
    """The ``stateDiagram-v2`` of the whole table, one line for each row and a newline at the end.

    Rows come in the order of the table. A state that no row leads to is where a restart of the gateway puts sessions.
    """
    lines = ["stateDiagram-v2", f"    [*] --> {State.SHARED}"]
    reached = set(TRANSITIONS.values())
    lines += [f"    [*] --> {state}: restart of the gateway" for state in State if state not in reached]
    lines += [f"    {before} --> {after}: {event}" for (before, event), after in TRANSITIONS.items()]
    lines += [
        f"    note right of {state} : new traffic goes to the pod" for state in State if state in ROUTED
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(diagram())
