"""Rows of uploads and copies in dictionaries, with an outage switch."""

from collections import Counter
from collections.abc import Collection, Sequence

from comfy_gateway.core.errors import StoreUnavailable
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.inputs.uploads import Copy, Upload


class FakeUploadRows:
    """Implements ``core.inputs.ports.UploadRows``."""

    def __init__(self) -> None:
        self.uploads: dict[object, Upload] = {}
        self.copies: dict[tuple[str, FileName], Copy] = {}
        self.is_down = False
        self.calls: Counter[str] = Counter()

    async def load_uploads(self, newest: int) -> Sequence[Upload]:
        """By time."""
        self._answer("load_uploads")
        return sorted(self.uploads.values(), key=lambda upload: upload.at)[-newest:]

    async def load_copies(self, most: int) -> Sequence[Copy]:
        """In the order in which they were written."""
        self._answer("load_copies")
        return list(self.copies.values())[:most]

    async def write_uploads(
        self,
        *,
        uploads: Collection[Upload] = (),
        gone_uploads: Collection[Upload] = (),
        copies: Collection[Copy] = (),
        gone_copies: Collection[tuple[str, FileName]] = (),
    ) -> None:
        """All or nothing."""
        self._answer("write_uploads")
        for upload in uploads:
            self.uploads[upload.owner_key, upload.file, upload.at] = upload
        for upload in gone_uploads:
            self.uploads.pop((upload.owner_key, upload.file, upload.at), None)
        for key in gone_copies:
            self.copies.pop(key, None)
        for copy in copies:
            self.copies.pop((copy.place, copy.file), None)
            self.copies[copy.place, copy.file] = copy

    def _answer(self, call: str) -> None:
        self.calls[call] += 1
        if self.is_down:
            raise StoreUnavailable("the database does not answer")
