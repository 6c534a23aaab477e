"""Takes API keys and the like out of prompts, before anything of them is stored, shown to others or logged.

ComfyUI takes secrets for its API nodes in ``extra_data`` of ``POST /prompt``. It removes its own two
(``SENSITIVE_EXTRA_DATA_KEYS`` in ``execution.py``) from the history, older versions only after the prompt has run.
Custom nodes use the same place under names of their own, which are told by how they look. In ``extra_pnginfo``,
which carries the page's whole workflow, only names that can mean nothing else count: a workflow without its widgets
would be worth nothing.

All functions return the very same object where there is nothing to remove, and a copy otherwise.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

COMFYUI_KEYS: Final = frozenset({"auth_token_comfy_org", "api_key_comfy_org"})
WORKFLOW: Final = "extra_pnginfo"

_CERTAIN: Final = re.compile(
    r"api_?key|(auth|access|refresh|bearer|session|secret)_?token|secret|passw(or)?d|passphrase|authorization"
    r"|credential|private_?key|access_?key|bearer"
)
_LIKELY: Final = re.compile(rf"{_CERTAIN.pattern}|(^|_)(key|keys|token|tokens|auth|cookie|cookies|pwd|pass)$")
_HINTS: Final = {
    word: re.compile(word + rb'(?:[^"\\]|\\.){0,1000}"\s*:')
    for word in (b"key", b"token", b"secret", b"pass", b"auth", b"credential", b"bearer", b"cookie", b"pwd")
}
"""Every name that counts holds one of these words."""
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_EXTRA_DATA: Final = 3
"""Its place in ``[number, prompt_id, prompt, extra_data, outputs]``."""
_SHOWN_PARTS: Final = 5
"""Newer servers keep the secrets themselves in a sixth."""


def may_hold_secrets(written: bytes) -> bool:
    """Whether a name in this JSON, as we write it, may be a secret's. Much quicker than to look into a large workflow.

    True where it is unsure.
    """
    lowered = written.lower()
    return any(word in lowered and name.search(lowered) is not None for word, name in _HINTS.items())


def without_secrets(extra_data: Any) -> Any:
    """``extra_data`` of a prompt. What is no object is returned as it is; ComfyUI refuses it."""
    try:
        return _cleaned(extra_data, _is_likely)
    except RecursionError:
        return {}


def document_without_secrets(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A whole body of ``POST /prompt``."""
    extra_data = document.get("extra_data")
    cleaned = without_secrets(extra_data)
    return document if cleaned is extra_data else {**document, "extra_data": cleaned}


def item_without_secrets(item: Any) -> Any:
    """An item of ``/queue``, or ``prompt`` of a history's entry: ``[number, prompt_id, prompt, extra_data, …]``."""
    if not isinstance(item, list | tuple) or len(item) <= _EXTRA_DATA:
        return item
    cleaned = without_secrets(item[_EXTRA_DATA])
    if cleaned is item[_EXTRA_DATA] and len(item) <= _SHOWN_PARTS:
        return item
    return [*item[:_EXTRA_DATA], cleaned, *item[_EXTRA_DATA + 1 : _SHOWN_PARTS]]


def entry_without_secrets(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """An entry of ``/history``."""
    prompt = entry.get("prompt")
    cleaned = item_without_secrets(prompt)
    return entry if cleaned is prompt else {**entry, "prompt": cleaned}


def _cleaned(value: Any, is_secret: Callable[[str], bool]) -> Any:
    if isinstance(value, dict):
        changes: dict[str, Any] = {}
        removed: set[str] = set()
        for name, part in value.items():
            if isinstance(part, dict | list):
                if part and is_secret(name) and (is_secret is _is_certain or _is_certain(name)):
                    removed.add(name)
                    continue
                cleaned = _cleaned(part, _is_certain if name == WORKFLOW else is_secret)
                if cleaned is not part:
                    changes[name] = cleaned
            elif part and isinstance(part, str) and is_secret(name):
                removed.add(name)
        if not changes and not removed:
            return value
        return {name: changes.get(name, part) for name, part in value.items() if name not in removed}
    if isinstance(value, list):
        cleaned_list = [
            _cleaned(part, is_secret) if isinstance(part, dict | list) else part for part in value
        ]
        is_same = all(cleaned is part for cleaned, part in zip(cleaned_list, value, strict=True))
        return value if is_same else cleaned_list
    return value


@lru_cache(maxsize=4096)
def _is_certain(name: str) -> bool:
    return name in COMFYUI_KEYS or _CERTAIN.search(_plain(name)) is not None


@lru_cache(maxsize=4096)
def _is_likely(name: str) -> bool:
    return name in COMFYUI_KEYS or _LIKELY.search(_plain(name)) is not None


def _plain(name: str) -> str:
    """``apiKey``, ``API-Key`` and ``api key`` as ``api_key``."""
    return re.sub(r"[\s.\-]+", "_", _WORD_START.sub("_", name)).lower()
