"""Is a pod's image too old? Its agent tells its version."""

from packaging.version import InvalidVersion, Version


def is_older(version: str | None, minimum: str | None) -> bool:
    """Whether a known version is below the wanted one. An unknown or odd version proves nothing."""
    if version is None or minimum is None:
        return False
    try:
        return Version(version) < Version(minimum)
    except InvalidVersion:
        return False
