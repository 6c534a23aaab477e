"""``/gateway/api/v1/``: JSON about sessions, each user's own and, for operators, all (docs/api.md)."""

from comfy_gateway.site.api.own import OwnPages

__all__ = ["OwnPages"]
