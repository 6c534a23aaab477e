"""Takes an upload to the user's current server, and remembers what its name means.

The answer is the server's own. Without ``overwrite`` a name that means another content to this user already, on
whatever server, is not used again: ``a (1).png`` is tried, as ComfyUI does it, so that no workflow of before gets
another picture. With ``overwrite`` the name means the new content from now on; where prompts wait for the old one the
server keeps that, and the new content is put beside it. Where users are kept apart nobody overwrites on a shared server
what somebody else has uploaded, or what nobody has uploaded through the gateway; where they are hidden from one another
each has a folder of their own there, of which the answer does not tell (``core.inputs.spaces``).
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final
from weakref import WeakValueDictionary

import orjson

from comfy_gateway.core.errors import BackendUnavailable, PromptRefused, StorageUnavailable
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.ports import FormAnswer, FormFile, InputServer, InputStore
from comfy_gateway.core.inputs.refs import FOLDERS, canonical, first_of_numbered, numbered, read
from comfy_gateway.core.inputs.refusals import (
    BAD_ORIGINAL_REF,
    BAD_UPLOAD_NAME,
    BAD_UPLOAD_TYPE,
    IMAGE_IS_TEXT,
    OPERATORS_FOLDER,
    input_too_large,
)
from comfy_gateway.core.inputs.spaces import EVERYBODYS, InputSpace, InputSpaces
from comfy_gateway.core.inputs.uploads import Content, Copy, best_name, place_of
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.prompts.visibility import OPEN, Visibility
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.service.inputs.book import InputBook
from comfy_gateway.service.inputs.inputs import Inputs
from comfy_gateway.service.inputs.transfers import POD_BODY_BYTES, InputTransfers
from comfy_gateway.service.requests.routes import Routes

logger = logging.getLogger(__name__)

NOT_COMFYUIS: Final = frozenset({404, 502, 503, 521, 522, 523, 530})
"""What the proxy before a pod answers when there is no ComfyUI behind it; ComfyUI has none of these for an upload."""

MOST_NAMES: Final = 1000
MOST_SENT: Final = 5
"""Times that an upload is sent at most until it has a name of its own."""


@dataclass(frozen=True, slots=True)
class UploadForm:
    """What a client sent to ``/upload/image`` or ``/upload/mask``."""

    kind: str
    """``image`` or ``mask``."""
    fields: tuple[tuple[str, str], ...]
    """All fields that are text, in order; of several with one name the first counts."""
    filename: str | None
    """Of the field ``image``, or None when that was no file."""
    content_type: str
    content: Content | None
    """In the store; None without a file."""

    def field(self, name: str) -> str | None:
        """The first field of that name."""
        return next((value for key, value in self.fields if key == name), None)

    @property
    def overwrites(self) -> bool:
        """As ComfyUI reads it."""
        return self.field("overwrite") in {"true", "1"}

    @property
    def file(self) -> FileName | None:
        """What the file is to be called, or None for what is not remembered."""
        if not self.filename:
            return None
        return canonical(
            FileName(self.filename, self.field("subfolder") or "", self.field("type") or "input")
        )

    def changed(self, **changes: str | None) -> tuple[tuple[str, str], ...]:
        """The fields with others in the place of some; None takes one away."""
        kept = [(key, value) for key, value in self.fields if key not in changes]
        return (*kept, *((key, value) for key, value in changes.items() if value is not None))


@dataclass(frozen=True, slots=True)
class Taken:
    """A server's answer to an upload."""

    answer: FormAnswer
    backend: Backend


class InputUploads:
    """Takes uploads."""

    def __init__(
        self,
        *,
        inputs: Inputs,
        book: InputBook,
        store: InputStore,
        server: InputServer,
        transfers: InputTransfers,
        routes: Routes,
        pod_body_bytes: int = POD_BODY_BYTES,
        visibility: Visibility = OPEN,
        spaces: InputSpaces = EVERYBODYS,
    ) -> None:
        self._visibility = visibility
        self._spaces = spaces
        self._turns: WeakValueDictionary[tuple[str, FileName], asyncio.Lock] = WeakValueDictionary()
        self._inputs = inputs
        self._book = book
        self._store = store
        self._server = server
        self._transfers = transfers
        self._routes = routes
        self._pod_body_bytes = pod_body_bytes

    async def take(
        self,
        user: UserId | None,
        peer: str,
        form: UploadForm,
        headers: Mapping[str, str],
        *,
        is_operators: bool = False,
    ) -> Taken:
        """Put the file on the user's current server, or on home where it is for everybody. A server that is left
        meanwhile is followed by the next one, and a pod whose ComfyUI does not answer by duty: the file will be brought
        to where it is needed.

        Raises BackendUnavailable, and PromptRefused for a form that ComfyUI would stumble over, when the file, or the
        one that a mask is for, cannot be brought, and when the folder is not the user's to write in.
        """
        _check(form)
        if form.file is not None and self._spaces.is_shared(self._spaces.own(user).plain(form.file)):
            if not is_operators:
                raise PromptRefused(OPERATORS_FOLDER)
            return await self._take(user, peer, form, headers, self._routes.home)
        backend = self._routes.current(user)
        try:
            taken = await self._take(user, peer, form, headers, backend)
        except BackendUnavailable:
            if self._routes.current(user).id == backend.id:
                raise
        else:
            if backend.source is Source.DUTY or taken.answer.status not in NOT_COMFYUIS:
                return taken
        return await self._take(user, peer, form, headers, self._next(user, backend))

    def _next(self, user: UserId | None, failed: Backend) -> Backend:
        """The server to try after that one."""
        current = self._routes.current(user)
        return current if current.id != failed.id else self._routes.duty(user)

    async def _take(
        self, user: UserId | None, peer: str, form: UploadForm, headers: Mapping[str, str], backend: Backend
    ) -> Taken:
        if form.file is None or form.content is None:
            return Taken(await self._post(backend, form, form.filename, form.fields, headers), backend)
        asked = self._spaces.own(user).plain(form.file)
        space = self._spaces.on(backend, user)
        if form.kind == "mask":
            form = await self._with_original(user, peer, form, backend)
        # What nobody can know yet: the server puts the mask and its original together.
        content = None if form.kind == "mask" else form.content
        owners = self._spaces.owners(user, peer)
        # Of two uploads that want one name the second must see in the book what became of the first.
        here = space.there(asked)
        turn = self._turns.setdefault((place_of(backend), first_of_numbered(here)), asyncio.Lock())
        async with turn:
            if form.overwrites:
                target = self._overwritable(owners, here, backend, is_ours=bool(space.folder))
                is_overwriting = target is not None
                answer = await self._send(
                    form, target or here, backend, headers, is_overwriting=is_overwriting
                )
            else:
                answer = await self._send_beside(user, peer, form, asked, backend, content, headers)
            stored = answer.stored_as
            if stored is not None:
                await self._remember(owners[0], form, asked, stored, backend, space)
        return Taken(_shown(answer, space), backend)

    def _overwritable(
        self, owners: Sequence[str], asked: FileName, backend: Backend, *, is_ours: bool
    ) -> FileName | None:
        """The file of that server to put the new content in, or None when it must be put beside. ``is_ours``: nobody
        else may write there.
        """
        target: FileName | None = asked
        if self._visibility.guards_others and backend.source is Source.DUTY and not is_ours:
            target = self._own_file(owners, asked, place_of(backend))
        return None if target is None or self._inputs.is_awaited(backend, target) else target

    def _own_file(self, owners: Sequence[str], asked: FileName, place: str) -> FileName | None:
        """The file that is these owners' alone there and that they mean by that name, or None."""
        if self._book.is_own(owners, place, asked):
            return asked
        upload = self._book.meaning(owners, asked)
        copies = () if upload is None else self._book.copies_of(upload.content.sha256)
        stand_ins = (best_name([copy], asked) for copy in copies if copy.place == place)
        return next(
            (name for name in stand_ins if name is not None and self._book.is_own(owners, place, name)), None
        )

    async def _send_beside(
        self,
        user: UserId | None,
        peer: str,
        form: UploadForm,
        asked: FileName,
        backend: Backend,
        content: Content | None,
        headers: Mapping[str, str],
    ) -> FormAnswer:
        """Send it under the first name that means no other content to the user, here or elsewhere."""
        place, sent = place_of(backend), 0
        space, owners = self._spaces.on(backend, user), self._spaces.owners(user, peer)
        for name in islice(numbered(asked), MOST_NAMES):
            there = self._book.copy_at(place, space.there(name))
            if there is not None and there.content != content:
                continue
            if await self._inputs.is_taken(user, peer, name, backend, content):
                continue
            answer = await self._send(form, space.there(name), backend, headers, is_overwriting=False)
            sent += 1
            stored = answer.stored_as
            meaning = None if stored is None else self._book.meaning(owners, space.plain(stored))
            if meaning is None or meaning.content == content or sent == MOST_SENT:
                return answer
            # The server has renamed it to what is another picture for this user, elsewhere.
            assert stored is not None
            if content is not None:
                self._book.note_copy(Copy(place, stored, content, is_carried=True))
        return await self._send(form, space.there(asked), backend, headers, is_overwriting=False)

    async def _send(
        self,
        form: UploadForm,
        wanted: FileName,
        backend: Backend,
        headers: Mapping[str, str],
        *,
        is_overwriting: bool,
    ) -> FormAnswer:
        """``wanted`` is the server's name."""
        assert form.content is not None
        if backend.source is Source.PRIVATE and form.content.size_bytes > self._pod_body_bytes:
            return await self._send_in_parts(form, wanted, backend, replace=is_overwriting)
        fields = form.changed(overwrite="true" if is_overwriting else None, subfolder=wanted.subfolder)
        return await self._post(backend, form, wanted.filename, fields, headers)

    async def _post(
        self,
        backend: Backend,
        form: UploadForm,
        filename: str | None,
        fields: Sequence[tuple[str, str]],
        headers: Mapping[str, str],
    ) -> FormAnswer:
        file = None
        if form.content is not None and filename:
            path = self._store.path(form.content.sha256)
            file = FormFile(path, form.content.size_bytes, filename, form.content_type)
        try:
            return await self._server.post_form(backend, form.kind, fields, file, headers)
        except FileNotFoundError:
            raise BackendUnavailable("the kept file has vanished") from None

    async def _send_in_parts(
        self, form: UploadForm, wanted: FileName, backend: Backend, *, replace: bool
    ) -> FormAnswer:
        """What the proxy in front of a pod would refuse. The answer is made as ComfyUI makes it."""
        assert form.content is not None
        stored = None
        if form.kind == "image" and wanted.type == "input":
            try:
                stored = await self._transfers.send_by_agent(form.content, wanted, backend, replace=replace)
            except FileNotFoundError:
                raise BackendUnavailable("the kept file has vanished") from None
        if stored is None:
            why = f"It has {form.content.size_bytes} bytes; a pod takes that only as an input, and by its agent."
            raise PromptRefused(input_too_large(wanted.path, why))
        told = {"name": stored.filename, "subfolder": stored.subfolder, "type": stored.type}
        return FormAnswer(200, orjson.dumps(told), "application/json")

    async def _with_original(
        self, user: UserId | None, peer: str, form: UploadForm, backend: Backend
    ) -> UploadForm:
        """The form whose ``original_ref`` names the picture as that server knows it, once it is there."""
        reference = _reference(form.field("original_ref"))
        assert reference is not None
        there = await self._inputs.reference(user, peer, reference, backend)
        if there is None or there == reference:
            return form
        told = {"filename": there.filename, "subfolder": there.subfolder, "type": there.type}
        return replace(form, fields=form.changed(original_ref=orjson.dumps(told).decode()))

    async def _remember(
        self,
        owner_key: str,
        form: UploadForm,
        asked: FileName,
        stored: FileName,
        backend: Backend,
        space: InputSpace,
    ) -> None:
        """``asked`` is the user's name, ``stored`` the server's."""
        content, plain = form.content, space.plain(stored)
        if form.kind == "mask":
            try:
                content = await self._transfers.identify(backend, stored)
            except (BackendUnavailable, StorageUnavailable) as error:
                logger.warning("a picture with its new mask could not be kept: %s", error)
                content = None
        if content is None:
            self._book.forget_copy(place_of(backend), stored)
            self._forget(owner_key, plain)
            return
        if form.kind != "mask":
            self._book.note_copy(Copy(place_of(backend), stored, content))
        if not self._spaces.is_shared(plain):  # whose names mean what lies there
            self._book.note_upload(owner_key, plain, content)
            if form.overwrites and plain != asked:
                # Put beside what prompts wait for; who said "overwrite" means it by the name that was asked for.
                self._book.note_upload(owner_key, asked, content)
        await self._book.flush()

    def _forget(self, owner_key: str, file: FileName) -> None:
        """Something else is there now, nobody knows what: the name means whatever the server has."""
        while (meaning := self._book.meaning((owner_key,), file)) is not None:
            self._book.forget_upload(meaning)


def _shown(answer: FormAnswer, space: InputSpace) -> FormAnswer:
    """The answer with the user's own name for the file."""
    stored = answer.stored_as
    if stored is None or not space.folder:
        return replace(answer, body=space.shown(answer.body))
    plain = space.plain(stored)
    told = {**orjson.loads(answer.body), "subfolder": plain.subfolder}
    return replace(answer, body=orjson.dumps(told))


def _check(form: UploadForm) -> None:
    """Raises PromptRefused for what ComfyUI answers with 500, or with 400 and no word."""
    if form.field("image"):
        raise PromptRefused(IMAGE_IS_TEXT)
    if form.content is None:
        return
    if form.field("type") not in {None, *FOLDERS}:
        raise PromptRefused(BAD_UPLOAD_TYPE)
    if form.file is None:
        raise PromptRefused(BAD_UPLOAD_NAME)
    if form.kind == "mask" and _reference(form.field("original_ref")) is None:
        raise PromptRefused(BAD_ORIGINAL_REF)


def _reference(text: str | None) -> FileName | None:
    """What ``original_ref`` names: ``{"filename", "subfolder", "type"}``, where the filename may be annotated."""
    try:
        told: Any = orjson.loads(text or "")
    except orjson.JSONDecodeError:
        return None
    if not isinstance(told, dict):
        return None
    file = FileName.of(told)
    if file is None:
        return None
    ref = read(file.filename)
    if ref is not None and ref.is_annotated:
        file = FileName(ref.file.path, file.subfolder, ref.file.type)
    return canonical(file)
