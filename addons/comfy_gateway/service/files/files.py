"""Which server has the file that somebody asks for by the name under which it was shown.

The alias in the name says it for nearly all files (``core.files.files``). What is remembered here is the rest: names
that a server told as bare text (``"result": ["mesh/a.glb", …]``), which bear no alias, and what was told to those
who say no name. Everything is answered from memory.
"""

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Protocol

from comfy_gateway.core.files.files import ALIASED_TYPES, FileName, files_in, pod_alias, shown, without_alias
from comfy_gateway.core.files.whereabouts import InVault, Nowhere, OnBackend, Unknown, Whereabouts
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.service.files.file_owners import FileOwners
from comfy_gateway.service.files.told_files import ToldFiles
from comfy_gateway.service.requests.routes import Routes

MAX_LOOSE: Final = 20_000
MAX_AT_PLAIN: Final = 50_000

_LIKE_A_PATH: Final = re.compile(r"[^\x00-\x1f]{1,250}\.[A-Za-z0-9]{1,8}")

Watcher = Callable[[str | None, Backend, str, FileName], None]
"""Is called with the user's key, the server, the prompt's id and the file as that server names it."""


class Vault(Protocol):
    """What is asked of the vault here."""

    def holds(self, user_key: str, shown: FileName) -> bool:
        """Whether the name's first subfolder is that of a pod of this user of which something is in the vault."""
        ...


class NoVault:
    """Implements ``Vault`` where nothing is kept."""

    def holds(self, _user_key: str, _shown: FileName) -> bool:
        """Never."""
        return False


class Files:
    """What servers told of files, and what follows for a request."""

    def __init__(
        self,
        *,
        routes: Routes,
        told: ToldFiles,
        vault: Vault | None = None,
        owners: FileOwners | None = None,
        max_loose: int = MAX_LOOSE,
        max_at_plain: int = MAX_AT_PLAIN,
    ) -> None:
        self._max_loose = max_loose
        self._max_at_plain = max_at_plain
        self._routes = routes
        self._told = told
        self._owners = owners
        self.vault: Vault = vault or NoVault()
        self._loose: OrderedDict[tuple[str | None, str], tuple[str, str]] = OrderedDict()
        """Id and alias of the server that told this bare name last, by user and name."""
        self._at_plain: OrderedDict[FileName, None] = OrderedDict()
        """Names that the server without alias told in full: whatever a pod says in bare text, they mean its files."""
        self._listening: dict[str, Counter[str]] = {}
        """Open sockets of each user by peer."""
        self._watchers: list[Watcher] = []

    def note(self, user_key: str | None, backend: Backend, prompt_id: str, output: Any) -> None:
        """A server has told of an output of a node, or of several: ``output`` is as it came, without alias.

        Whoever listens for this user is told the same.
        """
        self.seen(user_key, backend, output)
        listening = tuple(self._listening.get(user_key, ())) if user_key is not None else ()
        for file in files_in(output):
            self.tell(listening, user_key, shown(file, backend.alias))
            for watcher in tuple(self._watchers):
                watcher(user_key, backend, prompt_id, file)

    def seen(self, user_key: str | None, backend: Backend, output: Any) -> None:
        """Outputs as a server names them were read somewhere: what their bare names mean is learned."""
        for file in files_in(output):
            if not backend.alias:
                self._remember_at_plain(file)
            if self._owners is not None and backend.source is Source.DUTY:
                self._owners.note(user_key, shown(file, backend.alias))
        self._learn(user_key, backend.id, backend.alias, output)

    def seen_kept(self, user_key: str | None, backend_id: str, output: Any) -> None:
        """Outputs in their shown form, of a server that may be gone."""
        alias = "" if backend_id in self._duty_ids() else pod_alias(backend_id)
        self._learn(user_key, backend_id, alias, output)

    def tell(self, peers: Iterable[str], user_key: str | None, file: FileName) -> None:
        """Those peers have read this shown name in what belongs to that user."""
        for peer in peers:
            if user_key is not None:
                self._told.note(peer, file, user_key)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have ``watcher`` called for each file that a server tells of; returns what ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    @contextmanager
    def listening(self, peer: str, user_key: str | None) -> Iterator[None]:
        """While a socket of this user is open at this peer, the peer is told what the socket tells."""
        if user_key is None:
            yield
            return
        peers = self._listening.setdefault(user_key, Counter())
        peers[peer] += 1
        try:
            yield
        finally:
            peers[peer] -= 1
            if not peers[peer]:
                del peers[peer]
            if not peers and self._listening.get(user_key) is peers:
                del self._listening[user_key]

    def resolve(self, user_key: str | None, peer: str, file: FileName) -> Whereabouts:
        """Where the file of that shown name is for this user, or for the one whose file this peer was told of.

        Unknown for a name without alias that nobody has told: an output or a temporary file of the server without
        alias, or what only the current server knows. Nowhere for a bare text of a server that is gone: another may have
        a file of that name.
        """
        if file.type not in ALIASED_TYPES:
            return Unknown()
        owner = user_key if user_key is not None else self._told.owner(peer, file)
        user = None if owner is None else UserId.from_key(owner)
        for backend in (*self._routes.duty_servers(), *self._routes.servers_of(user)):
            there = without_alias(file, backend.alias)
            if there is not None:
                is_kept = owner is not None and self.vault.holds(owner, file)
                return OnBackend(backend, there, kept_for=owner if is_kept else None)
        if owner is not None and self.vault.holds(owner, file):
            return InVault(owner, file)
        plain = self._routes.plain()
        if plain is not None and file in self._at_plain:
            return OnBackend(plain, file)
        return self._find_loose(owner, user, file)

    async def is_of(self, user_key: str | None, peer: str, file: FileName) -> bool:
        """Whether a file of a shared server, by its shown name, is this user's, or that of those whose prompt this
        peer was told of where no name is said. Where nobody notes whose files they are they are everybody's.
        """
        if self._owners is None:
            return True
        if user_key is None and (told := self._told.owner(peer, file)) is not None:
            user_key = told
        return await self._owners.is_of(user_key, file)

    def _find_loose(self, owner: str | None, user: UserId | None, file: FileName) -> Whereabouts:
        loose = self._loose.get((owner, file.path))
        if loose is None:
            return Unknown()
        backend_id, alias = loose
        backend = self._routes.by_id(user, backend_id)
        if backend is not None:
            return OnBackend(backend, file)
        kept = shown(file, alias)
        return InVault(owner, kept) if owner is not None and self.vault.holds(owner, kept) else Nowhere()

    def _learn(self, user_key: str | None, backend_id: str, alias: str, output: Any) -> None:
        for name in _loose_names(output):
            self._loose[user_key, name] = (backend_id, alias)
            self._loose.move_to_end((user_key, name))
            while len(self._loose) > self._max_loose:
                self._loose.popitem(last=False)

    def _duty_ids(self) -> set[str]:
        return {backend.id for backend in self._routes.duty_servers()}

    def _remember_at_plain(self, file: FileName) -> None:
        self._at_plain[file] = None
        self._at_plain.move_to_end(file)
        while len(self._at_plain) > self._max_at_plain:
            self._at_plain.popitem(last=False)


def _loose_names(output: Any) -> Iterator[str]:
    """Texts in an output that look like paths, but for those in a file that is named in full."""
    if isinstance(output, str):
        if _LIKE_A_PATH.fullmatch(output):
            yield output
    elif isinstance(output, list):
        for item in output:
            yield from _loose_names(item)
    elif isinstance(output, Mapping):
        is_file = FileName.of(output) is not None and ("type" in output or "subfolder" in output)
        for value in () if is_file else output.values():
            yield from _loose_names(value)
