"""Where a file is that somebody asks for by the name under which it was shown."""

from dataclasses import dataclass

from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.requests.upstream import Backend


@dataclass(frozen=True, slots=True)
class OnBackend:
    """A server has it, under a name that may be another."""

    backend: Backend
    file: FileName
    kept_for: str | None = None
    """``UserId.key`` of whose vault may have it as well, should the server fail; None where that is not so."""


@dataclass(frozen=True, slots=True)
class InVault:
    """No server has it any more: the vault may. ``file`` is the shown name."""

    owner_key: str | None
    """``UserId.key`` of whose file it is, or None when nobody is known for it."""
    file: FileName


@dataclass(frozen=True, slots=True)
class InStore:
    """An upload that no server of this user has: the gateway kept it."""

    owner_key: str | None
    file: FileName


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nothing is known of the name: the user's current server is asked."""


@dataclass(frozen=True, slots=True)
class Nowhere:
    """Nothing that this user may see: answered as ComfyUI answers for a file that is not there."""


Whereabouts = OnBackend | InVault | InStore | Unknown | Nowhere
