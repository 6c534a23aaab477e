"""ComfyUI's answer to ``/extensions``: the modules that its page imports."""

from typing import Final

import orjson

EXTENSIONS_ROUTE: Final = "/extensions"
BADGE_MODULE: Final = "/gateway/ui/extension.js"


def with_badge(body: bytes) -> bytes | None:
    """The list with our module at its end, or None for what is no JSON list of paths or has it already."""
    try:
        listed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(listed, list) or not all(isinstance(path, str) for path in listed):
        return None
    return None if BADGE_MODULE in listed else orjson.dumps([*listed, BADGE_MODULE])
