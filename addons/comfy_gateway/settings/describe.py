"""Settings in words: for faults and for docs/configuration.md."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from annotated_types import Ge, Gt, Le

from comfy_gateway.settings.model import WEEK_S, Variable, variables

NONE = "\N{EN DASH}"

_HEAD = """\
# Configuration

<!-- Made from the settings model by `python -m comfy_gateway.settings --markdown`; a test compares. -->

A setting is looked for in the environment, then in `.env` in the project's folder, then in the YAML or JSON
file that `RUNPOD_CONFIG_PATH` names (there by its name in lower case, with or without `runpod_`), and has
its default otherwise. A blank value counts as not set; a blank `RUNPOD_API_KEY` says "no private pods",
whatever weaker sources say. Relative paths are below the project's folder, not below the current one.
`.env` knows quotes and `#` comments, and leaves `${NAME}` as it is. An old `runpod.config.json` can be
named by `RUNPOD_CONFIG_PATH` as it is.

A wrong value stops the start with exit code 2 and one line for each fault. A misspelt name is only warned
about. `python -m comfy_gateway.settings --check` (with `addons` as the module path) does the same check and
nothing else.

Inside a RunPod pod RunPod itself sets `RUNPOD_API_KEY` (a key that may only touch that pod) and
`RUNPOD_GPU_COUNT`: to run the gateway in a pod, set both by hand.
"""

_TAIL = """\
## Only in the file

| name | meaning |
|---|---|
| `routes` | Path patterns and who answers them (below). |
| `pod_env` | Names and values of further environment variables of pods, like `POD_ENV_<NAME>`. |

`routes` sends paths of custom nodes elsewhere than to the user's current server. It maps patterns to
classes: `compute`, `inputs` and `other` are answered by the user's current server, `home` and `interface`
by the first duty server (`interface` also for requests that say nobody's name). `*` also matches slashes,
paths are compared without `/api`, the first match counts. Prompts, the socket, queue, history, `/view` and
`/gateway/` cannot be taken over.
"""


def allowed_text(variable: Variable) -> str:
    """What is allowed, in words that follow "allowed is"."""
    if variable.var.allowed:
        return variable.var.allowed
    kind = variable.field.annotation
    if kind is bool:
        return "1, true, yes, on, 0, false, no or off"
    noun = "a whole number" if kind is int or kind == int | None else "a number"
    return f"{noun} {_range(variable.field.metadata)}"


def markdown() -> str:
    """The page docs/configuration.md."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield _HEAD
    for group, members in groupby(variables().values(), key=lambda variable: variable.group):
        yield f"## {group}\n"
        yield "| name | default | allowed | meaning |"
        yield "|---|---|---|---|"
        for variable in members:
            cells = (
                f"`{variable.name}`",
                default_text(variable),
                allowed_text(variable),
                (variable.field.description or "").replace("\n", " "),
            )
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        yield ""
    yield _TAIL


def default_text(variable: Variable) -> str:
    """The default as one would write it, a dash for none."""
    if variable.var.default_text:
        return variable.var.default_text
    if variable.field.is_required():
        return f"{NONE} (required)"
    default = variable.field.get_default(call_default_factory=True)
    if default is None or default in ((), {}):
        return NONE
    if isinstance(default, bool):
        return "1" if default else "0"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _range(metadata: list[Any]) -> str:
    low = next((mark.ge for mark in metadata if isinstance(mark, Ge)), None)
    above = next((mark.gt for mark in metadata if isinstance(mark, Gt)), None)
    high = next((mark.le for mark in metadata if isinstance(mark, Le)), None)
    top = f"{WEEK_S} (a week)" if high == WEEK_S else f"{high}"
    return f"from {low} to {top}" if above is None else f"above {above}, up to {top}"
