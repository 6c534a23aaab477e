"""Which user a ComfyUI ``client_id`` belongs to, so that all tabs of a browser are one user.

The first who is seen with a ``client_id`` keeps it. Whoever sends it later without any better identity (a
cookie-less socket of the same page, say) is taken for that user.
"""

from collections import OrderedDict
from typing import Final

from comfy_gateway.core.people.users import UserId

MAX_CLIENT_IDS: Final = 50_000
MAX_PER_USER: Final = 200
"""A script that invents an id for each prompt pushes out its own old ones, not those of others."""


class ClientIds:
    """In memory and bounded: beyond the bounds the ids that were not used for longest are forgotten."""

    def __init__(self, max_client_ids: int = MAX_CLIENT_IDS, max_per_user: int = MAX_PER_USER) -> None:
        self._max_client_ids = max_client_ids
        self._max_per_user = max_per_user
        self._owners: OrderedDict[str, UserId] = OrderedDict()
        self._of_user: dict[UserId, OrderedDict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def claim(self, client_id: str, user: UserId) -> UserId:
        """Join ``client_id`` to ``user`` unless it belongs to somebody; returns whom it belongs to."""
        owner = self.owner(client_id)
        if owner is not None:
            return owner
        own = self._of_user.setdefault(user, OrderedDict())
        own[client_id] = None
        self._owners[client_id] = user
        if len(own) > self._max_per_user:
            self._forget(next(iter(own)))
        if len(self._owners) > self._max_client_ids:
            self._forget(next(iter(self._owners)))
        return user

    def owner(self, client_id: str) -> UserId | None:
        """Whom it belongs to, or None; counts as a use."""
        user = self._owners.get(client_id)
        if user is not None:
            self._owners.move_to_end(client_id)
            self._of_user[user].move_to_end(client_id)
        return user

    def _forget(self, client_id: str) -> None:
        user = self._owners.pop(client_id)
        own = self._of_user[user]
        del own[client_id]
        if not own:
            del self._of_user[user]
