"""The body of ``POST /prompt``: read as ComfyUI reads it, given an id and another client_id, and otherwise
left alone.

ComfyUI reads it with Python's own ``json``. orjson is several times faster, but rounds whole numbers beyond
64 bits (seeds), cannot hold what overflows a double (``1e400``) and refuses ``NaN`` and lone surrogates,
all of which ComfyUI takes. Bodies that hold such a thing, or may, are read and written with ``json``; what
that refuses too is an error.
"""

import json
import math
import re
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import orjson

MAX_ID_CHARACTERS: Final = 200

_MAY_BE_ROUNDED: Final = re.compile(rb"[0-9]{19}|[0-9.][eE]\+?[0-9]{3}")
"""19 digits may be beyond 64 bits, three digits of exponent beyond a double."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class PromptBody:
    """A prompt that has not been sent yet."""

    document: dict[str, Any] = field(repr=False)
    """The JSON object. Not to be changed: ``addressed`` makes a copy."""
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

    def chosen_id(self) -> str | None:
        """The prompt_id that the caller has chosen, read as ComfyUI reads it, or None.

        Raises ValueError with a text fit for the client for one that cannot be an id.
        """
        chosen = self.document.get("prompt_id")
        if chosen is None or chosen == "":
            return None
        if isinstance(chosen, bool) or not isinstance(chosen, str | int | float):
            raise ValueError("The prompt_id must be a text.")
        prompt_id = str(chosen)
        if len(prompt_id) > MAX_ID_CHARACTERS:
            raise ValueError(f"The prompt_id has more than {MAX_ID_CHARACTERS} characters.")
        if not prompt_id.isprintable():
            raise ValueError("The prompt_id holds a character that cannot be printed.")
        return prompt_id

    def number_shown(self, position: int) -> float:
        """The number that clients see: the caller's own, or our next one, as ComfyUI would give it."""
        if "number" in self.document:
            try:
                number = float(self.document["number"])
            except (TypeError, ValueError, OverflowError):
                return position  # ComfyUI will not take it
            return number if math.isfinite(number) else position
        return -position if self.document.get("front") else position

    @property
    def is_ordered(self) -> bool:
        """Whether the client has a wish for its place."""
        return "number" in self.document or "front" in self.document

    @property
    def has_usable_number(self) -> bool:
        """False for one that ComfyUI cannot read, and shall say so itself."""
        try:
            return "number" not in self.document or isinstance(float(self.document["number"]), float)
        except (TypeError, ValueError, OverflowError):
            return False

    def addressed(self, prompt_id: str, sid: str) -> Self:
        """The prompt under this id for this socket: ``client_id`` is set at the top and in ``extra_data``."""
        document = {**self.document, "prompt_id": prompt_id, "client_id": sid}
        extra_data = document.get("extra_data", {})
        if isinstance(extra_data, dict):  # anything else ComfyUI itself refuses
            document["extra_data"] = {**extra_data, "client_id": sid}
        return replace(self, document=document)

    def numbered(self, number: float | None) -> Self:
        """The prompt under this number; None leaves it to the server's counter. Nothing of the client's own is left."""
        kept = {name: value for name, value in self.document.items() if name not in {"number", "front"}}
        return replace(self, document=kept if number is None else {**kept, "number": number})

    def write(self) -> bytes:
        """The body as it is sent. Raises ValueError for one that is nested too deeply to be written again."""
        try:
            return orjson.dumps(self.document) if self.is_plain else json.dumps(self.document).encode("ascii")
        except (RecursionError, orjson.JSONEncodeError):
            raise ValueError("The body is nested too deeply.") from None


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
    """The value where it is a text that can be sent: a lone surrogate can be in JSON, but in no header or address."""
    if not isinstance(value, str) or _SURROGATE.search(value):
        return None
    return value or None
