"""Which servers have something of a user, and which one has a prompt."""

from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.prompts.prompts import PromptRecord
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.requests.routes import Routes


class UserServers:
    """Answered from memory."""

    def __init__(self, routes: Routes, ledger: Ledger) -> None:
        self._routes = routes
        self._ledger = ledger

    def of(self, user: UserId | None) -> list[Backend]:
        """Where this user's prompts are or were, duty first, and where the next one goes, last."""
        key = None if user is None else user.key
        with_records = {record.backend_id for record in self._ledger.of_user(key)}
        found = {backend.id: backend for backend in self._routes.servers_of(user)}
        for backend in self._routes.duty_servers():
            if backend.id in with_records:
                found.setdefault(backend.id, backend)
        return sorted(found.values(), key=lambda backend: backend.source is Source.PRIVATE)

    def current(self, user: UserId | None) -> Backend:
        """Where the user's next prompt goes."""
        return self._routes.current(user)

    def of_record(self, record: PromptRecord) -> Backend | None:
        """The server that has this prompt, or None when it is gone."""
        user = None if record.user_key is None else UserId.from_key(record.user_key)
        return self._routes.by_id(user, record.backend_id)

    def source_of(self, record: PromptRecord) -> Source:
        """The kind of server that the prompt is on, or was."""
        is_duty = any(backend.id == record.backend_id for backend in self._routes.duty_servers())
        return Source.DUTY if is_duty else Source.PRIVATE
