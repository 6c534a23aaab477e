"""Which server answers what: the last table of the design, row by row, and how its answer is dressed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.flow import Error as FlowError

from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.files.view_query import file_of_query
from comfy_gateway.core.files.whereabouts import InStore, OnBackend, Unknown, Whereabouts
from comfy_gateway.core.people.identity import IdentityRules
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.requests.classify import RequestClass, RouteRules
from comfy_gateway.core.requests.upstream import Upstream
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.edge import NoInputs
from tests.hooks.stand import ALICE, BOB, DUTY, HOME, PEER, POD, Stand, ask, prompt, socket, standing
from tests.hooks.test_identity import BROWSER


def on_site(path: str) -> tuple[str, str]:
    """Answered by the site, whoever has a pod."""
    return f"site {path}", f"site {path}"


ROWS: list[tuple[str, RequestClass, str, str]] = [
    # request, class, while on duty, on a private pod
    ("POST /prompt", RequestClass.PROMPT, DUTY.id, POD.id),
    ("POST /api/prompt", RequestClass.PROMPT, DUTY.id, POD.id),
    ("GET /prompt", RequestClass.COMPUTE, DUTY.id, POD.id),
    ("GET /system_stats", RequestClass.COMPUTE, DUTY.id, POD.id),
    ("GET /api/object_info", RequestClass.COMPUTE, DUTY.id, POD.id),
    ("GET /object_info/KSampler", RequestClass.COMPUTE, DUTY.id, POD.id),
    ("GET /models/checkpoints", RequestClass.COMPUTE, DUTY.id, POD.id),
    ("GET /embeddings", RequestClass.COMPUTE, DUTY.id, POD.id),
    ("POST /free", RequestClass.COMPUTE, DUTY.id, POD.id),
    ("GET /view_metadata/loras?filename=a", RequestClass.COMPUTE, DUTY.id, POD.id),
    ("GET /ws?clientId=tab", RequestClass.EVENTS, "site /-/relay?clientId=tab", "site /-/relay?clientId=tab"),
    ("GET /ws", RequestClass.EVENTS, "site /-/relay", "site /-/relay"),
    ("GET /queue", RequestClass.QUEUE, *on_site("/-/comfy/queue")),
    ("POST /api/queue", RequestClass.QUEUE, *on_site("/-/comfy/queue")),
    ("PUT /queue", RequestClass.QUEUE, DUTY.id, POD.id),
    ("POST /interrupt", RequestClass.QUEUE, *on_site("/-/comfy/interrupt")),
    ("GET /api/jobs?limit=3", RequestClass.QUEUE, *on_site("/-/comfy/jobs?limit=3")),
    ("GET /api/jobs/a%2Fb", RequestClass.QUEUE, *on_site("/-/comfy/jobs/a%2Fb")),
    ("POST /api/jobs/cancel", RequestClass.QUEUE, *on_site("/-/comfy/jobs/cancel")),
    ("POST /api/jobs/%61/cancel", RequestClass.QUEUE, *on_site("/-/comfy/jobs/%61/cancel")),
    ("GET /jobs", RequestClass.QUEUE, DUTY.id, POD.id),
    ("GET /api/jobs/a/b", RequestClass.QUEUE, DUTY.id, POD.id),
    ("DELETE /api/jobs/a", RequestClass.QUEUE, DUTY.id, POD.id),
    ("GET /history?max_items=64", RequestClass.RESULTS, *on_site("/-/comfy/history?max_items=64")),
    ("HEAD /api/history", RequestClass.RESULTS, *on_site("/-/comfy/history")),
    ("POST /history", RequestClass.RESULTS, *on_site("/-/comfy/history")),
    ("GET /history/%C3%A9?x", RequestClass.RESULTS, *on_site("/-/comfy/history/%C3%A9?x")),
    ("GET /history/", RequestClass.RESULTS, DUTY.id, POD.id),
    ("GET /history/a/b", RequestClass.RESULTS, DUTY.id, POD.id),
    ("GET /view?filename=a.png", RequestClass.RESULTS, HOME.id, HOME.id),
    ("GET /api/view?filename=a.png&type=temp", RequestClass.RESULTS, HOME.id, HOME.id),
    ("GET /view?filename=a.png&type=input", RequestClass.RESULTS, DUTY.id, POD.id),
    ("GET /view?filename=a.png%20[input]", RequestClass.RESULTS, DUTY.id, POD.id),
    ("GET /view?filename=a.png&type=other", RequestClass.RESULTS, DUTY.id, POD.id),
    ("GET /view", RequestClass.RESULTS, DUTY.id, POD.id),
    ("POST /upload/image", RequestClass.INPUTS, DUTY.id, POD.id),
    ("POST /api/upload/mask", RequestClass.INPUTS, DUTY.id, POD.id),
    ("GET /userdata/workflows%2Fa.json", RequestClass.HOME, HOME.id, HOME.id),
    ("POST /api/userdata/workflows%2Fa.json", RequestClass.HOME, HOME.id, HOME.id),
    ("GET /v2/userdata?path=workflows", RequestClass.HOME, HOME.id, HOME.id),
    ("POST /settings/Comfy.Locale", RequestClass.HOME, HOME.id, HOME.id),
    ("GET /users", RequestClass.HOME, HOME.id, HOME.id),
    ("GET /i18n", RequestClass.HOME, HOME.id, HOME.id),
    ("GET /workflow_templates", RequestClass.HOME, HOME.id, HOME.id),
    ("GET /", RequestClass.INTERFACE, HOME.id, HOME.id),
    ("HEAD /", RequestClass.INTERFACE, HOME.id, HOME.id),
    ("GET /assets/index-5f1d3c07.js", RequestClass.INTERFACE, HOME.id, HOME.id),
    ("GET /extensions", RequestClass.INTERFACE, HOME.id, HOME.id),
    ("GET /extensions/core/hello.js", RequestClass.INTERFACE, HOME.id, HOME.id),
    ("GET /templates/default.json", RequestClass.INTERFACE, HOME.id, HOME.id),
    ("GET /fonts/a.woff2", RequestClass.INTERFACE, HOME.id, HOME.id),
    ("GET /custom_node/thing", RequestClass.OTHER, DUTY.id, POD.id),
    ("GET /custom_node/thing?filename=a.png", RequestClass.OTHER, DUTY.id, POD.id),
    ("DELETE /api/whatever", RequestClass.OTHER, DUTY.id, POD.id),
    ("GET /gateway/", RequestClass.RESERVED, "site /gateway/", "site /gateway/"),
    ("GET /gateway/api/v1/me", RequestClass.RESERVED, "site /gateway/api/v1/me", "site /gateway/api/v1/me"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
async def test_each_row_of_the_table(stand: Stand, row: tuple[str, RequestClass, str, str]) -> None:
    line, request_class, on_duty, on_pod = row
    method, path = line.split(" ", 1)

    def request() -> http.HTTPFlow:
        if request_class is RequestClass.EVENTS:
            return socket(path)
        body = b'{"prompt": {}}' if method == "POST" else None
        return ask(path, method=method, body=body)

    flow = await stand.arrive(request())
    assert flow.metadata[edge.CLASS] == request_class
    assert stand.where(flow) == on_duty

    stand.routes.set_private(ALICE, POD)
    assert stand.where(await stand.arrive(request())) == on_pod

    stand.routes.clear_private(ALICE)
    assert stand.where(await stand.arrive(request())) == on_duty


async def test_each_class_of_the_table_has_a_row() -> None:
    assert {row[1] for row in ROWS} == set(RequestClass)


async def test_a_pattern_of_the_configuration_sends_a_custom_nodes_route_home(stand: Stand) -> None:
    stand.change(route_rules=RouteRules.parse({"/my_node/*": "home"}))
    assert stand.where(await stand.arrive(ask("/my_node/state"))) == HOME.id
    assert stand.where(await stand.arrive(ask("/api/my_node/state"))) == HOME.id
    assert stand.where(await stand.arrive(ask("/other_node/state"))) == DUTY.id


async def test_the_pod_of_one_user_is_nobody_elses(stand: Stand) -> None:
    stand.routes.set_private(ALICE, POD)
    assert stand.where(await stand.arrive(ask("/system_stats", user="bob"))) == DUTY.id
    flow = await stand.arrive(ask("/system_stats?user_id=alice", user="bob"))
    assert stand.where(flow) == DUTY.id
    # A client_id that happens to read like the name is not the name.
    assert stand.where(await stand.arrive(ask("/system_stats?client_id=alice", user=None))) == DUTY.id


# -- files

ALIASED = replace(POD, alias="private-1")
OTHERS = replace(POD, id="comfy-gw-bob-2", alias="private-2", upstream=Upstream("https", "pod2.test", 443))


class KeepsAlices:
    """A vault with files of a pod of Alice's that is gone."""

    def holds(self, user_key: str, shown: FileName) -> bool:
        return user_key == ALICE.key and shown.subfolder.split("/")[0] in {"private-0", "private-0@1"}


def query_of(flow: http.HTTPFlow) -> str:
    return flow.request.path.partition("?")[2]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("kind", ["output", "temp"])
async def test_a_file_is_shown_by_the_server_whose_alias_it_bears(
    stand: Stand, method: str, kind: str
) -> None:
    stand.routes.set_private(ALICE, ALIASED)
    query = f"filename=%C3%BC%2B+1.png&type={kind}&subfolder=private-1%2Fa%5Cb&preview=webp;90&rand=1"
    flow = await stand.arrive(ask(f"/api/view?{query}", method=method))
    assert stand.where(flow) == POD.id
    assert flow.request.path.startswith("/api/view?")
    assert file_of_query(query_of(flow)) == FileName("ü+ 1.png", "a\\b", kind)
    assert query_of(flow).endswith("&preview=webp;90&rand=1")
    assert stand.activity.in_flight(POD.id) == 1
    stand.routes.retire_private(ALICE)
    flow = await stand.arrive(ask(f"/view?{query}", method=method))
    assert flow.metadata[edge.BACKEND] == POD.id, "also while it drains"


async def test_the_same_name_without_alias_stays_homes_whatever_happens(stand: Stand) -> None:
    query = "filename=ComfyUI_00001_.png&subfolder=&type=output&rand=0.5"
    named = {"images": [{"filename": "ComfyUI_00001_.png", "type": "output"}]}
    happenings: list[Callable[[], object]] = [
        lambda: None,
        lambda: stand.routes.set_private(ALICE, ALIASED),
        lambda: stand.edge.files.note(ALICE.key, ALIASED, "p1", named),
        lambda: stand.routes.retire_private(ALICE),
        lambda: stand.routes.clear_private(ALICE),
    ]
    for happens in happenings:
        happens()
        flow = await stand.arrive(ask(f"/view?{query}"))
        assert stand.where(flow) == HOME.id
        assert query_of(flow) == query, "byte for byte"


async def test_the_pod_of_somebody_else_shows_nothing(stand: Stand) -> None:
    stand.routes.set_private(BOB, OTHERS)
    stand.routes.set_private(ALICE, ALIASED)
    for user in ("alice", None):
        stand.change(identity=IdentityRules(is_required=False))
        flow = await stand.arrive(ask("/view?filename=a.png&subfolder=private-2", user=user))
        assert stand.where(flow) == HOME.id, "which has no such folder"
    assert (
        stand.where(await stand.arrive(ask("/view?filename=a.png&subfolder=private-2", user="bob")))
        == OTHERS.id
    )


async def test_a_name_without_alias_is_asked_of_that_server_alone_wherever_it_stands_in_the_list() -> None:
    first = replace(HOME, alias="server-1")
    async with standing(home=first) as stand:
        assert stand.where(await stand.arrive(ask("/view?filename=a.png"))) == DUTY.id
        assert stand.where(await stand.arrive(ask("/view?filename=a.png&subfolder=server-1"))) == HOME.id
    async with standing(home=first, duty=replace(DUTY, alias="server-2")) as stand:
        assert stand.where(await stand.arrive(ask("/view?filename=a.png"))) == "404"
        assert stand.where(await stand.arrive(ask("/view?filename=a.png&type=temp", user="bob"))) == "404"
        assert stand.where(await stand.arrive(ask("/settings"))) == HOME.id


async def test_a_route_of_a_custom_node_that_names_a_file_of_home_goes_there_from_a_pod_too(
    stand: Stand,
) -> None:
    stand.routes.set_private(ALICE, ALIASED)
    stand.edge.files.note(ALICE.key, HOME, "p1", {"gifs": [{"filename": "v.mp4", "type": "output"}]})
    assert stand.where(await stand.arrive(ask("/viewvideo?filename=v.mp4&type=output"))) == HOME.id


async def test_files_of_a_pod_that_is_gone_come_from_the_vault_of_its_user(stand: Stand) -> None:
    stand.edge.files.vault = KeepsAlices()
    query = "filename=a%20b.png&subfolder=private-0%2Fx&channel=rgb"
    flow = await stand.arrive(ask(f"/view?{query}", headers=[("Range", "bytes=0-9")]))
    assert stand.where(flow) == f"site /-/vault?{query}"
    assert flow.request.headers["X-Gateway-Site-Owner"] == ALICE.key
    assert flow.request.headers["Range"] == "bytes=0-9"
    assert stand.where(await stand.arrive(ask("/view?filename=a&subfolder=private-0%401"))).startswith(
        "site /-/vault?"
    )
    assert stand.where(await stand.arrive(ask(f"/view?{query}", user="bob"))) == HOME.id
    assert stand.where(await stand.arrive(ask(f"/my_video?{query}"))) == f"site /-/vault?{query}"
    flow = await stand.arrive(ask(f"/my_video?{query}", method="POST", body=b"x"))
    assert stand.where(flow) == DUTY.id, "an order is for a server"


async def test_a_file_of_a_living_pod_that_the_vault_may_have_too_is_shown_by_the_site(stand: Stand) -> None:
    stand.edge.files.vault = KeepsAlices()
    kept = replace(POD, alias="private-0")
    stand.routes.set_private(ALICE, kept)
    query = "filename=a%20b.png&subfolder=private-0%2Fx&preview=webp%3B90"
    flow = await stand.arrive(ask(f"/api/view?{query}"))
    assert stand.where(flow) == f"site /-/pod_file?{query}"
    assert flow.request.headers["X-Gateway-Site-Owner"] == ALICE.key
    assert stand.activity.in_flight(kept.id) == 1, "the pod is not idle meanwhile"
    await stand.answer(flow)
    assert stand.activity.in_flight(kept.id) == 0
    assert stand.where(await stand.arrive(ask(f"/my_video?{query}"))) == kept.id, (
        "what that does only it knows"
    )
    assert stand.where(await stand.arrive(ask(f"/view?{query}", method="POST", body=b"x"))) == kept.id


# -- pods that fail


async def fails(stand: Stand, path: str, msg: str, **more: Any) -> None:
    flow = await stand.arrive(ask(path, **more))
    flow.error = FlowError(msg)
    await stand.break_off(flow)


async def test_a_pod_that_fails_a_request_is_looked_at(stand: Stand) -> None:
    nudged: list[UserId] = []
    stand.change(nudge=nudged.append)
    stand.routes.set_private(ALICE, POD)
    await fails(stand, "/system_stats", "[Errno 111] Connect call failed")
    assert nudged == [ALICE]
    for status in (200, 400, 404, 500):
        await stand.exchange(ask(), http.Response.make(status))
    assert nudged == [ALICE]
    await stand.exchange(ask(), http.Response.make(502))
    assert nudged == [ALICE] * 2


async def test_what_is_no_fault_of_a_pod_has_none_looked_at(stand: Stand) -> None:
    nudged: list[UserId] = []
    stand.change(nudge=nudged.append, identity=IdentityRules(is_required=False))
    stand.routes.set_private(ALICE, POD)
    await fails(stand, "/system_stats", "Client disconnected.")
    await fails(stand, "/settings", "[Errno 111] Connect call failed")
    await fails(stand, "/system_stats", "[Errno 111] Connect call failed", user="bob")
    await fails(stand, "/system_stats", "[Errno 111] Connect call failed", user=None)
    assert nudged == []
    stand.door.close()
    await stand.exchange(ask(), http.Response.make(502))


async def test_who_says_no_name_sees_the_files_that_this_address_was_told_of(stand: Stand) -> None:
    stand.change(identity=IdentityRules(is_required=False))
    stand.edge.files.vault = KeepsAlices()
    stand.routes.set_private(ALICE, ALIASED)
    for alias, where in (
        ("private-1", POD.id),
        ("private-0", "site /-/vault?filename=a.png&subfolder=private-0"),
    ):
        view = f"/view?filename=a.png&subfolder={alias}"
        assert stand.where(await stand.arrive(ask(view, user=None))) == HOME.id
        stand.edge.files.tell(["10.9.9.9"], ALICE.key, FileName("a.png", alias))
        assert stand.where(await stand.arrive(ask(view, user=None))) == HOME.id
        stand.edge.files.tell([PEER], ALICE.key, FileName("a.png", alias))
        flow = await stand.arrive(ask(view, user=None))
        assert stand.where(flow) == where
        if where != POD.id:
            assert flow.request.headers["X-Gateway-Site-Owner"] == ALICE.key
            assert "X-Gateway-Site-User" not in flow.request.headers


async def test_a_route_of_a_custom_node_that_names_a_file_goes_to_its_server(stand: Stand) -> None:
    stand.routes.set_private(ALICE, ALIASED)
    stand.edge.files.note(ALICE.key, DUTY, "p1", {"result": ["mesh/a.glb"]})
    flow = await stand.arrive(ask("/viewvideo?filename=v.mp4&subfolder=private-1&type=output&format=x"))
    assert stand.where(flow) == POD.id
    assert file_of_query(query_of(flow)) == FileName("v.mp4")
    assert stand.where(await stand.arrive(ask("/mesh?filename=a.glb&subfolder=mesh"))) == DUTY.id
    assert stand.where(await stand.arrive(ask("/mesh?filename=mesh/a.glb"))) == DUTY.id
    assert stand.where(await stand.arrive(ask("/view?filename=a.glb&subfolder=mesh&type=output"))) == DUTY.id
    assert stand.where(await stand.arrive(ask("/mesh?filename=unknown.glb"))) == POD.id, "the current server"


class HasUploads(NoInputs):
    """Alice's photo is on duty under another name, and her other one only here."""

    def find(self, user: UserId | None, file: FileName) -> Whereabouts:
        if user == ALICE and file == FileName("photo.png", "", "input"):
            return OnBackend(DUTY, FileName("photo (1).png", "", "input"))
        return InStore(ALICE.key, file) if file.filename == "kept.png" else Unknown()


async def test_uploads_are_shown_by_whoever_has_them(stand: Stand) -> None:
    stand.change(inputs=HasUploads())
    stand.routes.set_private(ALICE, POD)
    flow = await stand.arrive(ask("/view?filename=photo.png%20%5Binput%5D&type=temp&rand=1"))
    assert stand.where(flow) == DUTY.id
    assert query_of(flow) == "filename=photo%20%281%29.png&subfolder=&type=input&rand=1"
    flow = await stand.arrive(ask("/view?filename=kept.png&type=temp&preview=webp"))
    assert stand.where(flow) == "site /-/input?filename=kept.png&type=temp&preview=webp"
    assert stand.where(await stand.arrive(ask("/view?filename=photo.png&type=input", user="bob"))) == DUTY.id
    assert (
        stand.where(await stand.arrive(ask("/upload/image?filename=kept.png", method="POST", body=b"x")))
        == POD.id
    )


async def test_lists_of_files_are_merged_where_there_is_something_to_merge(stand: Stand) -> None:
    assert stand.where(await stand.arrive(ask("/internal/files/output"))) == DUTY.id
    stand.change(inputs=KnowsUploads())
    assert stand.where(await stand.arrive(ask("/internal/files/output?x=1"))) == "site /-/files/output?x=1"
    assert stand.where(await stand.arrive(ask("/internal/files/other"))) == DUTY.id
    assert stand.where(await stand.arrive(ask("/api/internal/files/output"))) == DUTY.id


async def test_who_says_no_name_asks_the_site_for_a_prompt(stand: Stand) -> None:
    stand.change(identity=IdentityRules(is_required=False))
    flow = await stand.arrive(ask("/api/history/p1?x=1", user=None))
    assert stand.where(flow) == "site /-/comfy/history/p1?x=1"
    assert flow.request.headers["X-Gateway-Site-Peer"] == PEER


async def test_a_socket_alone_asks_for_a_pod_only_where_the_threshold_is_nought(stand: Stand) -> None:
    await stand.arrive(socket())
    assert stand.begun == []


class KnowsUploads(NoInputs):
    """Knows of uploads of Alice."""

    def takes_uploads(self) -> bool:
        return True

    def has_lists_to_merge(self, user: UserId | None) -> bool:
        return user == ALICE


async def test_uploads_go_through_the_site_where_it_takes_them(stand: Stand) -> None:
    stand.change(inputs=KnowsUploads())
    body = b"--x--"
    flow = await stand.arrive(ask("/api/upload/image?x=1", method="POST", body=body))
    assert stand.where(flow) == "site /-/upload/image?x=1"
    assert flow.request.stream, "the body is not taken in"
    assert flow.request.headers["X-Gateway-Site-User"] == ALICE.key
    assert stand.activity.in_flight(DUTY.id) == 1, "it is work on the current server"
    await stand.answer(flow)
    assert stand.activity.in_flight(DUTY.id) == 0
    assert (
        stand.where(await stand.arrive(ask("/%75pload/mask", method="POST", body=body)))
        == "site /-/upload/mask"
    )
    assert stand.where(await stand.arrive(ask("/upload/other", method="POST", body=body))) == DUTY.id
    assert stand.where(await stand.arrive(ask("/upload/image"))) == DUTY.id, "no such route of ComfyUI"


async def test_a_short_upload_is_kept_where_people_look(stand: Stand) -> None:
    stand.change(inputs=KnowsUploads())
    stand.keep_bytes = 100
    for size, streams in ((100, False), (101, True)):
        flow = await stand.arrive(ask("/upload/image", method="POST", body=b"x" * size))
        assert flow.request.stream is streams


async def test_lists_of_nodes_are_merged_for_those_who_have_files_elsewhere(stand: Stand) -> None:
    stand.change(inputs=KnowsUploads())
    assert stand.where(await stand.arrive(ask("/api/object_info?a=b"))) == "site /-/object_info?a=b"
    assert (
        stand.where(await stand.arrive(ask("/object_info/Load%3FImage")))
        == "site /-/object_info/Load%3FImage"
    )
    assert stand.where(await stand.arrive(ask("/object_info/a/b"))) == DUTY.id
    assert stand.where(await stand.arrive(ask("/object_info", user="bob"))) == DUTY.id
    assert stand.where(await stand.arrive(ask("/models"))) == DUTY.id


# -- the answer


async def test_the_site_says_whose_answer_it_passes_on_and_nobody_else_does(stand: Stand) -> None:
    said = http.Response.make(200, headers={"X-Gateway-Site-Source": "private"})
    flow = await stand.exchange(ask("/gateway/"), said.copy())
    assert flow.response is not None
    assert flow.response.headers["X-Comfy-Session-Source"] == "private"
    assert "X-Gateway-Site-Source" not in flow.response.headers
    flow = await stand.exchange(ask("/system_stats"), said.copy())
    assert flow.response is not None
    assert flow.response.headers["X-Comfy-Session-Source"] == "duty"


async def test_the_session_headers_speak_of_the_user_and_of_who_answered(stand: Stand) -> None:
    async def told(path: str, **more: object) -> tuple[str, ...]:
        flow = await stand.exchange(ask(path, **more))  # type: ignore[arg-type]
        assert flow.response is not None
        names = ("Ready", "Source", "User")
        return tuple(flow.response.headers.get(f"X-Comfy-Session-{name}", "-") for name in names)

    assert await told("/system_stats") == ("0", "duty", "alice")
    stand.routes.set_private(ALICE, POD)
    assert await told("/system_stats") == ("1", "private", "alice")
    assert await told("/settings") == ("1", "duty", "alice")
    assert await told("/gateway/healthz") == ("1", "gateway", "alice")
    assert await told("/system_stats", user="bob") == ("0", "duty", "bob")
    assert await told("/extensions", user=None) == ("0", "duty", "-")


async def test_what_a_server_says_about_sessions_is_not_passed_on(stand: Stand) -> None:
    lies = {"X-Comfy-Session-Ready": "1", "X-Comfy-Session-Source": "private", "X-Comfy-Session-User": "root"}
    flow = await stand.exchange(ask("/extensions", user=None), http.Response.make(200, b"", lies))
    assert flow.response is not None
    headers = flow.response.headers
    assert headers["X-Comfy-Session-Ready"] == "0"
    assert headers["X-Comfy-Session-Source"] == "duty"
    assert "X-Comfy-Session-User" not in headers


async def test_the_servers_own_cookies_stay_beside_ours(stand: Stand) -> None:
    flow = ask("/?user_id=alice", user=None, headers=[BROWSER, ("Accept", "text/html")])
    await stand.exchange(flow, http.Response.make(200, b"", {"Set-Cookie": "theirs=1"}))
    assert flow.response is not None
    theirs, ours = flow.response.headers.get_all("Set-Cookie")
    assert theirs == "theirs=1"
    assert ours.startswith("comfy_gateway_user=")


# -- bodies


@pytest.mark.parametrize(
    ("keep_bytes", "length", "streams"),
    [
        (0, "3", True),
        (10, "3", False),
        (10, "10", False),
        (10, "11", True),
        (10, "x", True),
        (10, None, True),
    ],
)
async def test_bodies_stream_unless_somebody_looks_and_they_are_short(
    stand: Stand, keep_bytes: int, length: str | None, streams: bool
) -> None:
    stand.keep_bytes = keep_bytes
    headers = [] if length is None else [("Content-Length", length)]
    flow = await stand.arrive(ask("/upload/image", method="POST", headers=headers))
    assert flow.request.stream is streams
    answer = http.Response.make(200)
    answer.headers.pop("Content-Length", None)
    for name, value in headers:
        answer.headers[name] = value
    await stand.answer(flow, answer)
    assert flow.response is not None
    assert flow.response.stream is streams


async def test_a_prompts_answer_is_read_unless_it_is_huge(stand: Stand) -> None:
    for length, streams in (
        ("100", False),
        (str(10 * 1024 * 1024), False),
        (str(10 * 1024 * 1024 + 1), True),
    ):
        flow = await stand.arrive(prompt(b'{"prompt": {}}'))
        answer = http.Response.make(200, b"", {"Content-Length": length})
        answer.headers["Content-Length"] = length
        await stand.answer(flow, answer)
        assert flow.response is not None
        assert flow.response.stream is streams


# -- work in flight


@pytest.mark.parametrize("path", ["/view?filename=a.png&type=input", "/history"])
async def test_a_download_counts_as_work_until_it_ends(stand: Stand, path: str) -> None:
    stand.routes.set_private(ALICE, POD)
    flow = await stand.arrive(ask(path))
    assert stand.activity.in_flight(POD.id) == 1
    await stand.answer(flow)
    assert stand.activity.in_flight(POD.id) == 0
    await stand.break_off(flow)
    assert stand.activity.in_flight(POD.id) == 0, "an end counts once"


async def test_an_upload_that_breaks_off_is_no_longer_in_flight(stand: Stand) -> None:
    first = await stand.arrive(ask("/upload/image", method="POST", body=b"x"))
    await stand.arrive(ask("/upload/image", method="POST", body=b"x"))
    assert stand.activity.in_flight(DUTY.id) == 2
    await stand.break_off(first)
    assert stand.activity.in_flight(DUTY.id) == 1


@pytest.mark.parametrize("path", ["/queue", "/system_stats", "/", "/settings"])
async def test_polling_and_pages_are_no_work(stand: Stand, path: str) -> None:
    await stand.arrive(ask(path))
    assert stand.activity.in_flight(DUTY.id) == stand.activity.in_flight(HOME.id) == 0
    assert stand.activity.last_s(DUTY.id) is None


# -- the door


@pytest.mark.parametrize(
    "path", ["/", "/queue", "/gateway/healthz", "/assets/a.js", "/ws?clientId=a", "//odd"]
)
async def test_a_closed_door_is_a_503_that_says_when_to_come_back(stand: Stand, path: str) -> None:
    stand.door.close()
    flow = await stand.exchange(ask(path, user=None))
    assert flow.response is not None
    assert flow.response.status_code == 503
    assert flow.response.headers["Retry-After"] == "2"
    assert flow.response.json()["error"]["type"] == "gateway_starting"
    assert flow.response.headers["X-Comfy-Session-Ready"] == "0"
    assert "Set-Cookie" not in flow.response.headers


async def test_a_prompt_during_the_start_is_a_503_too(stand: Stand) -> None:
    stand.door.close()
    flow = await stand.exchange(prompt(b'{"prompt": {}}'))
    assert flow.response is not None
    assert flow.response.status_code == 503
    assert flow.response.headers["Retry-After"] == "2"


async def test_a_flow_that_outlives_the_gateway_ends_in_peace(stand: Stand) -> None:
    flow = await stand.arrive(ask("/view?filename=a.png"))
    stand.door.close()
    await stand.answer(flow)
    assert flow.response is not None
    assert flow.response.headers["X-Comfy-Session-Source"] == "duty"


async def test_each_answer_is_told_once_with_its_kind_and_how_long_it_took(stand: Stand) -> None:
    told: list[tuple[str, float]] = []
    stand.change(answered=lambda kind, seconds: told.append((kind, seconds)))
    flow = await stand.arrive(ask("/object_info"))
    answer = http.Response.make(200, b"{}")
    answer.timestamp_start = flow.request.timestamp_start + 1.5
    await stand.answer(flow, answer)
    backwards = await stand.arrive(ask("/history"))
    earlier = http.Response.make(200, b"{}")
    earlier.timestamp_start = backwards.request.timestamp_start - 60
    await stand.answer(backwards, earlier)
    assert told == [("compute", pytest.approx(1.5)), ("results", 0.0)]
