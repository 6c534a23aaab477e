"""What others have published about their interfaces, and how an answer is held against it."""

import json
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

RUNPOD_V2: Final = Path(__file__).with_name("runpod-v2.json")
_URI: Final = "urn:runpod-v2"


@cache
def _document() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(RUNPOD_V2.read_text(encoding="utf-8"))
    return told


@cache
def _registry() -> Registry[Any]:
    resource = Resource.from_contents(_document(), default_specification=DRAFT202012)
    empty: Registry[Any] = Registry()
    registry: Registry[Any] = empty.with_resource(_URI, resource)
    return registry


_FORMATS: Final = FormatChecker([])


@_FORMATS.checks("date-time", raises=ValueError)
def _is_aware_time(told: object) -> bool:
    return not isinstance(told, str) or datetime.fromisoformat(told).tzinfo is not None


def faults_of_answer(method: str, path: str, status: int, content_type: str, document: Any) -> list[str]:
    """What is wrong with an answer of ``path`` as the description writes it (``/v2/pods/{id}``); empty: nothing."""
    responses = _document()["paths"][path][method.lower()]["responses"]
    response = responses.get(str(status), responses["default"])
    if "$ref" in response:
        response = _document()["components"]["responses"][response["$ref"].rpartition("/")[2]]
    content = response.get("content", {})
    if not content:
        return [] if document is None else [f"{status} has no body"]
    if content_type not in content:
        return [f"{content_type} is none of {', '.join(content)}"]
    return _faults(content[content_type]["schema"], document)


def faults_of_request(method: str, path: str, document: Any) -> list[str]:
    """What is wrong with the body of a request."""
    operation = _document()["paths"][path][method.lower()]
    return _faults(operation["requestBody"]["content"]["application/json"]["schema"], document)


def _faults(schema: dict[str, Any], document: Any) -> list[str]:
    pointed = {**schema, "$ref": _URI + schema["$ref"]} if "$ref" in schema else schema
    validator = Draft202012Validator(pointed, registry=_registry(), format_checker=_FORMATS)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
