"""The gateway's log lines of the life cycle, told to somebody who sees them for the first time."""

import re
from typing import Final

from simulators.demo.scenery import BOOT_S

_TRANSITION: Final = re.compile(
    r"RunPod session (?P<user>\S+): (?P<before>[a-z]+) -> (?P<after>[a-z]+), pod (?P<pod>\S+), "
    r"after [\d.]+ s: (?P<cause>.*)"
)
_TOLD: Final = re.compile(r"^(\[[\d:.]+\] )?(?P<text>(RunPod session|duty server|The gateway) .*)")
_STORY: Final[dict[tuple[str, str], str]] = {
    ("shared", "requested"): "{user} has sent {cause}: that is a burst, and worth a pod",
    ("requested", "creating"): "a pod for {user} is ordered at RunPod: {pod}",
    (
        "creating",
        "booting",
    ): f"{{user}}'s pod boots ({{cause}}), which takes {BOOT_S} s; until then the shared ComfyUI answers",
    ("booting", "verifying"): "ComfyUI in {user}'s pod answers; now its telemetry is asked",
    ("verifying", "ready"): "{user}'s pod answers: the next prompt of {user} goes there",
    (
        "ready",
        "draining",
    ): "{user}'s pod was {cause}: the next prompt of {user} goes to the shared ComfyUI again",
    ("draining", "terminating"): "nothing of {user} runs on the pod: it is ended",
    ("terminating", "shared"): "RunPod confirms that {user}'s pod is gone and costs nothing any more",
}


def told(line: str) -> str | None:
    """What a line of the gateway's log means, or None for one that does not belong to the story.

    A line of a life cycle that goes another way is told in the gateway's own words.
    """
    if found := _TRANSITION.search(line):
        user = found["user"].partition(":")[2] or found["user"]
        if story := _STORY.get((found["before"], found["after"])):
            return story.format(user=user, pod=found["pod"], cause=found["cause"])
    plain = _TOLD.search(line)
    return plain["text"] if plain else None


def is_reaping(line: str) -> bool:
    """Whether the line says that a pod is gone and its user on the shared ComfyUI again."""
    found = _TRANSITION.search(line)
    return found is not None and (found["before"], found["after"]) == ("terminating", "shared")
