"""The gateway's own pages, and who gets them."""

import pytest

from comfy_gateway.core.people.roles import LOOPBACK_ONLY, OPERATORS_ONLY, Role, is_open, refuse

OPEN = ["/gateway/healthz", "/gateway/readyz", "/gateway/ui/extension.js", "/gateway/signin"]
OWN = ["/gateway/api/v1/me", "/gateway/api/v1/me/give-back"]
OPERATORS = [
    "/gateway/api/v1/mean",
    "/gateway/api/v1/",
    "/gateway",
    "/gateway/",
    "/gateway/api/v1/sessions",
    "/gateway/events",
    "/gateway/uix",
    "/gateway/new",
]


@pytest.mark.parametrize("path", [*OPEN, *OWN, "/gateway/signout"])
@pytest.mark.parametrize("has_sign_in", [False, True])
def test_everybody_gets_the_probes_the_panel_their_own_session_and_the_way_in_and_out(
    path: str, has_sign_in: bool
) -> None:
    assert refuse(path, Role.USER, has_sign_in=has_sign_in) is None


@pytest.mark.parametrize("path", OPERATORS)
def test_everything_else_is_the_operators_also_what_is_added_one_day(path: str) -> None:
    assert refuse(path, Role.USER, has_sign_in=True) is OPERATORS_ONLY
    assert refuse(path, Role.USER, has_sign_in=False) is LOOPBACK_ONLY
    assert refuse(path, Role.OPERATOR, has_sign_in=True) is None
    assert refuse(path, Role.OPERATOR, has_sign_in=False) is None
    assert not is_open(path)


def test_metrics_are_open_until_people_sign_in() -> None:
    assert refuse("/gateway/metrics", Role.USER, has_sign_in=False) is None
    assert refuse("/gateway/metrics", Role.USER, has_sign_in=True) is OPERATORS_ONLY
    assert not is_open("/gateway/metrics")


def test_without_signing_in_one_gets_no_further_than_the_door() -> None:
    assert all(is_open(path) for path in OPEN)
    assert not is_open("/gateway/signout")
