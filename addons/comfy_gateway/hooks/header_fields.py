"""Changes a message's headers in one pass. mitmproxy goes through all of them for each change, at every request."""

from collections.abc import Collection, Mapping

from mitmproxy import http


def names_of(headers: http.Headers) -> set[str]:
    """All names in lower case."""
    return {name.lower().decode("latin-1") for name, _ in headers.fields}


def rewrite(
    headers: http.Headers, *, drop: Collection[str] = (), put: Mapping[str, str] | None = None
) -> None:
    """Remove every field named in ``drop`` (lower case) and give those of ``put`` this one value.

    A field that is put stays in its place where there is one, and goes to the end otherwise.
    """
    waiting = {_bytes(name).lower(): (_bytes(name), _bytes(value)) for name, value in (put or {}).items()}
    given = set(waiting)
    dropped = {_bytes(name) for name in drop}
    kept = []
    for name, value in headers.fields:
        lowered = name.lower()
        if lowered in given:
            if (field := waiting.pop(lowered, None)) is not None:
                kept.append((name, field[1]))
        elif lowered not in dropped:
            kept.append((name, value))
    headers.fields = (*kept, *waiting.values())


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
