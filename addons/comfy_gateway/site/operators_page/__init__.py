"""The operator's page at ``/gateway/``: a frame by jinja2, filled by small scripts from the API (docs/operators.md)."""

from comfy_gateway.site.operators_page.page import OperatorsPage

__all__ = ["OperatorsPage"]
