"""What the sockets and the history hear of one prompt.

Who hears what: with a client_id only its socket. Without one nobody hears of start, nodes and end, but
progress, previews and the interruption go to everybody.
"""

import time
import traceback
from typing import Any

from PIL import Image

from simulators.comfyui.prompt_queue import Item
from simulators.comfyui.sockets import Sockets


class Narration:
    def __init__(self, sockets: Sockets, item: Item) -> None:
        self._sockets = sockets
        self._item = item
        self._progress: dict[str, dict[str, Any]] = {}
        self.messages: list[tuple[str, dict[str, Any]]] = []
        """Of the prompt as a whole, as the history keeps them."""
        self.executed: list[str] = []

    def started(self) -> None:
        self._tell("execution_start", {})

    def cached(self, node_ids: list[str]) -> None:
        self._tell("execution_cached", {"nodes": node_ids})

    def succeeded(self) -> None:
        self._tell("execution_success", {})

    def interrupted(self, node_id: str) -> None:
        self._tell("execution_interrupted", self._stopped_at(node_id), broadcast=True)

    def failed(self, node_id: str, inputs: dict[str, Any], error: Exception) -> None:
        module, name = type(error).__module__, type(error).__qualname__
        told = {
            **self._stopped_at(node_id),
            "exception_message": f"{error}\n",
            "exception_type": name if module == "builtins" else f"{module}.{name}",
            "traceback": traceback.format_tb(error.__traceback__),
            "current_inputs": {name: [_shown(value)] for name, value in inputs.items()},
            "current_outputs": list(self._item.prompt),
        }
        self._tell("execution_error", told)

    def ended(self) -> None:
        """The very last message, after the history has the prompt."""
        if self._item.client_id is not None:
            data = {"node": None, "prompt_id": self._item.prompt_id}
            self._sockets.publish("executing", data, self._item.client_id)

    def node_started(self, node_id: str) -> None:
        self._set_progress(node_id, "running", 0.0, 1.0)
        self._tell_node("executing", node_id)

    def node_advanced(self, node_id: str, value: float, maximum: float, preview: Image.Image | None) -> None:
        """The preview goes out before or after `progress`, by the form that the client understands."""
        sid = self._item.client_id
        modern = self._sockets.supports_preview_metadata(sid)
        self._set_progress(node_id, "running", value, maximum)
        if preview is not None and modern:
            self._sockets.publish_preview(preview, self._named(node_id), sid)
        told = {"value": value, "max": maximum, "prompt_id": self._item.prompt_id, "node": node_id}
        self._sockets.publish("progress", told, sid)
        if preview is not None and not modern:
            self._sockets.publish_preview(preview, self._named(node_id), sid)

    def node_finished(self, node_id: str, ui: dict[str, Any] | None) -> None:
        if ui:
            self._tell_node("executed", node_id, output=ui)
        self._finish_progress(node_id)
        self.executed.append(node_id)

    def node_was_cached(self, node_id: str, ui: dict[str, Any] | None) -> None:
        """`executed` names the file of the earlier run; its output is null for a node that shows nothing."""
        self._tell_node("executed", node_id, output=ui)
        self._finish_progress(node_id)

    def _tell(self, kind: str, data: dict[str, Any], *, broadcast: bool = False) -> None:
        told = {"prompt_id": self._item.prompt_id, **data, "timestamp": time.time_ns() // 1_000_000}
        self.messages.append((kind, told))
        if self._item.client_id is not None or broadcast:
            self._sockets.publish(kind, told, self._item.client_id)

    def _tell_node(self, kind: str, node_id: str, **data: Any) -> None:
        if self._item.client_id is not None:
            told = {"node": node_id, "display_node": node_id, **data, "prompt_id": self._item.prompt_id}
            self._sockets.publish(kind, told, self._item.client_id)

    def _stopped_at(self, node_id: str) -> dict[str, Any]:
        node_type = self._item.prompt[node_id]["class_type"]
        return {"node_id": node_id, "node_type": node_type, "executed": list(self.executed)}

    def _set_progress(self, node_id: str, state: str, value: float, maximum: float) -> None:
        self._progress[node_id] = {"value": value, "max": maximum, "state": state, **self._named(node_id)}
        told = {"prompt_id": self._item.prompt_id, "nodes": dict(self._progress)}
        self._sockets.publish("progress_state", told, self._item.client_id)

    def _finish_progress(self, node_id: str) -> None:
        maximum = self._progress[node_id]["max"] if node_id in self._progress else 1
        self._set_progress(node_id, "finished", maximum, maximum)

    def _named(self, node_id: str) -> dict[str, Any]:
        return {
            "node_id": node_id,
            "prompt_id": self._item.prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }


def _shown(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | bool | str) else str(value)
