"""A place of each user's own among the inputs of a shared server, which nobody sees.

Where users are hidden from one another (``ISOLATION=full``) what a user calls ``a.png`` is ``<folder>/a.png`` on a
shared server. Every name is put there on its way in, whoever uploaded it, and taken out of it on its way back, so a
name that is not one's own names nothing: ComfyUI itself then says what is missing. On a pod, which is one user's alone,
names stay as they are. A file may be named by its server's name as well, as the metadata of a picture has it.

Files for 3D models are in a folder *below* ``3d``, for ComfyUI lists nothing else for them (0.3.64,
``nodes_load_3d.py``).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.uploads import owner_keys
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.requests.upstream import Backend, Source

_MODELS: Final = "3d"
_MARK: Final = b"user-"
_FOLDER: Final = re.compile(r"user-[a-z2-7]{26}")
_ANY_PATH: Final = re.compile(rb"user-[a-z2-7]{26}.*?(?=\\*\"|'[,\]]|\\n|$)")
"""In JSON: a folder and what stands behind it, to the end of the text, of the line, or of an item of a printed list."""


@dataclass(frozen=True, slots=True)
class InputSpace:
    """One user's names on one kind of server."""

    folder: str = ""
    """Empty where names stay as they are."""
    shared: str = ""
    """The folder that everybody reads by the same name; empty for none."""

    def there(self, file: FileName) -> FileName:
        """What the user's name is called on the server."""
        if not self.folder or is_within(file, self.shared):
            return file
        first, _, rest = file.subfolder.partition("/")
        if file.type == "input" and first == _MODELS:
            return replace(file, subfolder=_joined(_MODELS, self.folder, rest))
        return replace(file, subfolder=_joined(self.folder, file.subfolder))

    def names_another(self, prompt: Any) -> bool:
        """Whether some text of a prompt has the name of another's folder in it: nodes may read folders by names that
        are no files, and a picture's metadata tells the name.
        """
        waiting = [prompt] if self.folder else []
        while waiting:
            value = waiting.pop()
            if isinstance(value, str):
                if any(found != self.folder for found in _FOLDER.findall(value)):
                    return True
            elif isinstance(value, Mapping):
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value
        return False

    def plain(self, file: FileName) -> FileName:
        """What the user calls a file of the server; the name of any other stays as it is."""
        if not self.folder:
            return file
        match file.subfolder.split("/"):
            case [self.folder, *rest]:
                return replace(file, subfolder="/".join(rest))
            case ["3d", self.folder, *rest]:
                return replace(file, subfolder=_joined(_MODELS, *rest))
        return file

    def shown(self, data: bytes) -> bytes:
        """JSON of a server without its names: one's own are plain, of others' nothing is left."""
        if not self.folder or _MARK not in data:
            return data
        own = self.folder.encode()
        for mark in (own + b"/", own + rb"\\", b"/" + own, own):
            data = data.replace(mark, b"")
        return _ANY_PATH.sub(b"...", data)


PLAIN: Final = InputSpace()


@dataclass(frozen=True, slots=True)
class InputSpaces:
    """The spaces of all users; without ``keys`` every name stays as it is."""

    keys: Keys | None = None
    shared: str = ""

    @property
    def are_apart(self) -> bool:
        """Whether users have inputs of their own on the shared servers."""
        return self.keys is not None

    def own(self, user: UserId | None) -> InputSpace:
        """Those on the shared servers. Those who say no name are one user."""
        if self.keys is None:
            return PLAIN
        return InputSpace(self.keys.space(None if user is None else user.key), self.shared)

    def on(self, backend: Backend, user: UserId | None) -> InputSpace:
        """Those on that server."""
        return self.own(user) if backend.source is Source.DUTY else PLAIN

    def owners(self, user: UserId | None, peer: str) -> tuple[str, ...]:
        """Whose uploads a request means (``core.inputs.uploads.owner_keys``).

        Behind one address may be many people, so where they are kept apart an address says nothing.
        """
        return owner_keys(user, peer if self.keys is None else "")

    def is_shared(self, file: FileName) -> bool:
        """Whether everybody reads it under that name, and operators alone write it."""
        return self.keys is not None and is_within(file, self.shared)


EVERYBODYS: Final = InputSpaces()


def is_within(file: FileName, folder: str) -> bool:
    """Whether it is an input in that folder or below."""
    return bool(folder) and file.type == "input" and f"{file.subfolder}/".startswith(f"{folder}/")


def names_space(text: Any) -> bool:
    """Whether a text has the name of somebody's folder in it."""
    return isinstance(text, str) and _FOLDER.search(text) is not None


def without_spaces(told: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a node class as ``/object_info`` tells them (``{"required": {name: spec}}``) without the folders
    of users in any list. What does not change is shared.
    """
    return {
        group_name: (
            {name: _without_spaces(spec) for name, spec in group.items()}
            if isinstance(group, Mapping)
            else group
        )
        for group_name, group in told.items()
    }


def _without_spaces(spec: Any) -> Any:
    if not isinstance(spec, list) or not spec:
        return spec
    first, *rest = spec
    if isinstance(first, list) and any(map(names_space, first)):
        first = [name for name in first if not names_space(name)]
    options = rest[0].get("options") if rest and isinstance(rest[0], Mapping) else None
    if isinstance(options, list) and any(map(names_space, options)):
        kept = [name for name in options if not names_space(name)]
        rest = [{**rest[0], "options": kept}, *rest[1:]]
    return [first, *rest]


def _joined(*parts: str) -> str:
    return "/".join(part for part in parts if part)
