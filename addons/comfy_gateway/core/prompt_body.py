"""The body of ``POST /prompt``: read as ComfyUI reads it, given another client_id, and otherwise left
alone.

ComfyUI reads it with Python's own ``json``. orjson is several times faster, but rounds whole numbers beyond
64 bits (seeds), cannot hold what overflows a double (``1e400``) and refuses ``NaN`` and lone surrogates,
all of which ComfyUI takes. Bodies that hold such a thing, or may, are read and written with ``json``; what
that refuses too is an error.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final, Self

import orjson

_MAY_BE_ROUNDED: Final = re.compile(rb"[0-9]{19}|[0-9.][eE]\+?[0-9]{3}")
"""19 digits may be beyond 64 bits, three digits of exponent beyond a double."""


@dataclass(frozen=True, slots=True)
class PromptBody:
    """A prompt that has not been sent yet."""

    document: dict[str, Any] = field(repr=False)
    """The JSON object. Not to be changed: ``with_client_id`` writes a copy."""
    is_plain: bool
    """orjson reads and writes it without loss."""

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read a body. Raises ValueError with a text fit for the client."""
        is_plain = _MAY_BE_ROUNDED.search(raw) is None
        document: Any = None
        if is_plain:
            try:
                document = orjson.loads(raw)
            except orjson.JSONDecodeError:
                is_plain = False
        if not is_plain:
            document = _loads_as_comfyui_does(raw)
        if not isinstance(document, dict):
            raise ValueError("The body must be a JSON object.")
        return cls(document, is_plain)

    @property
    def client_id(self) -> str | None:
        """The socket that is to hear of this prompt, or None. The top level counts before ``extra_data``."""
        if "client_id" in self.document:
            return _text(self.document["client_id"])
        extra_data = self.document.get("extra_data")
        return _text(extra_data.get("client_id")) if isinstance(extra_data, dict) else None

    @property
    def prompt_id(self) -> str | None:
        """The id that the caller has chosen, or None."""
        return _text(self.document.get("prompt_id"))

    def with_client_id(self, sid: str) -> bytes:
        """The body with ``client_id`` set to ``sid`` at the top and in ``extra_data``, made if missing.

        Raises ValueError for a body that is nested too deeply to be written again.
        """
        document = {**self.document, "client_id": sid}
        extra_data = document.get("extra_data", {})
        if isinstance(extra_data, dict):  # anything else ComfyUI itself refuses
            document["extra_data"] = {**extra_data, "client_id": sid}
        try:
            return orjson.dumps(document) if self.is_plain else json.dumps(document).encode("ascii")
        except (RecursionError, orjson.JSONEncodeError):
            raise ValueError("The body is nested too deeply.") from None


def accepted_prompt_id(status: int, body: bytes) -> str | None:
    """The id that ComfyUI gave to a prompt, or None when it did not accept it."""
    if not 200 <= status < 300:
        return None
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return _text(answer.get("prompt_id")) if isinstance(answer, dict) else None


def _loads_as_comfyui_does(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("The body is no JSON: it is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"The body is no JSON: {error.msg} at character {error.pos}.") from None
    except RecursionError:
        raise ValueError("The body is nested too deeply.") from None
    except ValueError:  # more digits than Python converts
        raise ValueError("The body holds a number with too many digits.") from None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
