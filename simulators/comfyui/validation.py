"""Whether a prompt can run, told in the shapes of ComfyUI's answer 400 (execution.py:724 and :940)."""

import traceback
from dataclasses import dataclass, field
from typing import Any

from simulators.comfyui.node_class import InputSpec, NodeClass
from simulators.comfyui.nodes import Nodes

type Fault = dict[str, Any]
"""{type, message, details, extra_info}"""

_BROKEN_GRAPH = (LookupError, TypeError, AttributeError, RecursionError)
MOST_CHOICES_SHOWN = 20


@dataclass(frozen=True)
class Verdict:
    """`outputs` are the ids of the output nodes that can run; `error` is None when there is at least one.
    `node_errors` may name others that cannot, also in an answer 200."""

    error: Fault | None
    outputs: list[str] = field(default_factory=list)
    node_errors: dict[str, Any] = field(default_factory=dict)


def fault(kind: str, message: str, details: str = "", **extra_info: Any) -> Fault:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


NO_PROMPT = fault("no_prompt", "No prompt provided", "No prompt provided")


def validate(prompt: dict[str, Any], targets: list[str] | None, nodes: Nodes) -> Verdict:
    """`targets` limits the outputs to these node ids (partial execution). Numbers in the prompt that came as
    text become numbers, as in ComfyUI. Reads folders."""
    outputs = []
    for node_id in prompt:  # noqa: PLC0206 - an empty list is a prompt without outputs
        node = prompt[node_id]
        node_class = nodes.classes.get(node["class_type"]) if "class_type" in node else None
        if node_class is None:
            return Verdict(_unknown_class(node_id, node, newer=nodes.installation.newer))
        if node_class.is_output and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return Verdict(fault("prompt_no_outputs", "Prompt has no outputs"))
    return _Validation(prompt, nodes).of(outputs)


def _unknown_class(node_id: str, node: dict[str, Any], *, newer: bool) -> Fault:
    """execution.py:943 and :953; newer cores tell node, class and title apart."""
    details = f"Node ID '#{node_id}'"
    name = node.get("class_type")
    if not newer and "class_type" not in node:
        message = "Cannot execute because a node is missing the class_type property."
        return fault("invalid_prompt", message, details)
    if not newer:
        return fault("invalid_prompt", f"Cannot execute because node {name} does not exist.", details)
    title = node.get("_meta", {}).get("title", name)
    message = f"Node '{title}' not found. The custom node may not be installed."
    if "class_type" not in node:
        shown = title or f"ID #{node_id}"
        message = (
            f"Node '{shown}' has no class_type. The workflow may be corrupted or a custom node is missing."
        )
    return fault("missing_node_type", message, details, node_id=node_id, class_type=name, node_title=title)


class _Validation:
    def __init__(self, prompt: dict[str, Any], nodes: Nodes) -> None:
        self._prompt = prompt
        self._nodes = nodes
        self._faults: dict[str, list[Fault]] = {}
        self._valid: dict[str, bool] = {}

    def of(self, outputs: list[str]) -> Verdict:
        good, lines = [], []
        node_errors: dict[str, Any] = {}
        for output in outputs:
            try:
                valid = self._check(output)
            except _BROKEN_GRAPH as broken:
                valid = self._valid[output] = False
                self._faults[output] = [_exception("exception_during_validation", "validating node", broken)]
            if valid:
                good.append(output)
                continue
            lines += [f"{reason['message']}: {reason['details']}" for reason in self._faults[output]]
            for node_id, reasons in self._faults.items():
                if reasons:
                    entry = node_errors.setdefault(
                        node_id,
                        {
                            "errors": reasons,
                            "dependent_outputs": [],
                            "class_type": self._prompt[node_id]["class_type"],
                        },
                    )
                    entry["dependent_outputs"].append(output)
        if good:
            return Verdict(None, good, node_errors)
        error = fault(
            "prompt_outputs_failed_validation", "Prompt outputs failed validation", "\n".join(lines)
        )
        return Verdict(error, [], node_errors)

    def _check(self, node_id: str) -> bool:
        """Whether the node and all before it can run. Only the faulty get faults, not their followers."""
        if node_id in self._valid:
            return self._valid[node_id]
        node = self._prompt[node_id]
        inputs = node["inputs"]
        node_class = self._nodes.classes[node["class_type"]]
        faults: list[Fault] = []
        valid = True
        for group, specs in self._nodes.inputs(node_class).items():
            for name, spec in specs.items():
                if name not in inputs:
                    if group == "required":
                        message = "Required input is missing"
                        faults.append(fault("required_input_missing", message, name, input_name=name))
                elif isinstance(inputs[name], list):
                    valid = self._check_link(name, inputs[name], spec, faults) and valid
                else:
                    is_checked = name == node_class.checked_input
                    inputs[name] = self._checked_value(
                        name, inputs[name], spec, faults, is_checked=is_checked
                    )
        faults += self._checked_by_itself(node_class, inputs)
        self._faults[node_id] = faults
        self._valid[node_id] = valid and not faults
        return self._valid[node_id]

    def _checked_by_itself(self, node_class: NodeClass, inputs: dict[str, Any]) -> list[Fault]:
        """What the class's own VALIDATE_INPUTS says (execution.py:884).

        As there, the function raises where its input is missing or a link, and that is told in place of
        everything else about this node.
        """
        name = node_class.checked_input
        if name is None:
            return []
        if name not in inputs:
            called = f"{node_class.name}.VALIDATE_INPUTS()"
            raise TypeError(f"{called} missing 1 required positional argument: '{name}'")
        if not isinstance(inputs[name], str):  # a link has no value yet
            kind = "NoneType" if isinstance(inputs[name], list) else type(inputs[name]).__name__
            raise AttributeError(f"'{kind}' object has no attribute 'endswith'")
        complaint = node_class.fault(self._nodes.folders, inputs[name])
        if complaint is None:
            return []
        message = "Custom validation failed for node"
        return [fault("custom_validation_failed", message, f"{name} - {complaint}", input_name=name)]

    def _check_link(self, name: str, link: list[Any], spec: InputSpec, faults: list[Fault]) -> bool:
        given = {"input_name": name, "input_config": spec}
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            faults.append(fault("bad_linked_input", message, name, **given, received_value=link))
            return False
        source, slot = link
        received = self._nodes.classes[self._prompt[source]["class_type"]].returns[slot]
        if not _fits(received, spec[0]):
            details = f"{name}, received_type({received}) mismatch input_type({spec[0]})"
            message = "Return type mismatch between linked nodes"
            faults.append(
                fault(
                    "return_type_mismatch",
                    message,
                    details,
                    **given,
                    received_type=received,
                    linked_node=link,
                )
            )
            return False
        try:
            return self._check(source)
        except _BROKEN_GRAPH as error:
            self._valid[source] = False
            self._faults[source] = [
                _exception(
                    "exception_during_inner_validation",
                    "validating inner node",
                    error,
                    **given,
                    exception_message=str(error),
                    linked_node=link,
                )
            ]
            return False

    def _checked_value(
        self, name: str, value: Any, spec: InputSpec, faults: list[Fault], *, is_checked: bool
    ) -> Any:
        """The value in the input's own type. Adds to faults where it has none or is not allowed.

        is_checked  the class looks at this value itself, and nobody else does
        """
        kind, options = spec
        if isinstance(value, dict) and "__value__" in value:
            value = value["__value__"]
        given = {"input_name": name, "input_config": spec, "received_value": value}
        converter = (
            {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}.get(kind)
            if isinstance(kind, str)
            else None
        )
        if converter is not None:
            try:
                value = converter(value)
            except (TypeError, ValueError) as error:
                message = f"Failed to convert an input value to a {kind} value"
                details = f"{name}, {value}, {error}"
                faults.append(
                    fault("invalid_input_type", message, details, **given, exception_message=str(error))
                )
                return value
        if is_checked:
            return value
        if "min" in options and value < options["min"]:
            message = f"Value {value} smaller than min of {options['min']}"
            faults.append(fault("value_smaller_than_min", message, name, **given))
        elif "max" in options and value > options["max"]:
            message = f"Value {value} bigger than max of {options['max']}"
            faults.append(fault("value_bigger_than_max", message, name, **given))
        else:
            faults += self._not_among_choices(name, value, spec)
        return value

    def _not_among_choices(self, name: str, value: Any, spec: InputSpec) -> list[Fault]:
        """execution.py:858. 0.3.64 does not look into the choices of the newer form."""
        kind, options = spec
        choices = kind if isinstance(kind, list) else None
        if self._nodes.installation.newer and kind == "COMBO":
            choices = options.get("options", [])
        if choices is None or value in choices:
            return []
        many = len(choices) > MOST_CHOICES_SHOWN
        shown = f"(list of length {len(choices)})" if many else str(choices)
        given = {"input_name": name, "input_config": None if many else spec, "received_value": value}
        quoted = repr(value) if self._nodes.installation.newer else f"'{value}'"
        return [fault("value_not_in_list", "Value not in list", f"{name}: {quoted} not in {shown}", **given)]


def _fits(received: str, wanted: str | list[str]) -> bool:
    """Whether an output of a type may go into an input; "A,B" is either (comfy_execution/validation.py)."""
    if received == wanted:
        return True
    return isinstance(wanted, str) and bool(_words(received) & _words(wanted))


def _words(types: str) -> set[str]:
    return {word.strip() for word in types.split(",")}


def _exception(kind: str, doing: str, error: Exception, **extra_info: Any) -> Fault:
    told = {
        "exception_type": type(error).__qualname__,
        "traceback": traceback.format_tb(error.__traceback__),
    }
    return fault(kind, f"Exception when {doing}", str(error), **told, **extra_info)
