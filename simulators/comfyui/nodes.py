"""The node classes that a server knows: those of ComfyUI that need no model, and some of our own for tests."""

from collections.abc import Mapping
from typing import Any

from simulators.comfyui import image_nodes, loading_nodes, model_nodes, saving_nodes, sim_nodes
from simulators.comfyui.folders import Folders
from simulators.comfyui.installation import Installation
from simulators.comfyui.node_class import InputSpec, InputSpecs, NodeClass

NODE_CLASSES: Mapping[str, NodeClass] = {
    node_class.name: node_class
    for module in (image_nodes, loading_nodes, saving_nodes, model_nodes, sim_nodes)
    for node_class in module.CLASSES
}


class Nodes:
    """What is installed on one server, and how it describes that.

    Raises ValueError for a class to be left out that nobody knows: a test that means one would not be one.
    """

    def __init__(self, installation: Installation, folders: Folders) -> None:
        if unknown := installation.without - NODE_CLASSES.keys():
            raise ValueError(f"no node classes: {', '.join(sorted(unknown))}")
        self.installation = installation
        self.folders = folders
        self.classes: Mapping[str, NodeClass] = {
            name: node_class for name, node_class in NODE_CLASSES.items() if name not in installation.without
        }

    def models(self, folder: str) -> list[str]:
        return sorted(self.installation.models.get(folder, ()))

    def inputs(self, node_class: NodeClass) -> InputSpecs:
        """Of this moment: lists of files change with the files."""
        specs = node_class.inputs(self)
        if not self.installation.combo_objects:
            return specs
        return {
            group: {name: _as_object(spec) for name, spec in named.items()} for group, named in specs.items()
        }

    def described(self, node_class: NodeClass) -> dict[str, Any]:
        """The entry of /object_info (server.py:590)."""
        hidden = {"hidden": dict(node_class.hidden)} if node_class.hidden else {}
        specs: dict[str, Any] = {**self.inputs(node_class), **hidden}
        nothing = [False] * len(node_class.returns)
        newer = {"is_input_list": False, "has_intermediate_output": False, "search_aliases": []}
        return {
            "input": specs,
            "input_order": {group: list(names) for group, names in specs.items()},
            "output": list(node_class.returns),
            "output_is_list": nothing,
            "output_name": list(node_class.returns),
            "name": node_class.name,
            "display_name": node_class.display_name or node_class.name,
            "description": node_class.description,
            "python_module": "nodes",
            "category": node_class.category,
            "output_node": node_class.is_output,
            **node_class.more,
            **(newer if self.installation.newer else {}),
        }


def _as_object(spec: InputSpec) -> InputSpec:
    kind, options = spec
    return ("COMBO", {"multiselect": False, "options": kind, **options}) if isinstance(kind, list) else spec
