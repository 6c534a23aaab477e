"""What a real ComfyUI and its real front end said, driven through the hooks."""

import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.io import FlowReader

from comfy_gateway.core.events import frames
from comfy_gateway.core.events.socket_ids import upstream_sid
from comfy_gateway.core.events.stories import Stories, Story
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.requests.classify import RequestClass
from comfy_gateway.hooks import edge
from tests.e2e.gateway_process import environment, mitmdump
from tests.hooks.stand import DUTY, HOME, KEYS, POD, Stand, standing
from tests.replay.clean import OUR_COOKIE, STRIPPED
from tests.replay.drive import SID, USER
from tests.replay.recordings import FILES, as_live, everything, line_of, recorded

RECORDER = UserId(IdKind.NAMED, USER)

C = RequestClass
TABLE: list[tuple[str, RequestClass]] = [
    (r"POST /prompt", C.PROMPT),
    (r"GET (/api)?/(prompt|system_stats|embeddings|models|object_info(/\w+)?|experiment/models)", C.COMPUTE),
    (r"POST /free", C.COMPUTE),
    (r"GET /ws", C.EVENTS),
    (r"GET (/api)?/queue", C.QUEUE),
    (r"POST /(queue|interrupt)", C.QUEUE),
    (r"GET (/api)?/(history(/[0-9a-f-]{36})?|view)", C.RESULTS),
    (r"POST /history", C.RESULTS),
    (r"POST /upload/image", C.INPUTS),
    (r"GET (/api)?/(users|settings|i18n|userdata)", C.HOME),
    (r"(GET|POST|DELETE) /api/userdata/[^/]+", C.HOME),
    (r"GET /", C.INTERFACE),
    (r"GET (/api)?/extensions", C.INTERFACE),
    (r"GET /assets/\S+", C.INTERFACE),
    (r"GET /[\w.]+\.(css|ico)", C.INTERFACE),
]
"""Who answers what, written down by hand from the design's table."""

AT_HOME = {C.HOME, C.INTERFACE}


@pytest.fixture
async def stand() -> Any:
    async with standing() as made:
        yield made


def named(stand: Stand, flow: http.HTTPFlow) -> http.HTTPFlow:
    """The flow with a cookie that this gateway has signed, where it had one of the gateway of that time."""
    value = stand.edge.cookie.set_cookie_header(RECORDER, secure=False).partition(";")[0]
    if "cookie" in flow.request.headers:
        cookies = flow.request.headers["Cookie"]
        flow.request.headers["Cookie"] = cookies.replace(f"{OUR_COOKIE}={STRIPPED}", value)
    return flow


async def happen(stand: Stand, flow: http.HTTPFlow) -> http.HTTPFlow:
    """Request and answer as they came then."""
    answer = as_live(named(stand, flow))
    return await stand.exchange(flow, answer)


def table_says(flow: http.HTTPFlow) -> RequestClass:
    [found] = {known for pattern, known in TABLE if re.fullmatch(pattern, line_of(flow))}
    return found


def test_there_are_recordings_of_calls_a_page_and_a_socket_and_they_are_small() -> None:
    assert {path.stem for path in FILES} >= {"api", "page", "socket"}
    assert sum(path.stat().st_size for path in FILES) < 500_000
    assert {table_says(flow) for flow in everything()} == set(C) - {C.OTHER, C.RESERVED}


async def test_each_request_is_of_the_class_that_the_table_says(stand: Stand) -> None:
    for flow in everything():
        expected = table_says(flow)
        await happen(stand, flow)
        assert flow.metadata[edge.CLASS] == expected, line_of(flow)
        assert flow.metadata[edge.CLASS] == flow.metadata["recorded.class"], "as in the gateway of that time"


def expected_place(flow: http.HTTPFlow, current: str) -> str:
    found = table_says(flow)
    if found is C.EVENTS:
        query = flow.request.path.partition("?")[2]
        return f"site /-/relay?{query}" if query else "site /-/relay"
    merged = re.fullmatch(r"(?:/api)?(/(?:queue|interrupt|history(?:/[^/?]+)?)(?:\?.*)?)", flow.request.path)
    if found in {C.QUEUE, C.RESULTS} and merged is not None:
        return f"site /-/comfy{merged[1]}"
    if found is C.RESULTS and flow.request.query.get("type") != "input":
        return HOME.id  # a picture whose name bears no alias
    return HOME.id if found in AT_HOME else current


async def test_each_request_goes_where_the_table_says_before_and_after_a_pod(stand: Stand) -> None:
    for current in (DUTY, POD, DUTY):
        if current is POD:
            stand.routes.set_private(RECORDER, POD)
        else:
            stand.routes.clear_private(RECORDER)
        for flow in everything():
            place, path = expected_place(flow, current.id), flow.request.path
            as_live(named(stand, flow))
            await stand.arrive(flow)
            assert stand.where(flow) == place, line_of(flow)
            if not place.startswith("site"):
                backend = {HOME.id: HOME, DUTY.id: DUTY, POD.id: POD}[place]
                assert flow.request.path == backend.upstream.prefix + path, "byte for byte"


async def test_answers_reach_the_client_as_they_were(stand: Stand) -> None:
    own = {
        "x-comfy-session-ready",
        "x-comfy-session-source",
        "x-comfy-session-user",
        "x-comfy-prompt-id",
        "set-cookie",
    }
    for flow in everything():
        before, is_prompt = recorded_state(flow), table_says(flow) is C.PROMPT
        await happen(stand, flow)
        assert flow.response is not None
        assert flow.response.status_code == before["status_code"], line_of(flow)
        if is_prompt and flow.response.status_code == 200:
            continue  # has another number
        kept = [field for field in flow.response.headers.fields if field[0].decode().lower() not in own]
        assert kept == [tuple(field) for field in before["headers"]], line_of(flow)
        assert flow.response.headers["X-Comfy-Session-User"] == USER


def recorded_state(flow: http.HTTPFlow) -> dict[str, Any]:
    assert flow.response is not None
    state: dict[str, Any] = flow.response.get_state()
    return state


# -- the page


async def test_a_page_load_needs_no_identity_but_the_cookie_of_its_first_answer(stand: Stand) -> None:
    first, *others = recorded("page")
    assert first.request.path == f"/?user_id={USER}"
    await happen(stand, first)
    assert first.response is not None
    [cookie] = first.response.headers.get_all("Set-Cookie")
    assert cookie.startswith(f"{OUR_COOKIE}=")
    assert len(others) > 50
    for flow in others:
        assert "X-Comfy-User" not in flow.request.headers
        assert USER not in flow.request.path
        assert f"{OUR_COOKIE}={STRIPPED}" in flow.request.headers["Cookie"]
        await happen(stand, flow)
        assert flow.metadata[edge.USER] == RECORDER.key, line_of(flow)
        assert flow.response is not None
        assert "Set-Cookie" not in flow.response.headers, "it is remembered already"
        assert OUR_COOKIE not in flow.request.headers.get("Cookie", ""), "no server sees it"


async def test_without_the_cookie_a_page_gets_its_files_and_nothing_else(stand: Stand) -> None:
    refused = Counter[str]()
    for flow in recorded("page")[1:]:
        del flow.request.headers["Cookie"]
        needs_name = table_says(flow) is not C.INTERFACE
        as_live(flow)
        await stand.exchange(flow)
        assert flow.response is not None
        is_refused = flow.response.status_code == 400
        assert is_refused is needs_name, line_of(flow)
        refused[line_of(flow)] += is_refused
    assert refused["GET /api/settings"] == refused["GET /ws"] == 1


async def test_the_pages_own_origin_becomes_the_servers(stand: Stand) -> None:
    origins = 0
    for flow in recorded("page"):
        origin = flow.request.headers.get("Origin")
        assert origin in {None, f"http://{flow.request.headers['Host']}"}
        is_socket = table_says(flow) is C.EVENTS
        as_live(named(stand, flow))
        await stand.arrive(flow)
        if origin is not None and not is_socket:
            origins += 1
            assert flow.request.headers["Origin"] == HOME.upstream.origin
    assert origins > 10, "module scripts come with an Origin"


# -- prompts and the socket


async def test_prompts_go_up_with_our_client_id_and_their_answers_are_entered(stand: Stand) -> None:
    accepted = []
    for flow in [*recorded("api"), *recorded("socket")]:
        if table_says(flow) is not C.PROMPT:
            continue
        sent = json.loads(flow.request.raw_content or b"")
        await happen(stand, flow)
        arrived = json.loads(flow.request.raw_content or b"")
        ours = upstream_sid(KEYS, RECORDER, sent.get("client_id", ""))
        assert arrived["client_id"] == arrived["extra_data"]["client_id"] == ours
        assert arrived["prompt"] == sent["prompt"]
        assert flow.response is not None
        if flow.response.status_code == 200:
            prompt_id = flow.response.json()["prompt_id"]
            assert flow.response.headers["X-Comfy-Prompt-Id"] == prompt_id
            record = stand.ledger.find(prompt_id)
            assert record is not None
            assert (record.user_key, record.sid, record.backend_id) == (RECORDER.key, SID, DUTY.id)
            assert flow.response.json()["number"] == record.number
            accepted.append(prompt_id)
        else:
            assert "X-Comfy-Prompt-Id" not in flow.response.headers
    assert len(set(accepted)) == 3
    assert stand.begun == [], "three are no burst"


def conversation() -> tuple[http.HTTPFlow, list[frames.Frame]]:
    """The recorded socket, and what the server said on it."""
    [flow] = [flow for flow in recorded("socket") if flow.websocket is not None]
    assert flow.websocket is not None
    return flow, [
        frames.text(message.content) if message.is_text else frames.binary(message.content)
        for message in flow.websocket.messages
        if not message.from_client
    ]


def test_every_frame_of_the_server_is_understood() -> None:
    flow, said = conversation()
    messages = [frames.read(frame) for frame in said]
    assert None not in messages
    kinds = Counter(message.kind for message in messages if message is not None)
    assert set(kinds) == {
        "status", "feature_flags", "execution_start", "execution_cached", "progress_state", "executing",
        "executed", "execution_success",
    }  # fmt: skip
    assert messages[0] is not None
    assert messages[0].data["sid"] == SID == flow.request.query["clientId"]


def test_the_story_of_each_prompt_is_told_to_its_end() -> None:
    _, said = conversation()
    stories = Stories()
    for frame in said:
        message = frames.read(frame)
        assert message is not None
        assert stories.hear("duty-0", message), "nothing of it was made up"
    prompt_ids = [
        flow.response.json()["prompt_id"]
        for flow in recorded("socket")
        if flow.response and not flow.websocket
    ]
    assert len(prompt_ids) == 2
    for prompt_id in prompt_ids:
        story = stories.find(prompt_id)
        assert isinstance(story, Story)
        assert (story.has_begun, story.executed, story.has_verdict, story.is_over) == (
            True,
            {"9"},
            True,
            True,
        )
    assert stories.find("another") is None


@pytest.mark.parametrize(("keep_bytes", "left"), [(0, 1), (1 << 20, 26)])
async def test_frames_that_come_now_are_kept_as_told(keep_bytes: int, left: int) -> None:
    async with standing() as stand:
        stand.keep_bytes = keep_bytes
        flow, _ = conversation()
        assert flow.websocket is not None
        assert len(flow.websocket.messages) == 26
        flow.live = True
        for hook in stand.hooks[4:5]:
            await stand.mitmproxy.cycle(hook, flow)
        assert len(flow.websocket.messages) == left


# -- a file that is only looked at


async def test_looking_at_a_recording_changes_and_counts_nothing(stand: Stand) -> None:
    """mitmproxy -r, or "open" in mitmweb: the same events, for flows that do not live."""
    for flow in everything() * 3:
        before = flow.get_state()
        assert flow.response is not None
        assert not flow.live
        for hook in stand.hooks:
            await stand.mitmproxy.cycle(hook, flow)
        after = flow.get_state()
        assert after == before, line_of(flow)
    assert stand.begun == []
    assert stand.ledger.unfinished() == []
    assert stand.relay.asked == []
    assert len(stand.edge.client_ids) == 0
    assert stand.activity.last_s(HOME.id) is stand.activity.last_s(DUTY.id) is None
    assert stand.deadlines._timers == {}


async def test_mitmdump_reads_a_recording_beside_a_whole_gateway_and_changes_nothing(tmp_path: Path) -> None:
    """A real process; its duty server is down and nobody misses it."""
    copy = tmp_path / "copy.mitm"
    for path in FILES:
        command = mitmdump("-n", "-r", str(path), "-w", str(copy), confdir=tmp_path)
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment({"DUTY_POD_URL": "http://127.0.0.1:9"}, tmp_path),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, output
        with copy.open("rb") as file:
            read = [flow for flow in FlowReader(file).stream() if isinstance(flow, http.HTTPFlow)]
        flows = recorded(path.stem)
        assert len(read) == len(flows)
        for flow, original in zip(read, flows, strict=True):
            flow.request.headers["Host"] = original.request.headers[
                "Host"
            ]  # mitmproxy's own doing in reverse mode
            assert flow.get_state() == original.get_state(), line_of(original)
        copy.unlink()


# -- what must not be in a file

FORBIDDEN = [
    rb"(?i)authorization",
    rb"(?i)bearer ",
    rb"(?i)x-comfy-gateway-",
    rb"(?i)x-gateway-site-",
    rb"never-to-be-kept",
    rb"(?i)set-cookie",
    rb"comfy_gateway_user=(?!stripped)",
    rb'"(api_key|auth_token)[a-z_]*": *"(?!stripped")',
    rb"(?<![\w.:/])/(home|root|Users|work|workspace|opt|tmp|usr|var)/",
    rb"(?i)<script|<!doctype|^\s*import\s|\bfunction\s*\(|=>\s*\{",
]


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_no_file_holds_a_secret_a_place_of_a_machine_or_code(pattern: bytes) -> None:
    for path in FILES:
        found = re.search(pattern, path.read_bytes(), re.MULTILINE)
        assert found is None, f"{path.name}: {found[0]!r}"


def test_files_of_the_front_end_are_empty_and_templates_too() -> None:
    for flow in everything():
        assert flow.response is not None
        is_list = line_of(flow).endswith("/extensions")
        if table_says(flow) is C.INTERFACE and not is_list:
            assert flow.response.raw_content == b"", line_of(flow)
        assert "template" not in line_of(flow) or not flow.response.raw_content
