"""Credentials as ``Authorization`` carries them (RFC 6750 and RFC 7617)."""

import base64
import binascii
from collections.abc import Sequence


def bearer_of(values: Sequence[str]) -> str | None:
    """The token of ``Bearer <token>``; None where there is none, or another scheme. Two values are a wrong token."""
    if len(values) > 1:
        return ""
    scheme, _, token = (values[0] if values else "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def basic_of(values: Sequence[str]) -> tuple[str, str] | None:
    """Name and password of ``Basic <base64>``; None where there is none, or another scheme.

    What cannot be read is a wrong one: two empty texts. The password may hold colons, the name cannot.
    """
    if len(values) > 1:
        return "", ""
    scheme, _, encoded = (values[0] if values else "").strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return "", ""
    name, colon, password = text.partition(":")
    return (name, password) if colon else ("", "")
