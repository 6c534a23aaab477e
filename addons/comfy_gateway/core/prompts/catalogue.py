"""What a ComfyUI server can run: its node classes and, for each, what may be chosen.

Two servers of the same kind differ by custom nodes and by models. A catalogue answers what a prompt would miss on its
server, so that a prompt is sent where it can run.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from comfy_gateway.core.interface.object_info import Choice, NodeClass, descriptions, node_class

LONGEST_SHOWN: Final = 80


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that a server lacks."""

    kind: Literal["node", "model"]
    """A node class, or a value that a list does not have: mostly a model, sometimes a sampler of a custom node."""
    name: str
    where: str = ""
    """``Class.input`` of the list, empty for a node."""

    def __str__(self) -> str:
        """For one line of the log: the name comes from a client."""
        shown = ascii(self.name[:LONGEST_SHOWN])
        return (
            f"{self.kind} {shown} ({ascii(self.where[:LONGEST_SHOWN])[1:-1]})"
            if self.where
            else f"{self.kind} {shown}"
        )


class Catalogue:
    """The node classes of one server. Never changed after it was read."""

    def __init__(self, classes: Mapping[str, NodeClass]) -> None:
        self.classes = classes

    @classmethod
    def parse(cls, object_info: Mapping[str, Any]) -> Self:
        """From the whole ``/object_info`` as a document. Raises ValueError where it describes no node class."""
        return cls._of(object_info.items())

    @classmethod
    def read(cls, body: bytes) -> Self:
        """From the bytes of ``/object_info``: as ``parse``, in a fraction of the memory. Raises ValueError.

        Takes a good part of a second for 10 MB, so it belongs into a thread.
        """
        return cls._of(descriptions(body))

    @classmethod
    def _of(cls, described: Iterable[tuple[str, Any]]) -> Self:
        classes: dict[str, NodeClass] = {}
        shared = _Shared()
        has_inputs = False
        for name, description in described:
            if not isinstance(description, Mapping):
                raise ValueError("the answer does not describe node classes")
            has_inputs = has_inputs or "input" in description
            classes[name] = shared.one_of(node_class(description))
        if not has_inputs:
            raise ValueError("the answer does not describe node classes")
        return cls(classes)

    def __len__(self) -> int:
        """Number of node classes."""
        return len(self.classes)

    def knows(self, class_type: str) -> bool:
        """Whether there is such a node class."""
        return class_type in self.classes

    def upload_inputs(self, class_type: str) -> frozenset[str]:
        """Inputs of the class that name files which people upload, as a prompt writes them (``format.image``).

        Empty for an unknown class.
        """
        found = self.classes.get(class_type)
        return frozenset() if found is None else found.uploads

    def missing(self, document: Mapping[str, Any]) -> list[Missing]:
        """What the server lacks for a body of ``POST /prompt``, in the prompt's order and each thing once.

        Judged as ComfyUI does (0.3.64, ``execution.py::validate_prompt``): every class must exist, and the values of
        all nodes that an output needs must be in their lists. Links are no values. Lists of uploads are left out, for
        the files are brought. A body that has no graph lacks nothing; ComfyUI says what is wrong with it.
        """
        graph = document.get("prompt")
        if not isinstance(graph, Mapping):
            return []
        nodes = {id_: node for id_, node in graph.items() if isinstance(node, Mapping)}
        found = {
            Missing("node", class_type): None
            for node in nodes.values()
            if isinstance(class_type := node.get("class_type"), str) and class_type not in self.classes
        }
        for id_ in self._needed(nodes, document.get("partial_execution_targets")):
            found |= dict.fromkeys(self._missing_values(nodes[id_]))
        return list(found)

    def _needed(self, nodes: Mapping[str, Mapping[str, Any]], targets: Any) -> list[str]:
        """Ids of the nodes that an output needs, in the prompt's order. An unknown class may be an output."""
        due = [
            id_
            for id_, node in nodes.items()
            if self._may_be_output(node) and (not isinstance(targets, list) or id_ in targets)
        ]
        needed = set(due)
        while due:
            for id_ in _linked(nodes[due.pop()]):
                if id_ in nodes and id_ not in needed:
                    needed.add(id_)
                    due.append(id_)
        return [id_ for id_ in nodes if id_ in needed]

    def _may_be_output(self, node: Mapping[str, Any]) -> bool:
        class_type = node.get("class_type")
        found = self.classes.get(class_type) if isinstance(class_type, str) else None
        return found is None or found.is_output

    def _missing_values(self, node: Mapping[str, Any]) -> Iterator[Missing]:
        class_type, inputs = node.get("class_type"), node.get("inputs")
        found = self.classes.get(class_type) if isinstance(class_type, str) else None
        if found is None or not isinstance(inputs, Mapping):
            return
        for name, allowed in found.choices.items():
            for value in _values(inputs[name]) if name in inputs else ():
                if value not in allowed:
                    yield Missing("model", str(value), f"{class_type}.{name}")

    def differences(self, other: "Catalogue") -> list[Missing]:
        """What ``other`` has and this server lacks: node classes first, then models, each by name and once."""
        nodes = sorted(other.classes.keys() - self.classes.keys())
        models: dict[str, Missing] = {}
        compared: set[tuple[int, int]] = set()
        for class_type, theirs in other.classes.items():
            ours = self.classes.get(class_type)
            for name, listed in theirs.choices.items() if ours is not None else ():
                allowed = ours.choices.get(name) if ours is not None else None
                # Equal lists are one object: the list of a thousand models that fifty nodes show is compared once.
                if allowed is None or (pair := (id(listed), id(allowed))) in compared:
                    continue
                compared.add(pair)
                for value in listed - allowed:
                    models.setdefault(str(value), Missing("model", str(value), f"{class_type}.{name}"))
        return [*(Missing("node", name) for name in nodes), *(models[name] for name in sorted(models))]


class _Shared:
    """Keeps equal lists once: a server has one list of checkpoints and dozens of nodes that show it."""

    def __init__(self) -> None:
        self._lists: dict[frozenset[Choice], frozenset[Choice]] = {}
        self._classes: dict[tuple[frozenset[str], bool], NodeClass] = {}

    def one_of(self, found: NodeClass) -> NodeClass:
        """The class with lists that others have too."""
        if not found.choices:
            return self._classes.setdefault((found.uploads, found.is_output), found)
        choices = {name: self._lists.setdefault(listed, listed) for name, listed in found.choices.items()}
        return NodeClass(choices, found.uploads, found.is_output)


def _linked(node: Mapping[str, Any]) -> Iterator[str]:
    """Ids of the nodes that this one takes something from; a link is ``[id, slot]``."""
    inputs = node.get("inputs")
    for value in inputs.values() if isinstance(inputs, Mapping) else ():
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
            yield value[0]


def _values(value: Any) -> Iterator[Choice]:
    """The values that an input holds: one, several in ``{"__value__": […]}``, or none where it is a link."""
    if isinstance(value, Mapping) and "__value__" in value:
        wrapped = value["__value__"]
        yield from (one for one in (wrapped if isinstance(wrapped, list) else [wrapped]) if _is_plain(one))
    elif _is_plain(value):
        yield value


def _is_plain(value: Any) -> bool:
    return not isinstance(value, list | Mapping)
