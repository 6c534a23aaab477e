"""Which routes of the shared servers answer operators alone."""

import pytest

from comfy_gateway.core.requests.operator_routes import OperatorRoutes


@pytest.mark.parametrize(
    "route",
    [
        "/free",
        "/internal/logs/raw",
        "/manager/reboot",
        "/v2/manager/reboot",
        "/customnode/install/git_url",
        "/v2/snapshot/restore",
        "/assets",
        "/assets/1/content",
        "/userdata/ComfyUI-Manager%2Fconfig.ini",
        "/userdata/%2543omfyUI-Manager%252Fconfig.ini",
        "/userdata/workflows%252F..%252F__manager%252Fconfig.ini",
        "/userdata/workflows%255C..%255C__manager%255Cconfig.ini",
    ],
)
def test_what_changes_the_machine_or_shows_everything_is_the_operators(route: str) -> None:
    assert route in OperatorRoutes.usual()
    assert route not in OperatorRoutes()


@pytest.mark.parametrize(
    "route", ["/queue", "/view", "/userdata/workflows%2Fmanager.json", "/userdata", "/settings", "/freedom"]
)
def test_the_rest_is_not(route: str) -> None:
    assert route not in OperatorRoutes.usual()


def test_a_list_of_ones_own_takes_its_place() -> None:
    routes = OperatorRoutes.parse(["/My-Node/Reset*"])
    assert "/my-node/reset/all" in routes
    assert "/free" not in routes
    assert 7 not in routes


def test_a_pattern_begins_with_a_slash() -> None:
    with pytest.raises(ValueError, match="begin with a slash"):
        OperatorRoutes.parse(["free"])
