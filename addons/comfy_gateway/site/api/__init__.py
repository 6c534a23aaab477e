"""``/gateway/api/v1/``: JSON about sessions, each user's own and, for operators, all (docs/api.md)."""

from comfy_gateway.site.api.document import Document
from comfy_gateway.site.api.operators import OperatorPages
from comfy_gateway.site.api.own import OwnPages
from comfy_gateway.site.api.stream import Stream

__all__ = ["Document", "OperatorPages", "OwnPages", "Stream"]
