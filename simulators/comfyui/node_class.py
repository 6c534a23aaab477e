"""What a node class is, and what its nodes may ask of the server while they run."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from simulators.comfyui.folders import Folders

type Images = list[Image.Image]
type Inputs = dict[str, Any]
type InputSpec = tuple[str | list[str], dict[str, Any]]
type InputSpecs = Mapping[str, Mapping[str, InputSpec]]
"""By "required" and "optional", then by name: a type such as "INT" or a list of choices, and the options."""


class Shelves(Protocol):
    """What the lists of choices are made of."""

    @property
    def folders(self) -> Folders: ...

    def models(self, folder: str) -> list[str]:
        """Names of the models in this model folder."""


class Work(Protocol):
    """What a node may ask of the server while it runs.

    server    the server's name
    metadata  what a saved picture carries: the prompt and extra_pnginfo
    """

    server: str
    folders: Folders
    metadata: Mapping[str, Any]

    @property
    def temp_prefix(self) -> str:
        """Appended to the names of temporary pictures; random for each node (nodes.py:1620)."""

    async def step(self, least_s: float = 0.0) -> None:
        """Takes the time of one step, or least_s where that is longer. Raises Interrupted."""

    def progress(self, value: float, maximum: float, preview: Image.Image | None = None) -> None:
        """Tells the prompt's owner how far the node is."""


@dataclass(frozen=True)
class Result:
    """`outputs` in the order of the class's `returns`; `ui` is what `executed` and history show, or None."""

    outputs: tuple[Any, ...] = ()
    ui: dict[str, Any] | None = None


@dataclass(frozen=True)
class NodeClass:
    """`fault` says what is wrong with the checked input (ComfyUI's VALIDATE_INPUTS), or None.

    A new `fingerprint` makes a node run again although its inputs look the same (IS_CHANGED); None where the
    class has none. It may raise, and the node runs each time then. `more` is added to /object_info's entry.
    """

    name: str
    category: str
    inputs: Callable[[Shelves], InputSpecs]
    returns: tuple[str, ...]
    run: Callable[[Work, Inputs], Awaitable[Result]]
    is_output: bool = False
    display_name: str | None = None
    description: str = ""
    checked_input: str | None = None
    fault: Callable[[Folders, Any], str | None] = lambda folders, value: None
    fingerprint: Callable[[Folders, Inputs], Any] | None = None
    hidden: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


def fixed(
    required: Mapping[str, InputSpec], optional: Mapping[str, InputSpec] | None = None
) -> Callable[[Shelves], InputSpecs]:
    """Inputs that are the same whatever lies on the shelves."""
    specs = {"required": required} | ({"optional": optional} if optional else {})
    return lambda shelves: specs


def is_link(value: Any) -> bool:
    """Whether an input's value is `[node_id, slot]`, the output of another node."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
    )


IMAGE: InputSpec = ("IMAGE", {})
