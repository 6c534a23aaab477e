"""ComfyUI's prompts, lists and frames as text in mitmweb and mitmproxy."""

from typing import Final

from mitmproxy import contentviews
from mitmproxy.contentviews import Contentview, Metadata, SyntaxHighlight

from comfy_gateway.core import loose_json
from comfy_gateway.core.readable.frame import read_frame
from comfy_gateway.core.readable.tables import is_list, read_list
from comfy_gateway.core.readable.workflow import nodes_of, read_workflow

MAX_BYTES: Final = 16 * 1024 * 1024
"""What is larger is shown as mitmproxy shows it: a view is made in the event loop."""
_BEFORE_JSON: Final = 2.0
_NEVER: Final = -1.0


class _View(Contentview):
    """A view is chosen by what the bytes are, since a flow read from a file has a path at most."""

    @property
    def syntax_highlight(self) -> SyntaxHighlight:
        """None of mitmproxy's fits a table."""
        return "none"


class PromptView(_View):
    """Implements ``Contentview`` for ``POST /prompt`` and for workflows in API format."""

    @property
    def name(self) -> str:
        """As listed in mitmweb."""
        return "ComfyUI prompt"

    def prettify(self, data: bytes, _metadata: Metadata) -> str:
        """Raises ValueError for what is no prompt."""
        return read_workflow(loose_json.read(data))

    def render_priority(self, data: bytes, metadata: Metadata) -> float:
        """Before JSON, where it is a prompt."""
        if metadata.websocket_message is not None or len(data) > MAX_BYTES or b'"class_type"' not in data:
            return _NEVER
        try:
            return _NEVER if nodes_of(loose_json.read(data)) is None else _BEFORE_JSON
        except ValueError:
            return _NEVER


class ListView(_View):
    """Implements ``Contentview`` for ``/queue``, ``/history`` and ``/api/jobs``."""

    @property
    def name(self) -> str:
        """As listed in mitmweb."""
        return "ComfyUI list"

    def prettify(self, data: bytes, _metadata: Metadata) -> str:
        """Raises ValueError for what is no list."""
        return read_list(loose_json.read(data))

    def render_priority(self, data: bytes, metadata: Metadata) -> float:
        """Before JSON, where it is a list of prompts."""
        if metadata.websocket_message is not None or len(data) > MAX_BYTES:
            return _NEVER
        if not any(word in data for word in (b'"queue_running"', b'"outputs"', b'"jobs"')):
            return _NEVER
        try:
            return _BEFORE_JSON if is_list(loose_json.read(data)) else _NEVER
        except ValueError:
            return _NEVER


class FrameView(_View):
    """Implements ``Contentview`` for frames of the socket."""

    @property
    def name(self) -> str:
        """As listed in mitmweb."""
        return "ComfyUI frame"

    def prettify(self, data: bytes, metadata: Metadata) -> str:
        """Raises ValueError for what is no frame of ComfyUI's."""
        message = metadata.websocket_message
        return read_frame(data, is_text=message is None or message.is_text)

    def render_priority(self, data: bytes, metadata: Metadata) -> float:
        """Before JSON, for all frames that can be read."""
        if metadata.websocket_message is None or len(data) > MAX_BYTES:
            return _NEVER
        try:
            self.prettify(data, metadata)
        except ValueError:
            return _NEVER
        return _BEFORE_JSON


class ViewsHook:
    """mitmproxy has one registry for the process, and no way to take a view out of it: nothing is put there twice."""

    name = "gateway-views"

    def load(self, _loader: object) -> None:
        """mitmproxy begins."""
        for view in (PromptView(), ListView(), FrameView()):
            if view.name.lower() not in contentviews.registry.available_views():
                contentviews.add(view)
