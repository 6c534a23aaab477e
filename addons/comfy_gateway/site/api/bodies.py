"""Bodies of the API's requests, by their models."""

from aiohttp import web
from pydantic import BaseModel, ValidationError

from comfy_gateway.site.asker import BadOrder, bad_request, order_in


async def taken[Body: BaseModel](request: web.Request, model: type[Body]) -> Body:
    """The body; no body is an empty one. Raises BadOrder, which names the field and what is allowed there."""
    order = await order_in(request)
    try:
        return model.model_validate(order)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        allowed = ", ".join(model.model_fields) or "none"
        raise BadOrder(bad_request(f"{where[:100]!r}: {first['msg']}. Known fields: {allowed}.")) from None
