"""The OpenAPI 3.1 document of the API, made from the models that its answers are made from."""

from collections.abc import Iterable
from typing import Any, Final

import orjson
from aiohttp import web
from openapi_pydantic import (
    Info,
    MediaType,
    OpenAPI,
    Parameter,
    PathItem,
    Reference,
    RequestBody,
    Response,
    Schema,
)
from openapi_pydantic import Operation as Described
from openapi_pydantic.util import PydanticSchema, construct_open_api_with_schema_class
from pydantic import BaseModel

from comfy_gateway.site.api.models import ProblemSaid
from comfy_gateway.site.api.operation import ROOT, Operation
from comfy_gateway.site.asker import told_bytes

VERSION: Final = "1.0.0"
_COMPONENTS: Final = "#/components/schemas/{model}"


class Document:
    """Made once, at the start."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._body = orjson.dumps(describe([*operations, *self.operations()]))

    def operations(self) -> list[Operation]:
        """The document itself."""
        return [Operation("GET", "/openapi.json", "openapi", "This document.", self.show, None)]

    def routes(self) -> list[web.RouteDef]:
        """Its path."""
        return [one.route() for one in self.operations()]

    async def show(self, _request: web.Request) -> web.StreamResponse:
        """The document."""
        return told_bytes(self._body)


def describe(operations: Iterable[Operation]) -> dict[str, Any]:
    """The document as JSON."""
    paths: dict[str, PathItem] = {}
    for one in operations:
        item = paths.setdefault(ROOT + one.path, PathItem())
        setattr(item, one.method.lower(), _described(one))
    document = OpenAPI(
        openapi="3.1.0",
        info=Info(title="Comfy RunPod Gateway", version=VERSION, description="See docs/api.md."),
        paths=paths,
    )
    made = construct_open_api_with_schema_class(document)
    return made.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)


def _described(one: Operation) -> Described:
    statuses = sorted({400, 403, *one.refusals})
    responses: dict[str, Response | Reference] = {"200": _success(one)}
    responses |= {
        str(status): Response(description="A refusal.", content=_json(ProblemSaid)) for status in statuses
    }
    return Described(
        operationId=one.name,
        summary=one.summary,
        tags=["me" if one.is_own else "operators"],
        parameters=[*_path_parameters(one), *_query_parameters(one)] or None,
        requestBody=None if one.takes is None else RequestBody(content=_json(one.takes), required=False),
        responses=responses,
    )


def _success(one: Operation) -> Response:
    if one.says is not None:
        return Response(description=one.says.__doc__ or one.summary, content=_json(one.says))
    is_stream = one.path == "/stream"
    schema = Schema.model_validate({"type": "string" if is_stream else "object"})
    content_type = "text/event-stream" if is_stream else "application/json"
    return Response(description=one.summary, content={content_type: MediaType(schema=schema)})


def _json(model: type[BaseModel]) -> dict[str, MediaType]:
    schema: Schema = PydanticSchema.model_validate({"schema_class": model})
    return {"application/json": MediaType(schema=schema)}


def _path_parameters(one: Operation) -> list[Parameter]:
    if "{id}" not in one.path:
        return []
    told = {
        "name": "id",
        "in": "path",
        "required": True,
        "description": one.id_means,
        "schema": {"type": "string"},
    }
    return [Parameter.model_validate(told)]


def _query_parameters(one: Operation) -> list[Parameter]:
    if one.asks is None:
        return []
    described = one.asks.model_json_schema(ref_template=_COMPONENTS)
    aside = {"title", "description"}
    return [
        Parameter.model_validate(
            {
                "name": name,
                "in": "query",
                "description": of_field.get("description"),
                "schema": {key: value for key, value in of_field.items() if key not in aside},
            }
        )
        for name, of_field in described["properties"].items()
    ]
