"""Sends each flow to the server that answers its class, and dresses what comes back."""

from collections.abc import Callable
from typing import Final

from mitmproxy import http
from mitmproxy.flow import Error

from comfy_gateway.core import site_contract
from comfy_gateway.core.files.files import ALIASED_TYPES, FileName
from comfy_gateway.core.files.view_query import file_of_query, naming
from comfy_gateway.core.files.whereabouts import InStore, InVault, Nowhere, OnBackend, Unknown, Whereabouts
from comfy_gateway.core.people.roles import Role
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.requests import routing
from comfy_gateway.core.requests.classify import RequestClass, is_under_api, route_of
from comfy_gateway.core.requests.refusals import OPERATORS_ROUTE, STARTING
from comfy_gateway.core.requests.upstream import Backend, Source
from comfy_gateway.hooks import edge, forward, kept_interface
from comfy_gateway.hooks.answers import answer, answer_here, answer_not_found
from comfy_gateway.hooks.edge import Door, Edge
from comfy_gateway.hooks.fail_closed import fail_closed_async
from comfy_gateway.hooks.header_fields import rewrite

_SAID_BY_SITE: Final = frozenset({site_contract.SOURCE.lower(), "x-comfy-session-user"})
MAX_BUFFERED_ANSWER_BYTES: Final = 10 * 1024 * 1024
MAX_COMPRESSED_ANSWER_BYTES: Final = 32 * 1024 * 1024
MUTE_STATUS: Final = 502
"""From here on it is a proxy's word that the server behind it does not answer."""
CLIENT_LEFT: Final = "Client disconnected."
"""mitmproxy's own words in ``flow.error``."""


class RouterHook:
    """The only hook that names a destination."""

    name = "gateway-router"

    def __init__(self, door: Door, *, keep_bytes: Callable[[], int]) -> None:
        self._door = door
        self._keep_bytes = keep_bytes

    @fail_closed_async
    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Every class but the prompt, whose body comes first."""
        gateway = self._door.edge
        if gateway is None:
            if not flow.metadata.get(edge.SETTLED):
                answer_here(flow, STARTING)
            return
        if flow.metadata.get(edge.SETTLED):
            return
        request_class = RequestClass(flow.metadata[edge.CLASS])
        if request_class is RequestClass.PROMPT:
            return
        forward.announce(flow, is_https=gateway.is_public_https)
        user = user_of(flow)
        if request_class is RequestClass.EVENTS:
            _to_relay(flow, gateway, user)
        elif request_class is RequestClass.RESERVED:
            forward.to_site(flow, gateway)
        elif request_class is RequestClass.INTERFACE and await kept_interface.serve(flow, gateway):
            pass
        elif _is_operators(flow, gateway, request_class, gateway.routes.current(user)):
            answer(flow, gateway, OPERATORS_ROUTE)
        elif (path := _path_on_site(flow, gateway, request_class, user)) is not None:
            forward.to_site(flow, gateway, path)
            flow.request.stream = not self._may_keep(flow.request.headers)
            if request_class in routing.IS_TRANSFER:
                _count(flow, gateway, gateway.routes.current(user))
        else:
            match await _place_of_file(flow, gateway, request_class, user):
                case InVault(owner_key, file):
                    _to_kept_file(flow, gateway, site_contract.VAULT_PATH, owner_key, file)
                case InStore(owner_key, file):
                    _to_kept_file(flow, gateway, site_contract.INPUT_PATH, owner_key, file)
                case OnBackend(backend, _, kept_for) if kept_for is not None and _is_view(
                    flow, request_class
                ):
                    _to_kept_file(flow, gateway, site_contract.POD_FILE_PATH, kept_for)
                    _count(flow, gateway, backend)
                case OnBackend(backend, file):
                    # Where files are hidden a server is asked for this name alone, however often the query says one.
                    _name_in_query(flow, file, is_only=gateway.visibility.hides_others)
                    self._to_comfyui(flow, gateway, request_class, user, owner=backend)
                case Unknown():
                    self._to_comfyui(flow, gateway, request_class, user)
                case Nowhere():
                    answer_not_found(flow, gateway)

    def _to_comfyui(
        self,
        flow: http.HTTPFlow,
        gateway: Edge,
        request_class: RequestClass,
        user: UserId | None,
        *,
        owner: Backend | None = None,
    ) -> None:
        routes = gateway.routes
        backend = routing.choose(request_class, home=routes.home, current=routes.current(user), owner=owner)
        if _is_operators(flow, gateway, request_class, backend):
            answer(flow, gateway, OPERATORS_ROUTE)
            return
        forward.to_backend(flow, backend)
        flow.request.stream = not self._may_keep(flow.request.headers)
        if request_class in routing.IS_TRANSFER:
            _count(flow, gateway, backend)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Session headers, cookie, and whether the body streams."""
        if edge.is_recorded(flow):
            return
        gateway = self._door.edge
        assert flow.response is not None
        if flow.response.status_code >= MUTE_STATUS:
            _doubt_pod(flow, gateway)
        if gateway is not None and flow.response.timestamp_start is not None:
            # The clock of the wall may be set meanwhile.
            seconds = max(flow.response.timestamp_start - flow.request.timestamp_start, 0.0)
            gateway.answered(flow.metadata.get(edge.CLASS, ""), seconds)
        forward.clean_response(flow)
        headers = flow.response.headers
        user = user_of(flow)
        is_ready = gateway is not None and gateway.routes.private(user) is not None
        flow.metadata[edge.READY] = is_ready
        said = headers.get(site_contract.SOURCE) if _is_of_site(flow) else None
        told = {
            "X-Comfy-Session-Ready": "1" if is_ready else "0",
            "X-Comfy-Session-Source": said or flow.metadata.get(edge.SOURCE, str(Source.GATEWAY)),
        }
        if user is not None:
            told["X-Comfy-Session-User"] = user.name
        rewrite(headers, drop=_SAID_BY_SITE, put=told)
        remember = flow.metadata.get(edge.REMEMBER)
        if remember is not None and gateway is not None:
            cookie = gateway.cookie.set_cookie_header(
                UserId.from_key(remember), secure=gateway.is_public_https
            )
            headers.add("Set-Cookie", cookie)
        if flow.metadata.get(edge.PROMPT):
            flow.response.stream = _is_long(headers, MAX_BUFFERED_ANSWER_BYTES)
        elif flow.metadata.get(edge.COMPRESS) or flow.metadata.get(edge.EXTENSIONS):
            flow.response.stream = not _is_short(headers, MAX_COMPRESSED_ANSWER_BYTES)
        else:
            flow.response.stream = not self._may_keep(headers)

    def response(self, flow: http.HTTPFlow) -> None:
        """The flow has ended well."""
        self._end(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        """The flow has ended otherwise."""
        if flow.error is not None and flow.error.msg not in {CLIENT_LEFT, Error.KILLED_MESSAGE}:
            _doubt_pod(flow, self._door.edge)
        self._end(flow)

    def _end(self, flow: http.HTTPFlow) -> None:
        if edge.is_recorded(flow):
            return
        backend_id = flow.metadata.pop(edge.TRANSFER, None)
        if backend_id is not None and self._door.edge is not None:
            self._door.edge.activity.end(backend_id)

    def _may_keep(self, headers: http.Headers) -> bool:
        """Whether mitmproxy may take the body in, so that people who look can see it."""
        return self._keep_bytes() > 0 and _is_short(headers, self._keep_bytes())


def user_of(flow: http.HTTPFlow) -> UserId | None:
    """The user whom the identity hook found."""
    key = flow.metadata.get(edge.USER)
    return None if key is None else UserId.from_key(key)


def _is_short(headers: http.Headers, limit_bytes: int) -> bool:
    length = headers.get("content-length", "")
    return length.isdecimal() and int(length) <= limit_bytes


def _is_long(headers: http.Headers, limit_bytes: int) -> bool:
    length = headers.get("content-length", "")
    return length.isdecimal() and int(length) > limit_bytes


def _to_relay(flow: http.HTTPFlow, gateway: Edge, user: UserId | None) -> None:
    # Frames are read and counted on the way; compressed ones would cost a second inflation for nothing.
    flow.request.headers.pop("sec-websocket-extensions", None)
    query = flow.request.path.partition("?")[2]
    forward.to_site(flow, gateway, site_contract.RELAY_PATH + (f"?{query}" if query else ""))
    if user is not None:
        gateway.bursts.seen(user)


def _path_on_site(
    flow: http.HTTPFlow, gateway: Edge, request_class: RequestClass, user: UserId | None
) -> str | None:
    """Where the site answers what no one server can, or None where a server answers."""
    request = flow.request
    path, query = request.path.partition("?")[::2]
    raw = path.split("/")
    merged = site_contract.COMFY_PATH
    found = None
    match request_class, request.method, route_of(path).split("/"):
        case RequestClass.INPUTS, "POST", ["", "upload", "image" | "mask" as kind]:
            if gateway.inputs.takes_uploads():
                found = site_contract.UPLOAD_PATH + kind
        case RequestClass.COMPUTE, "GET" | "HEAD", ["", "object_info", *node]:
            if len(node) < 2 and gateway.inputs.has_lists_to_merge(user):
                found = "/".join((site_contract.OBJECT_INFO_PATH, *(raw[-1:] if node else ())))
        case RequestClass.OTHER, "GET" | "HEAD", [
            "",
            "internal",
            "files",
            "input" | "output" | "temp" as kind,
        ]:
            if not is_under_api(path) and gateway.inputs.has_lists_to_merge(user):
                found = site_contract.FILE_LISTS_PATH + kind
        case RequestClass.RESULTS, "GET" | "HEAD" | "POST", ["", "history"]:
            found = f"{merged}/history"
        case RequestClass.RESULTS, "GET" | "HEAD", ["", "history", str(prompt_id)] if prompt_id:
            found = f"{merged}/history/{raw[-1]}"
        case RequestClass.HOME, _, ["", "userdata" | "v2" | "settings" | "users", *_] if gateway.has_homes:
            found = _path_of_home(route_of(path).split("/")[1:], raw)
        case RequestClass.COMPUTE, "GET" | "HEAD", ["", "prompt"] if gateway.visibility.hides_others:
            found = f"{merged}/prompt"
        case RequestClass.QUEUE, "GET" | "HEAD" | "POST", ["", "queue"]:
            found = f"{merged}/queue"
        case RequestClass.QUEUE, "POST", ["", "interrupt"]:
            found = f"{merged}/interrupt"
        case RequestClass.QUEUE, _, ["", "jobs", *_] if is_under_api(path):
            found = _path_of_jobs(request.method, route_of(path).split("/")[2:], raw[3:])
    return found and (f"{found}?{query}" if query else found)


def _path_of_home(segments: list[str], raw: list[str]) -> str:
    """``raw`` are the segments as they came. What ComfyUI does not have the site has not either."""
    below = segments[1:]
    match segments:
        case ["userdata", _, "move", _]:
            below = [raw[-3], "move", raw[-1]]
        case ["userdata" | "settings", _]:
            below = raw[-1:]
    return "/".join((site_contract.HOME_PATH, segments[0], *below))


def _path_of_jobs(method: str, below: list[str], raw: list[str]) -> str | None:
    """``below`` and ``raw`` are the segments behind ``/api/jobs``, decoded and as they came."""
    merged = site_contract.COMFY_PATH + "/jobs"
    match method, below:
        case "GET" | "HEAD", []:
            return merged
        case "GET" | "HEAD", [str(prompt_id)] if prompt_id:
            return f"{merged}/{raw[0]}"
        case "POST", ["cancel"]:
            return f"{merged}/cancel"
        case "POST", [str(prompt_id), "cancel"] if prompt_id:
            return f"{merged}/{raw[0]}/cancel"
    return None


def _doubt_pod(flow: http.HTTPFlow, gateway: Edge | None) -> None:
    """A pod has failed a request: have it looked at. It decides nothing, for a request can be made to fail."""
    user = user_of(flow)
    if gateway is not None and user is not None and flow.metadata.get(edge.SOURCE) == str(Source.PRIVATE):
        gateway.nudge(user)


def _count(flow: http.HTTPFlow, gateway: Edge, backend: Backend) -> None:
    """The flow is a transfer of that backend until it ends."""
    gateway.activity.begin(backend.id)
    flow.metadata[edge.TRANSFER] = backend.id


def _is_of_site(flow: http.HTTPFlow) -> bool:
    """Whether the site answers; a server behind us must not say who it is."""
    return flow.metadata.get(edge.SOURCE) == str(Source.GATEWAY) and edge.BACKEND not in flow.metadata


def _is_operators(flow: http.HTTPFlow, gateway: Edge, request_class: RequestClass, backend: Backend) -> bool:
    """Whether the route acts on everybody's server and its sender is no operator."""
    return (
        gateway.visibility.guards_others
        and backend.source is Source.DUTY
        and request_class is not RequestClass.INTERFACE
        and flow.metadata.get(edge.ROLE) != Role.OPERATOR
        and route_of(flow.request.path) in gateway.operator_routes
    )


async def _place_of_file(
    flow: http.HTTPFlow, gateway: Edge, request_class: RequestClass, user: UserId | None
) -> Whereabouts:
    """As ``_named_place``; a file of a shared server that is another's is nowhere where that is hidden."""
    file = _file_of(flow, request_class)
    if file is None:
        return Unknown()
    if gateway.visibility.hides_others:
        found = gateway.inputs.find(user, file)
        if isinstance(found, InStore) and flow.request.method not in {"GET", "HEAD"}:
            return Nowhere()
        if not isinstance(found, Unknown):
            return found  # their own upload, or what everybody reads
    found = _named_place(flow, gateway, request_class, user, file)
    if not gateway.visibility.hides_others or file.type == "input":
        return found
    asked = gateway.routes.current(user) if isinstance(found, Unknown) else None
    backend = found.backend if isinstance(found, OnBackend) else asked
    if backend is None or backend.source is not Source.DUTY:
        return found
    key = None if user is None else user.key
    if not await gateway.files.is_of(key, forward.peer_of(flow), file):
        return Nowhere()
    return OnBackend(backend, found.file if isinstance(found, OnBackend) else file)


def _named_place(
    flow: http.HTTPFlow, gateway: Edge, request_class: RequestClass, user: UserId | None, file: FileName
) -> Whereabouts:
    """Where the file is that the request names; Unknown for one that we do not know."""
    found = gateway.inputs.find(user, file)
    if isinstance(found, Unknown):
        found = gateway.files.resolve(None if user is None else user.key, forward.peer_of(flow), file)
    if isinstance(found, InVault | InStore) and flow.request.method not in {"GET", "HEAD"}:
        return Unknown()
    if isinstance(found, Unknown) and request_class is RequestClass.RESULTS and file.type in ALIASED_TYPES:
        plain = gateway.routes.plain()
        return Nowhere() if plain is None else OnBackend(plain, file)  # a name without alias is that server's
    return found


def _file_of(flow: http.HTTPFlow, request_class: RequestClass) -> FileName | None:
    path, query = flow.request.path.partition("?")[::2]
    is_view = request_class is RequestClass.RESULTS and route_of(path) == "/view"
    return file_of_query(query) if is_view or request_class is RequestClass.OTHER else None


def _is_view(flow: http.HTTPFlow, request_class: RequestClass) -> bool:
    """Whether the site can answer instead of a server: what a custom node does with a file, nobody else can."""
    return request_class is RequestClass.RESULTS and flow.request.method in {"GET", "HEAD"}


def _name_in_query(flow: http.HTTPFlow, file: FileName, *, is_only: bool = False) -> None:
    path, query = flow.request.path.partition("?")[::2]
    if is_only or file_of_query(query) != file:
        flow.request.path = f"{path}?{naming(query, file)}"


def _to_kept_file(
    flow: http.HTTPFlow, gateway: Edge, site_path: str, owner_key: str | None, file: FileName | None = None
) -> None:
    """``file``: what the site is to be asked for; None: what the query says."""
    if file is not None:
        _name_in_query(flow, file)
    query = flow.request.path.partition("?")[2]
    headers = {} if owner_key is None else {site_contract.OWNER: owner_key}
    forward.to_site(flow, gateway, f"{site_path}?{query}", headers)
