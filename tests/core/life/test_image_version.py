"""Which images are too old."""

import pytest

from comfy_gateway.core.life.image_version import is_older


@pytest.mark.parametrize(
    ("version", "minimum", "expected"),
    [
        ("0.1.0", "0.2", True),
        ("0.9.0", "0.10.0", True),
        ("0.2.0", "0.2", False),
        ("1.0", "0.2", False),
        (None, "0.2", False),
        ("0.1.0", None, False),
        ("nightly", "0.2", False),
    ],
)
def test_only_a_known_older_version_is_too_old(
    version: str | None, minimum: str | None, expected: bool
) -> None:
    assert is_older(version, minimum) is expected
