"""The tool that records: what it keeps, and what it must never keep."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.test import tflow

from simulators.comfyui import ComfySimulator, serve
from tests.replay import original
from tests.replay.clean import MOST_BODY_BYTES, MOST_FILES, STRIPPED, clean, thinned
from tests.replay.drive import SID, USER
from tests.replay.record import record, write
from tests.replay.recordings import line_of
from tests.replay.test_replay import table_says

ROOT = Path(__file__).parents[2]


def seen(
    path: str = "/queue",
    *,
    request: dict[str, str] | None = None,
    body: bytes = b"",
    answer: http.Response | None = None,
    request_class: str = "queue",
) -> http.HTTPFlow:
    """A flow as it comes out of a recording gateway: changed on its way, with the original noted."""
    flow = tflow.tflow(resp=answer or http.Response.make(200, b"{}"))
    flow.request.path, flow.request.host = "/prefix" + path, "inner.test"
    flow.request.headers = http.Headers(host="inner.test", x_gateway_site_key="site")
    flow.request.data.content = b"changed on the way"
    assert flow.response is not None
    headers = http.Headers([(name.encode(), value.encode()) for name, value in (request or {}).items()])
    flow.metadata = {
        original.REQUEST: [path, original.pairs(headers)],
        original.BODY: body,
        original.ANSWER: original.pairs(flow.response.headers),
        "gateway.class": request_class,
        "gateway.source": "duty",
        "gateway.user": "named:alice",
        "gateway.location": "http://inner.test/prefix",
        "gateway.settled": True,
    }
    flow.response.headers["X-Comfy-Session-User"] = "alice"
    flow.response.headers.add("Set-Cookie", "comfy_gateway_user=signed")
    flow.comment = "named:alice -> duty-0"
    return flow


def text_of(flow: http.HTTPFlow) -> str:
    return repr(flow.get_state())


def test_a_kept_flow_is_what_client_and_server_said() -> None:
    flow = clean(seen("/queue?a=%2F", request={"Host": "127.0.0.1:8000", "X-Comfy-User": "alice"}))
    assert flow.request.path == "/queue?a=%2F"
    assert dict(flow.request.headers) == {"Host": "127.0.0.1:8000", "X-Comfy-User": "alice"}
    assert (flow.request.scheme, flow.request.host, flow.request.port) == ("http", "127.0.0.1", 9)
    assert flow.metadata == {"recorded.class": "queue", "recorded.source": "duty"}
    assert "inner.test" not in text_of(flow)
    assert "named:alice" not in text_of(flow)
    assert "X-Comfy-Session" not in text_of(flow)
    assert "comfy_gateway_user" not in text_of(flow)


SECRET = "never-to-be-kept"


def test_secrets_are_taken_out_wherever_they_stand() -> None:
    body = {
        "client_id": "tab",
        "extra_data": {
            "api_key_comfy_org": SECRET,
            "auth_token_comfy_org": SECRET,
            "deep": [{"OPENAI_API_KEY": SECRET}],
        },
    }
    answer = http.Response.make(
        200,
        json.dumps({"password": SECRET, "argv": ["/home/me/ComfyUI/main.py", "--cpu"], "ok": "a/b"}).encode(),
        {"Set-Cookie": f"theirs={SECRET}; Path=/; HttpOnly", "Authorization": SECRET},
    )
    request = {
        "Cookie": f"comfy_gateway_user={SECRET}; other={SECRET}",
        "Authorization": f"Bearer {SECRET}",
        "X-Comfy-Gateway-Token": SECRET,
        "X-Gateway-Site-Key": SECRET,
        "Content-Length": "1",
    }
    flow = clean(seen("/prompt", request=request, body=json.dumps(body).encode(), answer=answer))
    assert SECRET not in text_of(flow)
    assert "/home/me" not in text_of(flow)
    assert flow.request.headers["Cookie"] == f"comfy_gateway_user={STRIPPED}; other={STRIPPED}"
    assert flow.response is not None
    assert flow.response.headers["Set-Cookie"] == f"theirs={STRIPPED}; Path=/; HttpOnly"
    assert flow.response.json() == {"password": STRIPPED, "argv": [STRIPPED, "--cpu"], "ok": "a/b"}
    sent = json.loads(flow.request.raw_content or b"")
    assert sent["client_id"] == "tab"
    assert flow.request.headers["Content-Length"] == str(len(flow.request.raw_content or b""))


def test_secrets_are_taken_out_of_frames() -> None:
    flow = seen()
    flow.websocket = tflow.twebsocketflow().websocket
    assert flow.websocket is not None
    flow.websocket.messages[1].content = json.dumps(
        {"type": "x", "data": {"api_key": SECRET, "traceback": ["File /work/comfy/nodes.py, line 3"]}}
    ).encode()
    clean(flow)
    assert SECRET not in text_of(flow)
    assert "/work" not in text_of(flow)
    assert "line 3" in text_of(flow)


@pytest.mark.parametrize(
    ("path", "request_class", "size", "is_kept"),
    [
        ("/assets/index.js", "interface", 10, False),
        ("/", "interface", 10, False),
        ("/api/extensions", "interface", 10, True),
        ("/workflow_templates", "home", 10, False),
        ("/templates/index.json", "interface", 10, False),
        ("/history", "results", 10, False),
        ("/history/p1", "results", 10, True),
        ("/object_info", "compute", MOST_BODY_BYTES + 1, False),
        ("/object_info/EmptyImage", "compute", MOST_BODY_BYTES, True),
        ("/view?filename=a.png", "results", 10, True),
    ],
)
def test_only_the_servers_own_words_are_kept(path: str, request_class: str, size: int, is_kept: bool) -> None:
    answer = http.Response.make(200, b"\x89" * size, {"Content-Type": "x/y"})
    flow = clean(seen(path, answer=answer, request_class=request_class))
    assert flow.response is not None
    assert flow.response.raw_content == (b"\x89" * size if is_kept else b"")
    assert flow.response.headers["Content-Length"] == str(size), "headers stay"


def test_of_many_scripts_some_are_kept_and_of_other_requests_all() -> None:
    flows = [clean(seen(f"/assets/{number}.js")) for number in range(500)] + [clean(seen("/queue"))] * 3
    kept = thinned(flows)
    assert 10 < len(kept) <= MOST_FILES + 3
    assert [line_of(flow) for flow in kept[-3:]] == ["GET /queue"] * 3
    few = flows[:5]
    assert thinned(few) == few


@pytest.mark.parametrize("scene", ["api", "socket"])
async def test_a_scene_is_recorded_with_bodies_and_frames(scene: str, tmp_path: Path) -> None:
    async with serve(ComfySimulator()) as served:
        flows = await record(served.url, scene, Path("/no/chromium"))
    write(flows, tmp_path / "a.mitm")
    raw = (tmp_path / "a.mitm").read_bytes()
    assert SECRET.encode() not in raw
    assert b"gateway.settled" not in raw
    assert [flow.request.timestamp_start for flow in flows] == sorted(
        flow.request.timestamp_start for flow in flows
    )
    for flow in flows:
        assert flow.request.headers["X-Comfy-User"] == USER
        assert flow.metadata["recorded.class"] == table_says(flow), line_of(flow)
        if "application/json" in _type(flow):
            assert flow.response is not None
            assert flow.response.raw_content, f"{line_of(flow)} lost its body"
    prompts = [flow for flow in flows if line_of(flow) == "POST /prompt"]
    sent: list[dict[str, Any]] = [json.loads(flow.request.raw_content or b"") for flow in prompts]
    assert {body.get("client_id") for body in sent} - {None} == {SID}
    if scene == "socket":
        [socket] = [flow for flow in flows if flow.websocket is not None]
        assert socket.websocket is not None
        assert len(socket.websocket.messages) > 15
    else:
        assert any(flow.request.raw_content and b"\x89PNG" in flow.request.raw_content for flow in flows)
        assert any("userdata/gateway-recording%2F" in flow.request.path for flow in flows)


def _type(flow: http.HTTPFlow) -> str:
    return flow.response.headers.get("Content-Type", "") if flow.response is not None else ""


def test_the_tool_says_how_it_is_used() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tests.replay.record", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for option in ("--duty", "--out", "--scene", "--page"):
        assert option in told.stdout
