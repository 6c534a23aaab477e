"""Where the pods of all sessions are: ComfyUI, agent, tokens."""

from typing import Final

from comfy_gateway.core.keys import Keys
from comfy_gateway.core.life.session import MAY_BILL, Pod, Session, State
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.pods.pod_address import PodAddresses
from comfy_gateway.core.prompts.prompts import PromptRecord
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.core.vault.ports import PodPlace
from comfy_gateway.service.life.life import backend_of
from comfy_gateway.service.life.sessions import Sessions
from comfy_gateway.service.requests.routes import Routes

SERVING: Final = frozenset({State.READY, State.DRAINING})
"""States in which requests for a pod's files go to the pod."""


class PodPlaces:
    """Reads the sessions at each question, so that it never knows better than they do."""

    def __init__(self, sessions: Sessions, addresses: PodAddresses, keys: Keys) -> None:
        self._sessions = sessions
        self._addresses = addresses
        self._keys = keys

    def find(self, pod_name: str) -> PodPlace | None:
        """The pod while its session has it and the cloud has named it."""
        for session in self._sessions:
            pod = session.pod
            if pod is not None and pod.name == pod_name and pod.pod_id and session.state in MAY_BILL:
                return self._place(session, pod, pod.pod_id)
        return None

    def is_serving(self, alias: str) -> bool:
        """Whether a pod with this alias answers for its files itself."""
        return any(
            session.pod is not None
            and session.pod.pod_id is not None
            and session.state in SERVING
            and backend_of(session.pod, self._addresses, self._keys).alias == alias
            for session in self._sessions
        )

    def _place(self, session: Session, pod: Pod, pod_id: str) -> PodPlace:
        return PodPlace(
            user_key=session.user.key,
            backend=backend_of(pod, self._addresses, self._keys),
            agent_url=self._addresses.agent_url(pod_id),
            agent_token=self._keys.agent_token(pod.name),
        )

    def owners(self) -> dict[str, str]:
        """``UserId.key`` by name of each pod that the cloud has named."""
        return {
            session.pod.name: session.user.key
            for session in self._sessions
            if session.pod is not None and session.pod.pod_id
        }


class PromptServers:
    """Where a prompt ran: also a pod that has lost its route and is not gone yet."""

    def __init__(self, routes: Routes, places: PodPlaces) -> None:
        self._routes = routes
        self._places = places

    def find(self, record: PromptRecord) -> Backend | None:
        """The server that has the prompt, or None once it is gone."""
        user = None if record.user_key is None else UserId.from_key(record.user_key)
        backend = self._routes.by_id(user, record.backend_id)
        if backend is not None:
            return backend
        place = self._places.find(record.backend_id)
        return place.backend if place is not None and place.user_key == record.user_key else None
