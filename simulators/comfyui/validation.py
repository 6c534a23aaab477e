"""Whether a prompt can run, told in the shapes of ComfyUI's answer 400."""

from dataclasses import dataclass, field
from typing import Any

from simulators.comfyui.folders import Folders
from simulators.comfyui.nodes import NODE_CLASSES, InputSpec

type Fault = dict[str, Any]
"""{type, message, details, extra_info}"""

_BROKEN_GRAPH = (LookupError, TypeError, AttributeError, RecursionError)


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


def validate(prompt: dict[str, Any], targets: list[str] | None, folders: Folders) -> Verdict:
    """`targets` limits the outputs to these node ids (partial execution)."""
    outputs = []
    for node_id, node in prompt.items():
        if "class_type" not in node:
            message = "Cannot execute because a node is missing the class_type property."
            return Verdict(fault("invalid_prompt", message, f"Node ID '#{node_id}'"))
        node_class = NODE_CLASSES.get(node["class_type"])
        if node_class is None:
            message = f"Cannot execute because node {node['class_type']} does not exist."
            return Verdict(fault("invalid_prompt", message, f"Node ID '#{node_id}'"))
        if node_class.is_output and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return Verdict(fault("prompt_no_outputs", "Prompt has no outputs"))
    return _Validation(prompt, folders).of(outputs)


class _Validation:
    def __init__(self, prompt: dict[str, Any], folders: Folders) -> None:
        self._prompt = prompt
        self._folders = folders
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
        node_class = NODE_CLASSES[node["class_type"]]
        faults: list[Fault] = []
        valid = True
        for group, specs in node_class.inputs(self._folders).items():
            for name, spec in specs.items():
                if name not in inputs:
                    if group == "required":
                        faults.append(
                            fault(
                                "required_input_missing", "Required input is missing", name, input_name=name
                            )
                        )
                elif isinstance(inputs[name], list):
                    valid = self._check_link(name, inputs[name], spec, faults) and valid
                else:
                    inputs[name] = _checked_value(
                        name, inputs[name], spec, faults, name != node_class.checked_input
                    )
        checked = node_class.checked_input
        if checked is not None and checked in inputs and not isinstance(inputs[checked], list):
            complaint = node_class.fault(self._folders, inputs[checked])
            if complaint is not None:
                message = "Custom validation failed for node"
                faults.append(
                    fault("custom_validation_failed", message, f"{checked} - {complaint}", input_name=checked)
                )
        self._faults[node_id] = faults
        self._valid[node_id] = valid and not faults
        return self._valid[node_id]

    def _check_link(self, name: str, link: list[Any], spec: InputSpec, faults: list[Fault]) -> bool:
        given = {"input_name": name, "input_config": spec}
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            faults.append(fault("bad_linked_input", message, name, **given, received_value=link))
            return False
        source, slot = link
        received = NODE_CLASSES[self._prompt[source]["class_type"]].returns[slot]
        if received != spec[0]:
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


def _checked_value(name: str, value: Any, spec: InputSpec, faults: list[Fault], within_limits: bool) -> Any:
    """The value in the input's own type. Adds to faults where it has none or lies outside the limits."""
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
    if not within_limits:
        return value
    if "min" in options and value < options["min"]:
        message = f"Value {value} smaller than min of {options['min']}"
        faults.append(fault("value_smaller_than_min", message, name, **given))
    elif "max" in options and value > options["max"]:
        message = f"Value {value} bigger than max of {options['max']}"
        faults.append(fault("value_bigger_than_max", message, name, **given))
    elif isinstance(kind, list) and value not in kind:
        faults.append(
            fault("value_not_in_list", "Value not in list", f"{name}: '{value}' not in {kind}", **given)
        )
    return value


def _exception(kind: str, doing: str, error: Exception, **extra_info: Any) -> Fault:
    told = {"exception_type": type(error).__qualname__, "traceback": []}
    return fault(kind, f"Exception when {doing}", str(error), **told, **extra_info)
