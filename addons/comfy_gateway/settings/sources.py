"""Where settings come from: the environment, ``.env``, and a YAML or JSON file. Nothing is judged here but
the form.

A blank value means "not set here": the next source is asked. ``RUNPOD_API_KEY`` is the exception, see
``Var``. Old JSON files of the FastAPI gateway are read as they are: their keys are ours without
``runpod_``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, Final

import yaml
from dotenv.parser import parse_stream

ENVIRONMENT: Final = "environment"
POD_ENV_PREFIX: Final = "POD_ENV_"
CONFIG_PATH_NAME: Final = "RUNPOD_CONFIG_PATH"
DEFAULT_CONFIG_PATH: Final = "config/gateway.yaml"


@dataclass(frozen=True, slots=True)
class Layer:
    """One source."""

    origin: str
    """In words: ``environment``, ``.env``, ``config/gateway.yaml``."""
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """By the variable's name in capitals."""
    pod_env: Mapping[str, Any] = field(default_factory=dict, repr=False)
    routes: Any = None
    unknown: tuple[str, ...] = ()
    """Keys of the file that no setting has."""


@dataclass(slots=True)
class Sources:
    """All layers, the strongest first, and what was wrong with their form."""

    layers: list[Layer] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def given(self, name: str, *, is_ended_by_blank: bool = False) -> tuple[Any, str] | None:
        """Value and origin of a variable from the strongest layer that has it, or None."""
        for layer in self.layers:
            value = layer.values.get(name)
            if value is not None and not _is_blank(value):
                return value.strip() if isinstance(value, str) else value, layer.origin
            if is_ended_by_blank and value is not None:
                return None
        return None

    def pod_env(self) -> Mapping[str, Any]:
        """Variables for pods; a stronger layer replaces single names."""
        merged: dict[str, Any] = {}
        for layer in reversed(self.layers):
            merged.update({name: value for name, value in layer.pod_env.items() if not _is_blank(value)})
        return merged


def read(environ: Mapping[str, str], root: Path, names: frozenset[str]) -> Sources:
    """Read all sources. ``names`` are the variables that exist; faults of form are collected, not raised."""
    sources = Sources()
    sources.layers.append(_flat(ENVIRONMENT, environ))
    _add_dotenv(sources, root)
    _add_file(sources, root, names)
    return sources


def _flat(origin: str, variables: Mapping[str, Any]) -> Layer:
    pod_env = {
        name.removeprefix(POD_ENV_PREFIX): value
        for name, value in variables.items()
        if name.startswith(POD_ENV_PREFIX)
    }
    return Layer(origin, dict(variables), pod_env)


def _add_dotenv(sources: Sources, root: Path) -> None:
    path = root / ".env"
    text = _text(path, ".env", sources)
    if text is None:
        return
    values = {}
    for binding in parse_stream(StringIO(text)):
        if binding.error:
            # The line is not shown: it may hold a secret.
            sources.faults.append(f".env line {binding.original.line}: allowed is NAME=value")
        elif binding.key is not None and binding.value is not None:
            values[binding.key] = binding.value
    sources.layers.append(_flat(".env", values))


def _add_file(sources: Sources, root: Path, names: frozenset[str]) -> None:
    named = sources.given(CONFIG_PATH_NAME)
    shown = str(named[0]) if named else DEFAULT_CONFIG_PATH
    if "\0" in shown:
        return  # the fault of the variable itself says so
    path = root / Path(shown).expanduser()
    if not path.exists():
        if named:
            sources.faults.append(
                f"{CONFIG_PATH_NAME}={shown!r} ({named[1]}): no such file; allowed is a YAML or JSON file"
            )
        return
    text = _text(path, shown, sources)
    if text is None:
        return
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        sources.faults.append(f"{shown}{_place(error)}: allowed is YAML or JSON")
        return
    if content is None:
        return
    if not isinstance(content, Mapping):
        sources.faults.append(f"{shown}: allowed is a mapping of names to values")
        return
    sources.layers.append(_file_layer(shown, content, names, sources))


def _file_layer(shown: str, content: Mapping[Any, Any], names: frozenset[str], sources: Sources) -> Layer:
    values: dict[str, Any] = {}
    pod_env: dict[str, Any] = {}
    unknown = []
    for key, value in content.items():
        name = str(key).upper()
        if key == "pod_env":
            if isinstance(value, Mapping):
                pod_env.update(
                    {str(inner): _plain(text) for inner, text in value.items() if text is not None}
                )
            elif value is not None:
                sources.faults.append(f"pod_env in {shown}: allowed is a mapping of names to values")
        elif key == "routes" or str(key).startswith(("_", "$")):
            continue
        elif name.startswith(POD_ENV_PREFIX):
            pod_env[name.removeprefix(POD_ENV_PREFIX)] = _plain(value)
        elif name in names and name != CONFIG_PATH_NAME:
            values[name] = _plain(value)
        elif f"RUNPOD_{name}" in names and f"RUNPOD_{name}" != CONFIG_PATH_NAME:
            values.setdefault(f"RUNPOD_{name}", _plain(value))
        else:
            unknown.append(str(key))
    return Layer(shown, values, pod_env, content.get("routes"), tuple(unknown))


def _plain(value: Any) -> Any:
    """Scalars as text, so that a value means the same in a file as in the environment."""
    if value is None or isinstance(value, str | Mapping):
        return value
    if isinstance(value, list):
        return [
            item if isinstance(item, Mapping) else str(_plain(item)) for item in value if item is not None
        ]
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _is_blank(value: Any) -> bool:
    return value == [] or (isinstance(value, str) and not value.strip())


def _text(path: Path, shown: str, sources: Sources) -> str | None:
    """The file's text without a byte order mark, or None when there is no file or it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        sources.faults.append(f"{shown}: allowed is text in UTF-8")
    except OSError as error:
        sources.faults.append(f"{shown} cannot be read: {error.strerror}")
    return None


def _place(error: Exception) -> str:
    """Where in the file, without quoting it: it may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark is not None else getattr(error, "lineno", None)
    return "" if line is None else f" line {line}"
