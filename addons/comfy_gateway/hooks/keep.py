"""How much of bodies and frames mitmproxy keeps for people who look."""

from typing import Final, Literal

from mitmproxy import ctx

AUTO_MB: Final = 16


def kept_bytes(keep_mb: int | Literal["auto"]) -> int:
    """Bytes kept of each flow. ``auto``: some where a person watches (mitmweb, mitmproxy), none in mitmdump."""
    if keep_mb == "auto":
        addons = ctx.master.addons
        is_watched = addons.get("view") is not None
        return AUTO_MB * 1024 * 1024 if is_watched else 0
    return keep_mb * 1024 * 1024
