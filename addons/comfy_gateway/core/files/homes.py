"""A home of each user's own on a shared server: saved workflows and settings.

ComfyUI (0.3.64, ``app/user_manager.py``) keeps everybody's files in one folder. A user's home is a folder below it that
nobody sees: names are put there on their way in and taken out on their way back. ComfyUI decodes a name once more where
it holds a percent sign, so a name is read here as ComfyUI will read it before it is judged.
"""

from dataclasses import dataclass
from typing import Any, Final
from unicodedata import category
from urllib.parse import quote, unquote

from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.users import UserId

HOMES: Final = ".gateway-homes"
"""Its dot keeps it out of lists that follow all folders."""
SETTINGS: Final = "comfy.settings.json"
_UNWRITABLE: Final = frozenset({"Cc", "Cs"})


@dataclass(frozen=True, slots=True)
class Home:
    """One user's."""

    folder: str

    @classmethod
    def of(cls, keys: Keys, user: UserId | None) -> "Home":
        """Those who say no name have one together."""
        return cls(f"{HOMES}/{keys.space(None if user is None else user.key)}")

    def path_of(self, name: str) -> str | None:
        """Where a file or a folder of that name is, below ComfyUI's; None for a name that leads out of the home.

        ``name`` is decoded once, as aiohttp gives it to ComfyUI. The home itself for an empty one.
        """
        read = unquote(name) if "%" in name else name
        parts = [part for part in read.split("/") if part not in {"", "."}]
        is_absolute = read.startswith("/")
        if is_absolute or not all(_is_ordinary(part) for part in parts):
            return None
        return "/".join((self.folder, *parts))

    def shown(self, told: Any) -> Any:
        """A path, or what has one as ``path``, or a list of these, as the user knows it."""
        if isinstance(told, str):
            return told.replace("\\", "/").removeprefix(f"{self.folder}/")
        if isinstance(told, dict) and "path" in told:
            return {**told, "path": self.shown(told["path"])}
        return [self.shown(one) for one in told] if isinstance(told, list) else told


def asked(path: str) -> str:
    """The path as it is written where ComfyUI decodes once, and once more where a percent sign is left; to be encoded
    for the address.
    """
    return quote(path, safe="") if "%" in path else path


def _is_ordinary(part: str) -> bool:
    is_text = not any(category(letter) in _UNWRITABLE or letter == "\ufffd" for letter in part)
    return is_text and part != ".." and "\\" not in part
