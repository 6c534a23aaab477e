"""Gives the modules of ComfyUI's page addresses that name their version, by the page's import map.

The map is asked for every ``import``, once the specifier has been resolved against the importing module's address:

* ``/scripts/app.js`` (or what ends there) leads to ``/gateway/files/{version}/scripts/app.js``;
* from a module below that prefix ``../../scripts/app.js`` ends there by itself;
* what leaves the versioned trees from there (``../../my_node/x.js``) is led back to its own address.

So each module has one address, however it is named, and is evaluated once.
"""

import re
from typing import Any, Final

import orjson

from comfy_gateway.core.interface.files import PREFIX, Version

_FRONT_END: Final = ("assets/", "scripts/", "extensions/core/")
_MAP: Final = re.compile(r"<script\b[^>]*\btype\s*=\s*[\"']?importmap\b[^>]*>(.*?)</script\s*>", re.I | re.S)
_TAG: Final = re.compile(r"<(?:script|link)\b[^>]*>", re.I)
_ADDRESS: Final = re.compile(
    r"((?:src|href)\s*=\s*[\"'])(?:\./|/)?((?:assets|scripts)/[^\"'?#]+\.(?:m?js|css)[\"'])"
)
_FIRST_SCRIPT: Final = re.compile(r"<(?:script\b|link\b[^>]*\bmodulepreload)", re.I)
_UNKNOWN: Final = re.compile(r"<base\b|content-security-policy|\bintegrity\s*=", re.I)


def versioned(page: str, version: Version) -> str | None:
    """The page with versioned addresses, or None for one that is not made as we know it."""
    maps = _MAP.findall(page)
    if _UNKNOWN.search(page) or len(maps) > 1:
        return None
    imports = _imports(maps[0]) if maps else {}
    first = _FIRST_SCRIPT.search(page)
    if imports is None or first is None:
        return None
    text = orjson.dumps({"imports": _mapped(imports, version)}).decode().replace("<", "\\u003c")
    tag = f'<script type="importmap">{text}</script>'
    if maps:
        rest = _MAP.sub("", page)
        first = _FIRST_SCRIPT.search(rest)
        if first is None:
            return None
    else:
        rest = page
    head, tail = rest[: first.start()], rest[first.start() :]
    root = f".{PREFIX}{version.tag}/"
    return _TAG.sub(lambda found: _ADDRESS.sub(rf"\g<1>{root}\g<2>", found[0]), f"{head}{tag}{tail}")


def _imports(text: str) -> dict[str, str] | None:
    """None for a map that says more than where modules are."""
    try:
        document: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    imports = document.get("imports") if isinstance(document, dict) and set(document) == {"imports"} else None
    if not isinstance(imports, dict) or not all(isinstance(value, str) for value in imports.values()):
        return None
    return imports


def _mapped(imports: dict[str, str], version: Version) -> dict[str, str]:
    root = f".{PREFIX}{version.tag}/"
    found = {}
    for name, address in imports.items():
        path = address.removeprefix("./").removeprefix("/")
        found[name] = root + path if path.startswith(_FRONT_END) else address
    trees = (*_FRONT_END, *(folder.removeprefix("/") for folder in version.folders))
    for tree in trees:
        found[f"./{tree}"] = found[f"{root}{tree}"] = root + tree
    return {**found, root: "./"}
