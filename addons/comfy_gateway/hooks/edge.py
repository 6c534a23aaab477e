"""What the hooks share: the parts of the running gateway, and what one flow carries from hook to hook."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from mitmproxy import http
from mitmproxy.flow import Error

from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.files.whereabouts import Unknown, Whereabouts
from comfy_gateway.core.people.client_ids import ClientIds
from comfy_gateway.core.people.cookie import IdentityCookie
from comfy_gateway.core.people.hosts import AllowedHosts
from comfy_gateway.core.people.identity import IdentityRules
from comfy_gateway.core.people.sign_in import SignIn
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.prompts.visibility import OPEN, Visibility
from comfy_gateway.core.requests.classify import RouteRules
from comfy_gateway.core.requests.operator_routes import OperatorRoutes
from comfy_gateway.core.requests.upstream import Upstream
from comfy_gateway.service.files.files import Files
from comfy_gateway.service.interface.cache import InterfaceCache
from comfy_gateway.service.life.bursts import Bursts
from comfy_gateway.service.people.signed_in import SignedInSessions
from comfy_gateway.service.prompts.activity import Activity
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.prompts.submission import Submission
from comfy_gateway.service.requests.routes import Routes
from comfy_gateway.service.tasks import Tasks


class Inputs(Protocol):
    """What the router needs to know of people's uploads. All of it is answered from memory."""

    def takes_uploads(self) -> bool:
        """Whether ``/upload/image`` and ``/upload/mask`` go to the site rather than to the current backend."""
        ...

    def has_lists_to_merge(self, user: UserId | None) -> bool:
        """Whether the user has files that the current backend's ``/object_info`` does not list."""
        ...

    def find(self, user: UserId | None, file: FileName) -> Whereabouts:
        """Who can show this file of the type ``input``; Unknown leaves it to the current backend."""
        ...


class NoInputs:
    """Implements ``Inputs`` where nothing is known of uploads."""

    def takes_uploads(self) -> bool:
        """Never."""
        return False

    def has_lists_to_merge(self, _user: UserId | None) -> bool:
        """Never."""
        return False

    def find(self, _user: UserId | None, _file: FileName) -> Whereabouts:
        """Always unknown."""
        return Unknown()


@dataclass(frozen=True)
class Edge:
    """The parts of the running gateway that hooks call."""

    routes: Routes
    ledger: Ledger
    bursts: Bursts
    activity: Activity
    files: Files
    submission: Submission
    tasks: Tasks
    identity: IdentityRules
    cookie: IdentityCookie
    client_ids: ClientIds
    route_rules: RouteRules
    allowed_hosts: AllowedHosts
    is_public_https: bool
    site: Upstream
    site_key: str
    visibility: Visibility = OPEN
    has_homes: bool = False
    """Whether saved workflows and settings are each user's own."""
    operator_routes: OperatorRoutes = field(default_factory=OperatorRoutes.usual)
    """Of the shared servers, where people are kept apart."""
    inputs: Inputs = field(default_factory=NoInputs)
    sign_in: SignIn | None = None
    """None: nobody signs in."""
    sessions: SignedInSessions | None = None
    """Of browsers that have signed in, where the sign-in mode has any."""
    interface: InterfaceCache | None = None
    """None: every file of the front end is the shared server's to answer."""
    nudge: Callable[[UserId], None] = lambda _user: None
    """Has the user's pod looked at soon."""
    answered: Callable[[str, float], None] = lambda _kind, _seconds: None
    """Told of each answer: the request's class, and seconds from its first byte to that of its answer."""


class Door:
    """Closed until the gateway has started; hooks look here for every flow."""

    def __init__(self) -> None:
        self.edge: Edge | None = None

    def open(self, edge: Edge) -> None:
        """Let requests in."""
        self.edge = edge

    def close(self) -> None:
        """Answer 503 from now on."""
        self.edge = None


def is_recorded(flow: http.HTTPFlow) -> bool:
    """Whether mitmproxy only shows us a flow again that it has read from a file.

    Everything has happened then: such a flow is neither changed nor counted. mitmproxy's own addons look at
    ``live`` too. A person who kills a flow also ends its ``live``, but that one is of now and has to be ended.
    """
    was_killed = flow.error is not None and flow.error.msg == Error.KILLED_MESSAGE
    return not flow.live and not was_killed


# Keys of ``flow.metadata``. mitmproxy copies it and writes it into recorded flows: plain types only, no secrets.
SETTLED: Final = "gateway.settled"
"""True once a hook has decided where the flow goes; later ones leave it alone."""
CLASS: Final = "gateway.class"
USER: Final = "gateway.user"
"""``UserId.key``, or absent."""
ROLE: Final = "gateway.role"
"""``core.people.roles.Role``."""
PROVEN: Final = "gateway.proven"
"""True where the user has proved who they are."""
PEER: Final = "gateway.peer"
"""The caller's address, also behind a trusted proxy."""
HTTPS: Final = "gateway.https"
"""Whether the caller's browser speaks HTTPS."""
HOST: Final = "gateway.host"
"""``Host`` as the caller's browser sent it."""
SESSION: Final = "gateway.session"
"""Id of the browser's session of sign-in, or absent. It opens nothing: the cookie's signature is missing."""
REMEMBER_SESSION: Final = "gateway.remember_session"
"""Fields of the ``SignedIn`` whose cookie the browser is to get, or absent."""
REMEMBER: Final = "gateway.remember"
"""``UserId.key`` that the identity cookie is to be set to, or absent."""
OURS: Final = "gateway.origin_is_ours"
SOURCE: Final = "gateway.source"
READY: Final = "gateway.ready"
BACKEND: Final = "gateway.backend"
TRANSFER: Final = "gateway.transfer"
"""Backend id while the flow counts as a transfer there."""
PROMPT: Final = "gateway.prompt"
"""True for a prompt that was sent to a backend and whose answer is awaited."""
CLOSES: Final = "gateway.closes"
"""True where the client wants its connection closed after the answer."""
EXTENSIONS: Final = "gateway.extensions"
"""Set on the list of modules that ComfyUI's page imports, which is read."""
COMPRESS: Final = "gateway.compress"
"""True for a question whose answer is read to be compressed."""
LOCATION: Final = "gateway.location"
"""The upstream's address as a redirect would name it."""
