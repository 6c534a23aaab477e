"""The recordings beside this file, as flows that can meet the hooks once more."""

from pathlib import Path
from typing import Final

from mitmproxy import http
from mitmproxy.io import FlowReader

FOLDER: Final = Path(__file__).parent
FILES: Final = sorted(FOLDER.glob("*.mitm"))


def recorded(name: str) -> list[http.HTTPFlow]:
    """The flows of ``<name>.mitm``, read anew, in the order of their requests."""
    with (FOLDER / f"{name}.mitm").open("rb") as file:
        return [flow for flow in FlowReader(file).stream() if isinstance(flow, http.HTTPFlow)]


def everything() -> list[http.HTTPFlow]:
    """The flows of all files."""
    return [flow for path in FILES for flow in recorded(path.stem)]


def line_of(flow: http.HTTPFlow) -> str:
    """``GET /queue``, without the query."""
    return f"{flow.request.method} {flow.request.path.partition('?')[0]}"


def as_live(flow: http.HTTPFlow) -> http.Response:
    """Make the flow one that happens now, without an answer yet; returns what the server answered then."""
    answer, flow.response, flow.live = flow.response, None, True
    assert answer is not None
    return answer
