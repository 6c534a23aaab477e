"""Input files follow the prompts that name them.

A name means what its user last uploaded under it; a name that the user never uploaded means the file of the shared
server, which everybody sees there. Before a prompt is sent to a server, every file that it names is on that server: it
is there already, or it is brought there under the same name, or, when another file has that name there, under another
one, which then stands in the prompt. What cannot be found is left to ComfyUI, whose own answer says what is missing.

Where users are hidden from one another each has names of their own on the shared servers (``core.inputs.spaces``).
Users and the book of uploads know plain names; servers, and the copies in the book, have the server's.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from comfy_gateway.core.errors import BackendUnavailable, PromptRefused, StorageUnavailable, StoreUnavailable
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.files.whereabouts import InStore, InVault, Nowhere, OnBackend, Unknown, Whereabouts
from comfy_gateway.core.inputs.ports import InputServer, InputStore
from comfy_gateway.core.inputs.refs import (
    InputRef,
    UploadInputs,
    canonical,
    may_name_files,
    refs_in,
    strays_in,
    with_refs,
    written,
)
from comfy_gateway.core.inputs.refusals import DISK_FULL, INPUTS_UNKNOWN, input_unavailable, no_such_output
from comfy_gateway.core.inputs.spaces import EVERYBODYS, InputSpaces
from comfy_gateway.core.inputs.uploads import Content, Upload, best_name, carried_file, place_of
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.prompts.prompts import PromptRecord
from comfy_gateway.core.prompts.visibility import OPEN, Visibility
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.core.vault.vault import StoredFile
from comfy_gateway.service.inputs.book import InputBook
from comfy_gateway.service.inputs.transfers import ContentGone, InputTransfers
from comfy_gateway.service.requests.routes import Routes

logger = logging.getLogger(__name__)

CATALOGUE_WAIT_S: Final = 20.0
"""``/object_info`` may take seconds to be built; without it nobody knows which inputs are files."""
MAX_PROMPTS: Final = 20_000
"""Prompts whose files are remembered."""
IN_FLIGHT_S: Final = 120.0
"""How long a prompt that the ledger does not know may still be on its way to its server."""


class CatalogueOf(Protocol):
    """What is asked of one server's catalogue."""

    def upload_inputs(self, class_type: str) -> frozenset[str]:
        """Names of the inputs that bear an upload flag."""
        ...


class Catalogues(Protocol):
    """What servers can run."""

    def of(self, backend: Backend) -> CatalogueOf | None:
        """What is known of it."""
        ...

    async def fetch(self, backend: Backend) -> CatalogueOf:
        """Ask the server. Raises BackendUnavailable."""
        ...


class Files(Protocol):
    """Who has an output."""

    def resolve(self, user_key: str | None, peer: str, file: FileName) -> Whereabouts:
        """By the name under which it was shown, for this user."""
        ...

    async def is_of(self, user_key: str | None, peer: str, file: FileName) -> bool:
        """Whether a file of a shared server is for this user to use, by the name under which it was shown."""
        ...


class Vault(Protocol):
    """Outputs of pods that are gone."""

    async def find(self, user_key: str, shown: FileName) -> StoredFile | None:
        """The kept file of that name."""
        ...

    def chunks(self, stored: StoredFile) -> AsyncIterator[bytes]:
        """Its bytes. Raises StorageUnavailable and FileNotFoundError."""
        ...


class Prompts(Protocol):
    """What became of prompts."""

    def find(self, prompt_id: str) -> PromptRecord | None:
        """The record of a prompt."""
        ...

    def unfinished(self, *, backend_id: str | None = None) -> list[PromptRecord]:
        """Prompts that have not ended."""
        ...


@dataclass(frozen=True, slots=True)
class _Errand:
    """One prompt for one server."""

    user: UserId | None
    owners: tuple[str, ...]
    peer: str
    backend: Backend
    prompt_id: str
    at: datetime | None
    """When the prompt was accepted first, or None for a new one."""
    sources: tuple[Backend, ...]
    """Servers whose files this user may be brought."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A file that is not on the right server, or not under the name that the prompt says."""

    content: Content
    wanted: FileName
    """The plain name to give it."""


@dataclass(frozen=True, slots=True)
class _Use:
    """The files that a prompt names on its server."""

    place: str
    files: frozenset[FileName]
    at_s: float


class Inputs:
    """Carries files. See the top of this file."""

    def __init__(
        self,
        *,
        book: InputBook,
        store: InputStore,
        server: InputServer,
        transfers: InputTransfers,
        catalogues: Catalogues,
        files: Files,
        vault: Vault | None,
        prompts: Prompts,
        routes: Routes,
        clock: Clock,
        visibility: Visibility = OPEN,
        spaces: InputSpaces = EVERYBODYS,
    ) -> None:
        self._visibility = visibility
        self._spaces = spaces
        self._book = book
        self._store = store
        self._server = server
        self._transfers = transfers
        self._catalogues = catalogues
        self._files = files
        self.vault = vault
        """None where nothing is kept of pods that are gone."""
        self._prompts = prompts
        self._routes = routes
        self._clock = clock
        self._meant: OrderedDict[str, dict[FileName, _Found]] = OrderedDict()
        """What each prompt's names meant when it came: a replay of it means the same."""
        self._used: OrderedDict[str, _Use] = OrderedDict()
        self._own_names: dict[str, frozenset[str]] = {}
        """Inputs that a pod lists and the shared server does not, by the pod's place."""

    # -- before a prompt is sent

    def hides_names(self, backend: Backend) -> bool:
        """Whether that server has outputs of several users, who are not to see one another's."""
        return self._visibility.hides_others and backend.source is Source.DUTY

    async def carry(
        self, user: UserId | None, document: Mapping[str, Any], backend: Backend, *, peer: str = ""
    ) -> Mapping[str, Any]:
        """The body of ``POST /prompt`` as that server can run it, once all files that it names are there.

        The very same object when nothing has to change. ``peer`` is the client's address. The same ``prompt_id``
        again, as in a replay, means the same contents as before. Raises PromptRefused.
        """
        catalogue = await self._catalogue(user, backend, peer)
        if catalogue is None and self._spaces.on(backend, user).folder and may_name_files(document):
            # A name that nobody knows to be one would be read as the server's own.
            raise PromptRefused(INPUTS_UNKNOWN)
        upload_inputs: UploadInputs = _no_inputs if catalogue is None else catalogue.upload_inputs
        if self._spaces.on(backend, user).names_another(document.get("prompt")):
            raise PromptRefused(no_such_output("a file of somebody else"))
        if self.hides_names(backend):
            for text in strays_in(document, upload_inputs):
                raise PromptRefused(no_such_output(text))
        refs = refs_in(document, upload_inputs)
        errand = self._errand(user, document, backend, peer)
        if not refs:
            if catalogue is not None:
                self._note_use(errand, {})
            return document
        if errand.at is None:
            self._meant.pop(errand.prompt_id, None)  # of a prompt that was refused
        there: dict[InputRef, FileName] = {}
        try:
            for ref in refs:
                there[ref] = await self._brought(ref, errand)
        except StorageUnavailable as error:
            logger.error("an input file cannot be carried: %s", error)  # noqa: TRY400 - the text says all
            raise PromptRefused(DISK_FULL) from error
        self._note_use(errand, there)

        def new_text(ref: InputRef) -> str | None:
            file = there[ref]
            if file == ref.file:
                return None
            return written(file, is_annotated=ref.is_annotated or file.type != "input")

        return with_refs(document, upload_inputs, new_text)

    async def doubt(self, user: UserId | None, document: Mapping[str, Any], backend: Backend) -> bool:
        """After that server refused the prompt: look whether the files that should be there are.

        True when one is not; it is forgotten, and worth to carry and send the prompt once more.
        """
        del user
        use = self._used.get(str(document.get("prompt_id")))
        if use is None or use.place != place_of(backend):
            return False
        is_any_missing = False
        for file in use.files:
            if self._book.copy_at(use.place, file) is None:
                continue
            try:
                facts = await self._server.look(backend, file)
            except BackendUnavailable:
                return False
            if facts is None:
                self._book.forget_copy(use.place, file)
                is_any_missing = True
        return is_any_missing

    def shown(self, user: UserId | None, data: bytes) -> bytes:
        """JSON of a server as that user is told it: inputs by the names that the user gave them."""
        return self._spaces.own(user).shown(data)

    def is_awaited(self, backend: Backend, file: FileName) -> bool:
        """Whether a prompt that has not ended on that server may mean this file of it, by the server's name."""
        place = place_of(backend)
        for record in self._prompts.unfinished(backend_id=backend.id):
            use = self._used.get(record.prompt_id)
            # Of a prompt from before a restart of the gateway nobody knows.
            if use is None or (use.place == place and file in use.files):
                return True
        now_s = self._clock.monotonic()
        for prompt_id, use in reversed(self._used.items()):
            if now_s - use.at_s > IN_FLIGHT_S:
                break
            if use.place == place and file in use.files and self._prompts.find(prompt_id) is None:
                return True
        return False

    # -- what the router asks

    def takes_uploads(self) -> bool:
        """Always: whoever may be moved needs their uploads known."""
        return True

    def has_lists_to_merge(self, user: UserId | None) -> bool:
        """Whether the user has files that the current server's lists do not show."""
        if self._routes.private(user) is not None or self._spaces.are_apart:
            return True
        place = place_of(self._routes.current(user))
        for file, upload in self._book.uploads_of(self._spaces.owners(user, "")).items():
            copy = self._book.copy_at(place, file)
            if upload.is_listed and (copy is None or copy.content != upload.content):
                return True
        return False

    def find(self, user: UserId | None, file: FileName) -> Whereabouts:
        """Who can show this file: an upload of the user, or an input that only the shared server has.

        Unknown for everything else; outputs and temporary files that nobody uploaded are not for here.
        """
        current = self._routes.current(user)
        known = canonical(file)
        if known is None:
            is_of_all = file.type == "input" and bool(self._spaces.on(current, user).folder)
            return Nowhere() if is_of_all else Unknown()
        known = self._spaces.own(user).plain(known)
        upload = self._meaning(self._spaces.owners(user, ""), known)
        if upload is None:
            return self._find_unknown(user, known, current)
        for backend in (current, *self._sources(user)):
            place = place_of(backend)
            copies = (c for c in self._book.copies_of(upload.content.sha256) if c.place == place)
            name = best_name(copies, self._spaces.on(backend, user).there(known))
            if name is not None:
                return OnBackend(backend, name)
        if self._store.find(upload.content.sha256) is not None:
            return InStore(upload.owner_key, known if self._spaces.are_apart else file)
        return self._find_unknown(user, known, current) if self._spaces.are_apart else Unknown()

    def _find_unknown(self, user: UserId | None, known: FileName, current: Backend) -> Whereabouts:
        """A name that the user never uploaded, or whose content is nowhere."""
        if known.type != "input":
            return Unknown()
        place = place_of(current)
        if current.source is Source.DUTY:
            space = self._spaces.on(current, user)
            return OnBackend(self._holder(known, current), space.there(known)) if space.folder else Unknown()
        is_there = self._book.copy_at(place, known) is not None
        if is_there or known.path in self._own_names.get(place, ()):
            return Unknown()
        duty = self._routes.duty(user)
        return OnBackend(self._holder(known, duty), self._spaces.on(duty, user).there(known))

    def _holder(self, file: FileName, duty: Backend) -> Backend:
        """The shared server that has a file of the shared folder, as far as is known; else the user's own."""
        if self._spaces.is_shared(file):
            for server in (duty, *self._routes.duty_servers()):
                if self._book.copy_at(place_of(server), file) is not None:
                    return server
        return duty

    def note_own_names(self, backend: Backend, names: frozenset[str]) -> None:
        """That pod lists these inputs of its own, which no shared server has."""
        self._own_names[place_of(backend)] = names

    def forget_place(self, place: str) -> None:
        """The server is gone with all it had."""
        self._own_names.pop(place, None)
        self._book.forget_place(place)

    def kept(self, owner_key: str | None, file: FileName) -> Content | None:
        """The content of an upload in the store, by the names that InStore bears."""
        known = canonical(file)
        if known is None or owner_key is None:
            return None
        upload = self._book.meaning((owner_key,), known)
        return None if upload is None else self._store.find(upload.content.sha256)

    # -- how a file is found

    async def reference(
        self, user: UserId | None, peer: str, file: FileName, backend: Backend
    ) -> FileName | None:
        """Where on that server the file is that a user's ``original_ref`` names, brought there first.

        None for a name that is never carried. Raises PromptRefused.
        """
        known = canonical(file)
        if known is None:
            return None
        errand = self._errand(user, {}, backend, peer)
        try:
            return await self._brought(InputRef(known, is_annotated=True), errand)
        except StorageUnavailable as error:
            raise PromptRefused(DISK_FULL) from error

    async def is_taken(
        self, user: UserId | None, peer: str, file: FileName, backend: Backend, content: Content | None
    ) -> bool:
        """Whether a name means another content to this user already, be it only on another server than ``backend``.

        None is a content that nobody can know yet. Servers that do not answer are passed over.
        """
        upload = self._meaning(self._spaces.owners(user, peer), file)
        if upload is not None:
            return upload.content != content
        for server in self._duty_first(user):
            if place_of(server) == place_of(backend):
                continue
            there = self._spaces.on(server, user).there(file)
            try:
                facts = await self._server.look(server, there)
                if facts is None:
                    continue
                if content is None or facts.size_bytes not in {None, content.size_bytes}:
                    return True
                return await self._transfers.identify(server, there) != content
            except (BackendUnavailable, StorageUnavailable):
                continue
        return False

    async def _catalogue(self, user: UserId | None, backend: Backend, peer: str) -> CatalogueOf | None:
        """What says which inputs are files; None where nobody knows, or where nothing could have to be carried."""
        catalogue = self._catalogues.of(backend)
        if catalogue is None and not self._is_plain(user, backend, peer):
            try:
                async with asyncio.timeout(CATALOGUE_WAIT_S):
                    catalogue = await self._catalogues.fetch(backend)
            except (BackendUnavailable, TimeoutError):
                logger.warning("nobody knows which inputs on %s are files: it does not answer", backend.id)
                catalogue = self._catalogues.of(self._routes.home)
        return catalogue

    def _is_plain(self, user: UserId | None, backend: Backend, peer: str) -> bool:
        """Whether all files that this user can mean are where they are, under their names."""
        if self._spaces.are_apart:
            return False
        is_only_server = len(self._routes.duty_servers()) == 1 and backend.source is Source.DUTY
        return is_only_server and not self._book.uploads_of(self._spaces.owners(user, peer))

    def _errand(
        self, user: UserId | None, document: Mapping[str, Any], backend: Backend, peer: str
    ) -> _Errand:
        prompt_id = str(document.get("prompt_id") or "")
        record = self._prompts.find(prompt_id) if prompt_id else None
        return _Errand(
            user,
            self._spaces.owners(user, peer),
            peer,
            backend,
            prompt_id,
            None if record is None else record.accepted_at,
            tuple(self._sources(user)),
        )

    def _sources(self, user: UserId | None) -> Iterator[Backend]:
        yield from self._duty_first(user)
        for backend in self._routes.servers_of(user):
            if backend.source is Source.PRIVATE:
                yield backend

    def _duty_first(self, user: UserId | None) -> list[Backend]:
        """The shared servers, the user's own first."""
        own = self._routes.duty(user)
        return [own, *(server for server in self._routes.duty_servers() if server.id != own.id)]

    async def _brought(self, ref: InputRef, errand: _Errand) -> FileName:
        """Where the file is on the errand's server; where nothing can or need be done, what its name is there."""
        space = self._spaces.on(errand.backend, errand.user)
        # A prompt out of a picture, or one that moves, may have the names of a shared server.
        named = self._spaces.own(errand.user).plain(ref.file)
        found = None if errand.at is None else self._meant.get(errand.prompt_id, {}).get(named)
        if found is None:
            here_or_found = await self._find(named, errand)
            if not isinstance(here_or_found, _Found):
                return here_or_found or space.there(named)
            found = here_or_found
            self._note_meaning(errand, named, found)
        try:
            wanted = space.there(found.wanted)
            there = await self._transfers.place(found.content, wanted, errand.backend, errand.sources)
        except ContentGone:
            logger.warning("the content of an input file is nowhere any more; ComfyUI will say so")
            return space.there(named)
        plain = space.plain(there)
        if plain != named and self._book.meaning(errand.owners, plain) is None:
            # A prompt taken from the history, or out of a picture, names the file like this.
            self._book.note_upload(errand.owners[0], plain, found.content, is_listed=False)
        return there

    def _meaning(self, owners: Sequence[str], file: FileName, *, at: datetime | None = None) -> Upload | None:
        """What these owners mean by a plain name; names in the shared folder mean what lies there."""
        return None if self._spaces.is_shared(file) else self._book.meaning(owners, file, at=at)

    async def _find(self, file: FileName, errand: _Errand) -> _Found | FileName | None:
        """The file of a plain name on another server, or what it is called on the errand's own, or None where it is to
        have its usual name.
        """
        upload = self._meaning(errand.owners, file, at=errand.at)
        if upload is not None and self._can_be_had(upload, errand):
            return _Found(upload.content, file)
        if file.type == "input":
            content = await self._on_duty(file, errand)
            return None if content is None else _Found(content, file)
        return await self._output(file, errand)

    def _can_be_had(self, upload: Upload, errand: _Errand) -> bool:
        if self._store.find(upload.content.sha256) is not None:
            return True
        places = {place_of(backend) for backend in (errand.backend, *errand.sources)}
        return any(copy.place in places for copy in self._book.copies_of(upload.content.sha256))

    async def _on_duty(self, file: FileName, errand: _Errand) -> Content | None:
        """An input that nobody uploaded through us: what the shared servers have under that name."""
        place = place_of(errand.backend)
        servers = [server for server in self._duty_first(errand.user) if place_of(server) != place]
        if not servers:
            return None
        is_shared = errand.backend.source is Source.DUTY
        here = self._spaces.on(errand.backend, errand.user).there(file)
        if is_shared and (self._book.copy_at(place, here) or await self._is_there(here, errand.backend)):
            return None
        failure: BackendUnavailable | None = None
        for server in servers:
            there = self._spaces.on(server, errand.user).there(file)
            try:
                content = await self._transfers.identify(server, there)
            except BackendUnavailable as error:
                failure = error
                known = self._book.copy_at(place_of(server), there)
                content = None if known is None else known.content
            if content is not None:
                return content
        if failure is not None and not is_shared and not await self._is_there(here, errand.backend):
            logger.warning("an input file cannot be looked for: %s", failure)
            raise PromptRefused(
                input_unavailable(file.path, "The shared server does not answer.")
            ) from failure
        return None

    async def _is_there(self, file: FileName, backend: Backend) -> bool:
        """Whether the server has such a file. One that does not answer is asked by the prompt itself soon."""
        try:
            return await self._server.look(backend, file) is not None
        except BackendUnavailable:
            return True

    async def _output(self, file: FileName, errand: _Errand) -> _Found | FileName | None:
        user_key = None if errand.user is None else errand.user.key
        where = self._files.resolve(user_key, errand.peer, file)
        if isinstance(where, InVault):
            return await self._from_vault(where, file)
        if isinstance(where, OnBackend):
            backend, there = where.backend, canonical(where.file)
        else:  # a name without alias is that server's, and no other may be asked for it
            plain = None if isinstance(where, Nowhere) else self._routes.plain()
            if plain is None:
                raise PromptRefused(no_such_output(file.path))
            backend, there = plain, file
        if there is None:
            return None
        if self.hides_names(backend) and not await self._files.is_of(user_key, errand.peer, file):
            raise PromptRefused(no_such_output(file.path))
        if place_of(backend) == place_of(errand.backend):
            return there
        try:
            content = await self._transfers.identify(backend, there)
        except BackendUnavailable as error:
            logger.warning("an output that a prompt names cannot be read: %s", error)
            raise PromptRefused(input_unavailable(file.path, "Its server does not answer.")) from error
        return None if content is None else _Found(content, carried_file(content, file.filename))

    async def _from_vault(self, where: InVault, file: FileName) -> _Found | None:
        if self.vault is None or where.owner_key is None:
            return None
        try:
            stored = await self.vault.find(where.owner_key, where.file)
        except StoreUnavailable as error:
            raise PromptRefused(input_unavailable(file.path, "The database does not answer.")) from error
        if stored is None:
            return None
        content = self._store.find(stored.sha256)
        if content is None:
            try:
                async with self._store.part(stored.size_bytes) as part:
                    async for chunk in self.vault.chunks(stored):
                        await part.write(chunk)
                    content = await part.finish()
            except FileNotFoundError:
                return None
        return _Found(content, carried_file(content, file.filename))

    # -- what is remembered of prompts

    def _note_meaning(self, errand: _Errand, file: FileName, found: _Found) -> None:
        if errand.prompt_id:
            self._meant.setdefault(errand.prompt_id, {})[file] = found
            _bound(self._meant)

    def _note_use(self, errand: _Errand, there: Mapping[InputRef, FileName]) -> None:
        if errand.prompt_id:
            self._used.pop(errand.prompt_id, None)
            files = frozenset(there.values())
            self._used[errand.prompt_id] = _Use(place_of(errand.backend), files, self._clock.monotonic())
            _bound(self._used)


def _bound[V](prompts: "OrderedDict[str, V]") -> None:
    while len(prompts) > MAX_PROMPTS:
        prompts.popitem(last=False)


def _no_inputs(_class_type: str) -> Sequence[str]:
    return ()
