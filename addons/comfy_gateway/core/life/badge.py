"""What the badge inside ComfyUI shows: words, made here so that the page has nothing to decide.

The page counts seconds down by itself: where ``text`` has ``{left}`` it puts the time until ``ends_in_s`` seconds after
the message came.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from comfy_gateway.core.life.own_pod import Can
from comfy_gateway.core.life.session import STARTING, State

MESSAGE: Final = "gateway.session"
"""Type of the message on the page's socket."""
WARN_BELOW_S: Final = 120.0
"""A pod that ends so soon is warned of."""

_ENDING: Final = frozenset({State.DRAINING, State.TERMINATING})
_BRANDS: Final = ("NVIDIA ", "GeForce ", "AMD ")


@dataclass(frozen=True, slots=True)
class Standing:
    """What the gateway knows of one user's session."""

    state: State
    gpu: str | None = None
    """The cloud's name of the pod's GPU type, or None while it has not said."""
    prompts_in_window: int = 0
    threshold: int | None = None
    """So many prompts within the window earn a pod; None where no pods are bought."""
    ahead: int | None = None
    """Prompts that run before this user's next one on the shared server; None when none of theirs waits there."""
    start_ends_in_s: float | None = None
    """Until half of the pods like this one were ready; None where we cannot tell."""
    idle_ends_in_s: float | None = None
    """Until an idle pod ends if nothing more is done; None while it is busy."""
    can: Can = field(default_factory=Can)


def view(standing: Standing) -> dict[str, Any]:
    """``{"state", "text", "ends_in_s": float|null, "warn_below_s": float|null, "note": str, "actions": [{"label",
    "path", "body"}]}``; ``note`` is empty where there is nothing to add.
    """
    text, ends_in_s, warn_below_s = _text(standing)
    return {
        "state": str(standing.state),
        "text": text,
        "ends_in_s": ends_in_s,
        "warn_below_s": warn_below_s,
        "note": _note(standing),
        "actions": _actions(standing.can),
    }


def toast(before: State, after: State) -> dict[str, str] | None:
    """``{"severity": "success"|"info"|"warn", "summary", "detail"}`` for a step that a person wants to hear of."""
    if after is before:
        return None
    if after is State.REQUESTED:
        return _toast("info", "A private GPU starts", "You go on here; you are moved when it is ready.")
    if after is State.READY:
        return _toast("success", "Private GPU ready", "Your prompts run there from now on.")
    if after is State.DRAINING:
        return _toast("info", "Private GPU ends", "You are back on the shared GPU. Nothing is lost.")
    if after is State.ABANDONING or (after is State.COOLING and before is not State.ABANDONING):
        return _toast("warn", "No private GPU", "It did not start. You stay on the shared GPU.")
    if after is State.TERMINATING and before in {State.READY, State.CHECKING}:
        return _toast(
            "warn", "Private GPU lost", "You are back on the shared GPU; what ran there is rescued."
        )
    return None


def short_gpu(name: str) -> str:
    """``NVIDIA GeForce RTX 4090`` as people say it: ``RTX 4090``."""
    for brand in _BRANDS:
        name = name.removeprefix(brand)
    return name


def _text(standing: Standing) -> tuple[str, float | None, float | None]:
    state = standing.state
    if state in STARTING:
        left_s = standing.start_ends_in_s
        if left_s is None:
            return "Private GPU starting", None, None
        return "Private GPU starting, about {left}", max(left_s, 0.0), None
    if state is State.READY:
        # A GPU's name comes from outside and must not be read as a place for the time.
        name = short_gpu(standing.gpu).replace("{", "").replace("}", "") if standing.gpu else "GPU"
        left_s = standing.idle_ends_in_s
        if left_s is None:
            return f"Private {name}", None, None
        return f"Private {name}, idle in {{left}}", max(left_s, 0.0), WARN_BELOW_S
    if state is State.CHECKING:
        return "Private GPU is being looked for", None, None
    if state in _ENDING:
        return "Shared GPU, the private one is ending", None, None
    if standing.ahead:
        return f"Shared GPU, {standing.ahead} ahead of you", None, None
    return "Shared GPU", None, None


def _note(standing: Standing) -> str:
    if standing.state is State.COOLING or standing.state is State.ABANDONING:
        return "the private one did not start"
    if standing.state is not State.SHARED or not standing.threshold or not standing.prompts_in_window:
        return ""
    return f"{standing.prompts_in_window} of {standing.threshold} prompts toward a private GPU"


def _actions(can: Can) -> list[dict[str, Any]]:
    me = "/gateway/api/v1/me"
    offered = [
        (can.promote, "Get a private GPU now", f"{me}/promote", {}),
        (can.keep, "Keep 30 minutes", f"{me}/keep", {"minutes": 30}),
        (can.give_back, "Give back", f"{me}/give-back", {}),
    ]
    return [{"label": label, "path": path, "body": body} for may, label, path, body in offered if may]


def _toast(severity: str, summary: str, detail: str) -> dict[str, str]:
    return {"severity": severity, "summary": summary, "detail": detail}
