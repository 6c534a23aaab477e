"""Bodies and queries of the API's requests, by their models."""

from collections import Counter

from aiohttp import web
from pydantic import BaseModel, ValidationError

from comfy_gateway.site.asker import BadOrder, bad_request, order_in


async def taken[Body: BaseModel](request: web.Request, model: type[Body]) -> Body:
    """The body; no body is an empty one. Raises BadOrder, which names the field and what is allowed there."""
    return _read(model, await order_in(request))


def asked[Query: BaseModel](request: web.Request, model: type[Query], identity_key: str) -> Query:
    """The query. Raises BadOrder, as above.

    ``identity_key`` is the key by which users may say their name; that is not for us.
    """
    values = {
        key: value for key, value in request.query.items() if key != identity_key or key in model.model_fields
    }
    twice = [
        key
        for key, count in Counter(key for key, _ in request.query.items()).items()
        if count > 1 and key in values
    ]
    if twice:
        raise BadOrder(bad_request(f"{twice[0][:100]!r} is given more than once."))
    return _read(model, values)


def _read[Model: BaseModel](model: type[Model], values: dict[str, object] | dict[str, str]) -> Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        allowed = ", ".join(model.model_fields) or "none"
        raise BadOrder(bad_request(f"{where[:100]!r}: {first['msg']}. Known fields: {allowed}.")) from None
