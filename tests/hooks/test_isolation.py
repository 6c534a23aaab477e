"""What the router keeps from people on the shared servers."""

from dataclasses import replace

import pytest
from mitmproxy import http

from comfy_gateway.core import site_contract
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.files.view_query import file_of_query
from comfy_gateway.core.files.whereabouts import InStore, Nowhere, Whereabouts
from comfy_gateway.core.prompts.visibility import Isolation, Visibility
from comfy_gateway.core.requests.operator_routes import OperatorRoutes
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.edge import NoInputs
from comfy_gateway.service.files.file_owners import FileOwners
from comfy_gateway.service.files.files import Files
from comfy_gateway.service.files.told_files import ToldFiles
from tests.hooks.stand import ALICE, BOB, HOME, POD, Stand, ask

ACTIONS, FULL = Visibility(Isolation.ACTIONS), Visibility(Isolation.FULL)
PICTURE = {"images": [{"filename": "a b.png", "subfolder": "", "type": "output"}]}


def apart(stand: Stand, visibility: Visibility) -> Files:
    """Keep people apart; returns what knows their files."""
    owners = FileOwners(stand.ledger, stand.clock)
    files = Files(routes=stand.routes, told=ToldFiles(stand.clock), owners=owners)
    stand.change(visibility=visibility, files=files)
    return files


def by(request_line: str, user: str | None) -> http.HTTPFlow:
    """A request of a user who is not at this machine."""
    method, _, path = request_line.partition(" ")
    return ask(path, method=method, user=user, headers=[("X-Forwarded-For", "192.0.2.7")])


def backend_of(flow: http.HTTPFlow) -> str | None:
    found = flow.metadata.get(edge.BACKEND)
    return None if found is None else str(found)


@pytest.mark.parametrize(
    "request_line",
    [
        "POST /free",
        "GET /api/manager/reboot",
        "GET /internal/logs",
        "GET /internal/files/temp",
        "DELETE /api/assets/1",
    ],
)
async def test_what_acts_on_the_whole_server_is_the_operators_and_on_a_pod_its_users(
    stand: Stand, request_line: str
) -> None:
    apart(stand, ACTIONS)
    refused = await stand.arrive(by(request_line, "alice"))
    assert refused.response is not None
    assert refused.response.status_code == 403
    assert b'"operators_only"' in (refused.response.content or b"")
    stand.routes.set_private(ALICE, POD)
    assert backend_of(await stand.arrive(by(request_line, "alice"))) == POD.id
    stand.change(visibility=Visibility())
    assert backend_of(await stand.arrive(by(request_line, "bob"))) is not None


async def test_the_pages_own_files_are_everybodys(stand: Stand) -> None:
    apart(stand, ACTIONS)
    stand.change(operator_routes=OperatorRoutes(("/*",)))
    assert backend_of(await stand.arrive(by("GET /assets/index.js", "alice"))) == HOME.id


@pytest.mark.parametrize("path", ["/view", "/api/view", "/vhs/viewvideo"])
@pytest.mark.parametrize(
    "query", ["filename=a%20b.png", "filename=x.png%20[temp]", "filename=/etc/x&type=path"]
)
async def test_a_file_that_is_not_the_users_is_not_there(stand: Stand, path: str, query: str) -> None:
    files = apart(stand, FULL)
    files.seen(BOB.key, HOME, PICTURE)
    found = await stand.arrive(by(f"GET {path}?{query}", "alice"))
    assert found.response is not None
    assert (found.response.status_code, found.response.content) == (404, b"")
    assert found.response.headers["content-type"] == "application/octet-stream"
    stand.change(visibility=ACTIONS)
    assert backend_of(await stand.arrive(by(f"GET {path}?{query}", "alice"))) is not None


async def test_a_file_of_the_users_own_is_asked_for_by_one_name(stand: Stand) -> None:
    files = apart(stand, FULL)
    files.seen(ALICE.key, HOME, PICTURE)
    own = await stand.arrive(by("GET /view?filename=a%20b.png&preview=webp&filename=other.png", "alice"))
    assert backend_of(own) == HOME.id
    query = own.request.path.partition("?")[2]
    assert query.count("filename=") == 1
    assert "preview=webp" in query
    assert file_of_query(query) == FileName("a b.png")


async def test_nobody_sees_what_their_address_was_told_of(stand: Stand) -> None:
    files = apart(stand, FULL)
    stand.change(identity=replace(stand.edge.identity, is_required=False))
    files.seen(BOB.key, HOME, PICTURE)
    flow = by("GET /view?filename=a%20b.png", None)
    peer = flow.client_conn.peername[0] if flow.client_conn.peername else ""
    assert backend_of(await stand.arrive(flow)) is None
    files.tell([peer], BOB.key, FileName("a b.png"))
    assert backend_of(await stand.arrive(by("GET /view?filename=a%20b.png", None))) == HOME.id


@pytest.mark.parametrize(
    ("request_line", "path"),
    [
        ("GET /api/userdata?dir=workflows", "/userdata?dir=workflows"),
        ("GET /v2/userdata", "/v2/userdata"),
        ("POST /userdata/w%2Fa%20b.json?overwrite=true", "/userdata/w%2Fa%20b.json?overwrite=true"),
        ("GET /user%64ata/w%2Fa", "/userdata/w%2Fa"),
        ("POST /api/userdata/w%2Fa/move/w%2Fb", "/userdata/w%2Fa/move/w%2Fb"),
        ("DELETE /userdata/w%2Fa", "/userdata/w%2Fa"),
        ("GET /settings", "/settings"),
        ("POST /api/settings/Comfy.Locale", "/settings/Comfy.Locale"),
        ("POST /users", "/users"),
        ("GET /userdata/a/b/c", "/userdata/a/b/c"),
    ],
)
async def test_homes_are_answered_by_the_site_where_everybody_has_one(
    stand: Stand, request_line: str, path: str
) -> None:
    apart(stand, FULL)
    assert backend_of(await stand.arrive(by(request_line, "alice"))) == HOME.id
    stand.change(has_homes=True)
    stand.routes.set_private(ALICE, POD)
    flow = await stand.arrive(by(request_line, "alice"))
    assert backend_of(flow) is None
    assert flow.request.path == f"{site_contract.HOME_PATH}{path}"
    assert backend_of(await stand.arrive(by("GET /i18n", "alice"))) == HOME.id


@pytest.mark.parametrize("path", ["/prompt", "/api/prompt"])
async def test_how_much_waits_is_counted_by_the_site_where_others_are_hidden(stand: Stand, path: str) -> None:
    apart(stand, ACTIONS)
    assert backend_of(await stand.arrive(by(f"GET {path}", "alice"))) is not None
    apart(stand, FULL)
    flow = await stand.arrive(by(f"GET {path}", "alice"))
    assert (backend_of(flow), flow.request.path) == (None, f"{site_contract.COMFY_PATH}/prompt")


class Hidden(NoInputs):
    """Uploads that are somebody else's."""

    def find(self, _user: object, _file: FileName) -> Whereabouts:
        return Nowhere()


async def test_an_upload_of_another_is_not_there_either(stand: Stand) -> None:
    apart(stand, FULL)
    stand.change(inputs=Hidden())
    found = await stand.arrive(by("GET /view?filename=a.png&type=input", "alice"))
    assert found.response is not None
    assert found.response.status_code == 404
    with_body = by("GET /view?filename=a.png&type=input", "alice")
    with_body.request.headers["Content-Length"] = "5"
    assert (await stand.arrive(with_body)).metadata[edge.SOURCE] == "gateway"


class Kept(NoInputs):
    """Uploads of one's own that the gateway alone still has."""

    def find(self, _user: object, file: FileName) -> Whereabouts:
        return InStore(ALICE.key, file)


async def test_an_upload_that_is_only_kept_is_shown_and_not_worked_on_by_a_shared_server(
    stand: Stand,
) -> None:
    apart(stand, FULL)
    stand.change(inputs=Kept())
    shown = await stand.arrive(by("GET /view?filename=a.png&type=input", "alice"))
    assert shown.request.path.startswith(site_contract.INPUT_PATH)
    worked_on = await stand.arrive(by("POST /my-node/crop?filename=a.png&type=input", "alice"))
    assert worked_on.response is not None
    assert worked_on.response.status_code == 404


async def test_on_a_pod_all_files_are_its_users(stand: Stand) -> None:
    apart(stand, FULL)
    stand.routes.set_private(ALICE, POD)
    found = await stand.arrive(by("GET /vhs/viewvideo?filename=a.mp4", "alice"))
    assert backend_of(found) == POD.id
