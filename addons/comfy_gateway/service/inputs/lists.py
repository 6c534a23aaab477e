"""What is shown as input files: the user's own, wherever they are, those of the shared server, and the server's own.

Where users are hidden from one another nothing of a shared server is shown but the user's own files, and those in the
folder that everybody reads, as far as they came through the gateway: ComfyUI lists no subfolders.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.inputs.lists import EVERYTHING, listed_names, with_files
from comfy_gateway.core.inputs.ports import InputServer, InputStore
from comfy_gateway.core.inputs.spaces import EVERYBODYS, InputSpaces
from comfy_gateway.core.inputs.uploads import Upload, place_of
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.service.inputs.book import InputBook
from comfy_gateway.service.inputs.inputs import Inputs
from comfy_gateway.service.requests.routes import Routes

logger = logging.getLogger(__name__)

LARGE: Final = 200
"""Node classes from which on a thread is worth its while."""


class InputLists:
    """Merges lists of names."""

    def __init__(
        self,
        *,
        inputs: Inputs,
        book: InputBook,
        store: InputStore,
        server: InputServer,
        routes: Routes,
        spaces: InputSpaces = EVERYBODYS,
    ) -> None:
        self._spaces = spaces
        self._inputs = inputs
        self._book = book
        self._store = store
        self._server = server
        self._routes = routes

    async def merge(
        self,
        user: UserId | None,
        peer: str,
        backend: Backend,
        object_info: Mapping[str, Any],
        *,
        is_whole: bool,
    ) -> dict[str, Any]:
        """An answer of ``/object_info`` of that server with the files that this user can name in a prompt.

        ``is_whole``: not of one node class alone.
        """
        own = self._own_names(user, peer)
        shared = await self._shared_names(backend)
        shown = own | shared
        place = place_of(backend)
        hidden = {
            copy.file.path
            for copy in self._book.copies_at(place)
            if copy.is_carried and copy.file.type == "input" and copy.file.path not in shown
        }
        if is_whole and backend.source is Source.PRIVATE:
            self._inputs.note_own_names(backend, listed_names(object_info) - hidden - shown)
        work = partial(
            with_files,
            object_info,
            shown,
            EVERYTHING if self._spaces.on(backend, user).folder else hidden,
            shared=self._spaces.shared,
            hides_spaces=self._spaces.are_apart,
        )
        return work() if len(object_info) < LARGE else await asyncio.to_thread(work)

    async def names(self, user: UserId | None, peer: str, backend: Backend, folder: str) -> Sequence[str]:
        """What ``/internal/files/{folder}`` answers: names of that server, then of the others. Outputs bear aliases;
        those of shared servers are left out where users are hidden from one another.

        Raises BackendUnavailable when the server itself does not answer.
        """
        annotation = f" [{folder}]"
        told = await self._server.names(backend, folder)
        is_annotated = any(name.endswith(annotation) for name in told)
        if folder == "input" and self._spaces.on(backend, user).folder:
            told = []
        if folder == "input":
            shown = self._own_names(user, peer) | await self._shared_names(backend)
            more: Iterable[str] = sorted(name for name in shown if "/" not in name)
        else:
            more = []
            for other in self._routes.servers_of(user):
                if other.id != backend.id and not self._inputs.hides_names(other):
                    more = [*more, *_aliased(await self._names_or_none(other, folder), other)]
        names = [*_aliased((name.removesuffix(annotation) for name in told), backend, folder), *more]
        return [f"{name}{annotation}" if is_annotated else name for name in dict.fromkeys(names)]

    def _own_names(self, user: UserId | None, peer: str) -> set[str]:
        uploads = self._book.uploads_of(self._spaces.owners(user, peer))
        servers = (*self._routes.duty_servers(), *self._routes.servers_of(user))
        places = {place_of(server) for server in servers}
        return {
            file.path
            for file, upload in uploads.items()
            if upload.is_listed
            and file.type == "input"
            and not self._spaces.is_shared(file)
            and self._can_be_had(upload, places)
        }

    def _can_be_had(self, upload: Upload, places: set[str]) -> bool:
        sha256 = upload.content.sha256
        return self._store.find(sha256) is not None or any(
            copy.place in places for copy in self._book.copies_of(sha256)
        )

    async def _shared_names(self, backend: Backend) -> set[str]:
        """Inputs on the shared servers that are everybody's, but for those of ``backend``, which shows them itself."""
        names: set[str] = set()
        if self._spaces.are_apart:
            for server in self._routes.duty_servers():
                for copy in self._book.copies_at(place_of(server)):
                    if self._spaces.is_shared(copy.file):
                        names.add(copy.file.path)
            return names
        for server in self._routes.duty_servers():
            if place_of(server) != place_of(backend):
                names.update(await self._names_or_none(server, "input"))
        return names

    async def _names_or_none(self, server: Backend, folder: str) -> list[str]:
        try:
            told = await self._server.names(server, folder)
        except BackendUnavailable as error:
            logger.warning("the %s files of %s are not listed: %s", folder, server.id, error)
            return []
        return [name.removesuffix(f" [{folder}]") for name in told]


def _aliased(names: Iterable[str], server: Backend, folder: str = "output") -> list[str]:
    return [f"{server.alias}/{name}" if server.alias and folder != "input" else name for name in names]
