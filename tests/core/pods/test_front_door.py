"""What the answer to a knock without the token proves."""

import pytest

from comfy_gateway.core.pods.front_door import DoorState, judge_knock
from comfy_gateway.core.ports import Health


@pytest.mark.parametrize(
    ("knock", "state"),
    [
        (Health(True, 0, 0.1, status=200), DoorState.OPEN),
        (Health(False, None, 0.1, "answered 401", 401), DoorState.SHUT),
        (Health(False, None, 0.1, "answered 403", 403), DoorState.SHUT),
        (Health(False, None, 0.1, "answered 502", 502), DoorState.UNKNOWN),
        (Health(False, None, 0.1, "answered 404", 404), DoorState.UNKNOWN),
        (Health(False, None, 0.1, "answered something that is no JSON", 200), DoorState.UNKNOWN),
        (Health(False, None, 0.1, "answered 307"), DoorState.UNKNOWN),
        (Health(False, None, 0.1, "cannot be connected to"), DoorState.UNKNOWN),
    ],
)
def test_only_a_refusal_proves_that_the_door_is_shut(knock: Health, state: DoorState) -> None:
    assert judge_knock(knock) is state
