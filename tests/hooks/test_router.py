"""Which server answers what: the last table of the design, row by row, and how its answer is dressed."""

import pytest
from mitmproxy import http

from comfy_gateway.core.classify import RequestClass, RouteRules
from comfy_gateway.core.identity import IdentityRules
from comfy_gateway.core.prompts import PromptRecord
from comfy_gateway.core.users import UserId
from comfy_gateway.hooks import edge
from comfy_gateway.hooks.edge import NoInputs
from tests.hooks.stand import ALICE, BOB, DUTY, HOME, PEER, POD, Stand, ask, prompt, socket
from tests.hooks.test_identity import BROWSER

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
    ("GET /queue", RequestClass.QUEUE, DUTY.id, POD.id),
    ("POST /queue", RequestClass.QUEUE, DUTY.id, POD.id),
    ("POST /interrupt", RequestClass.QUEUE, DUTY.id, POD.id),
    ("GET /api/jobs", RequestClass.QUEUE, DUTY.id, POD.id),
    ("GET /history", RequestClass.RESULTS, DUTY.id, POD.id),
    ("GET /history/unknown", RequestClass.RESULTS, DUTY.id, POD.id),
    ("GET /view?filename=a.png", RequestClass.RESULTS, DUTY.id, POD.id),
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
    assert stand.where(await stand.arrive(ask("/queue?client_id=alice", user=None))) == DUTY.id


def _note(stand: Stand, prompt_id: str, backend_id: str, user_key: str | None = ALICE.key) -> None:
    stand.ledger.accept(PromptRecord(prompt_id, user_key, "tab", backend_id))


async def test_a_history_is_answered_by_the_server_that_has_the_prompt(stand: Stand) -> None:
    _note(stand, "old", DUTY.id)
    _note(stand, "new", POD.id)
    _note(stand, "bobs", DUTY.id, BOB.key)
    stand.routes.set_private(ALICE, POD)
    assert stand.where(await stand.arrive(ask("/history/old"))) == DUTY.id
    assert stand.where(await stand.arrive(ask("/api/history/new"))) == POD.id
    assert stand.where(await stand.arrive(ask("/history/bobs"))) == POD.id, "not for her to find"
    stand.routes.retire_private(ALICE)
    assert stand.where(await stand.arrive(ask("/history/old"))) == DUTY.id
    # The draining pod still has it.
    flow = await stand.arrive(ask("/history/new"))
    assert flow.metadata[edge.BACKEND] == POD.id
    stand.routes.clear_private(ALICE)
    assert stand.where(await stand.arrive(ask("/history/new"))) == DUTY.id


async def test_nobody_in_particular_finds_prompt_and_picture_by_their_own_ids(stand: Stand) -> None:
    stand.change(identity=IdentityRules(is_required=False))
    stand.routes.set_private(ALICE, POD)
    _note(stand, "p1", POD.id)
    flow = await stand.arrive(ask("/api/history/p1?x=1", user=None))
    assert stand.where(flow) == "site /-/history/p1"
    assert stand.where(await stand.arrive(ask("/history/unknown", user=None))) == DUTY.id
    assert stand.where(await stand.arrive(ask("/history/p1", user=None, method="HEAD"))) == DUTY.id

    picture = "/view?filename=a.png&subfolder=&type=output"
    assert stand.where(await stand.arrive(ask(picture, user=None))) == DUTY.id
    stand.edge.told.note(PEER, ("a.png", "", "output"), POD.id, ALICE.key)
    assert stand.where(await stand.arrive(ask(picture, user=None))) == POD.id
    assert stand.where(await stand.arrive(ask("/view?filename=b.png", user=None))) == DUTY.id
    assert stand.where(await stand.arrive(ask("/view", user=None))) == DUTY.id


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

    assert await told("/queue") == ("0", "duty", "alice")
    stand.routes.set_private(ALICE, POD)
    assert await told("/queue") == ("1", "private", "alice")
    assert await told("/settings") == ("1", "duty", "alice")
    assert await told("/gateway/healthz") == ("1", "gateway", "alice")
    assert await told("/queue", user="bob") == ("0", "duty", "bob")
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


@pytest.mark.parametrize("path", ["/view?filename=a.png", "/history"])
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
