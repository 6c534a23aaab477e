"""Which class a request is of, and which paths are refused because they can be read in two ways."""

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import example, given
from hypothesis import strategies as st

from comfy_gateway.core.requests.classify import (
    ROUTABLE,
    PathRefused,
    RequestClass,
    RouteRules,
    classify,
    is_under_api,
    needs_identity,
    prompt_id_of,
    route_of,
)

C = RequestClass


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/prompt", C.PROMPT),
        ("POST", "/api/prompt", C.PROMPT),
        ("post", "/prompt", C.PROMPT),
        ("POST", "/prompt?x=1", C.PROMPT),
        ("POST", "/%70rompt", C.PROMPT),
        ("POST", "/api%2Fprompt", C.OTHER),
        ("POST", "/%2570rompt", C.OTHER),
        ("POST", "/prompt/", C.OTHER),
        ("POST", "/api/api/prompt", C.OTHER),
        ("GET", "/prompt", C.COMPUTE),
        ("GET", "/system_stats", C.COMPUTE),
        ("GET", "/object_info", C.COMPUTE),
        ("GET", "/api/object_info/KSampler", C.COMPUTE),
        ("GET", "/models/checkpoints", C.COMPUTE),
        ("GET", "/api/experiment/models", C.COMPUTE),
        ("GET", "/embeddings", C.COMPUTE),
        ("POST", "/free", C.COMPUTE),
        ("GET", "/view_metadata/loras?filename=x", C.COMPUTE),
        ("GET", "/ws?clientId=1", C.EVENTS),
        ("GET", "/api/ws", C.EVENTS),
        ("GET", "/queue", C.QUEUE),
        ("POST", "/api/queue", C.QUEUE),
        ("POST", "/interrupt", C.QUEUE),
        ("GET", "/api/jobs", C.QUEUE),
        ("POST", "/api/jobs/1/cancel", C.QUEUE),
        ("GET", "/history", C.RESULTS),
        ("GET", "/history/abc", C.RESULTS),
        ("GET", "/api/view?filename=..%2F..%2Fx.png", C.RESULTS),
        ("POST", "/upload/image", C.INPUTS),
        ("POST", "/api/upload/mask", C.INPUTS),
        ("POST", "/userdata/workflows%2Fmine.json", C.HOME),
        ("GET", "/userdata?dir=x", C.HOME),
        ("GET", "/api/v2/userdata", C.HOME),
        ("GET", "/settings/Comfy.X", C.HOME),
        ("GET", "/users", C.HOME),
        ("GET", "/i18n", C.HOME),
        ("GET", "/workflow_templates", C.HOME),
        ("GET", "/", C.INTERFACE),
        ("HEAD", "/", C.INTERFACE),
        ("POST", "/", C.OTHER),
        ("GET", "/assets/index-abc.js", C.INTERFACE),
        ("POST", "/assets/index-abc.js", C.OTHER),
        ("GET", "/api/assets/1", C.OTHER),
        ("GET", "/extensions", C.INTERFACE),
        ("GET", "/api/extensions", C.INTERFACE),
        ("GET", "/extensions/core/x.js", C.INTERFACE),
        ("GET", "/fonts/x.woff2", C.INTERFACE),
        ("GET", "/scripts/app.js", C.INTERFACE),
        ("GET", "/materialdesignicons.min.css", C.INTERFACE),
        ("GET", "/manifest.json", C.INTERFACE),
        ("GET", "/report.json", C.OTHER),
        ("GET", "/index.html", C.INTERFACE),
        ("GET", "/my_node/do", C.OTHER),
        ("GET", "/proxy/https://host/x", C.OTHER),
        ("GET", "/my_node//prompt", C.OTHER),
        ("GET", "/caf%C3%A9", C.OTHER),
        ("GET", "/gateway", C.RESERVED),
        ("GET", "/gateway/", C.RESERVED),
        ("GET", "/gatewa%79/healthz", C.RESERVED),
        ("GET", "/gatewayx", C.OTHER),
        ("GET", "/api/gateway/", C.OTHER),
        ("GET", "/api", C.OTHER),
    ],
)
def test_a_request_is_of_the_class_of_the_design(method: str, path: str, expected: RequestClass) -> None:
    assert classify(method, path) is expected


def spellings(path: str) -> st.SearchStrategy[str]:
    """The path with any of its characters encoded, and in half of the cases something odd in one place."""
    characters = [st.sampled_from([c, f"%{ord(c):02x}", f"%{ord(c):02X}"]) for c in path[1:]]
    places = st.integers(0, len(characters))
    oddities = ["/", "\\", "%2F", "%5c", "%2570", "%00", ".", "/..", "/./", "?x=1", "%3Fx", "#x", ";x"]

    def spell(parts: tuple[str, ...], place: int, oddity: str) -> str:
        return "/" + "".join([*parts[:place], oddity, *parts[place:]])

    return st.builds(spell, st.tuples(*characters), places, st.just("") | st.sampled_from(oddities))


@given(spellings("/prompt") | spellings("/api/prompt"))
@example("//api%2fprompt")
async def test_no_spelling_of_prompt_reaches_comfyuis_router_as_another_class(path: str) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_post("/prompt", answer)
    app.router.add_post("/api/prompt", answer)
    app.router.add_post("/{rest:.*}", answer)
    found = await app.router.resolve(make_mocked_request("POST", path))
    try:
        is_prompt = classify("POST", path) is C.PROMPT
    except PathRefused:
        return
    resource = found.route.resource  # None: a 404, as for a path that reads as the name of a host
    assert is_prompt == (resource is not None and resource.canonical in {"/prompt", "/api/prompt"})


@pytest.mark.parametrize(
    "path",
    [
        "//gateway/",
        "//prompt",
        "/api//prompt",
        "/\\prompt",
        "/history\\1",
        "/./prompt",
        "/x/../prompt",
        "/x/..",
        "/x/%2e%2E/prompt",
        "/x/.%2e/prompt",
        "/assets/..%2f..%2fprompt",
        "/assets/..%5c..%5cprompt",
        "/assets/..\\..\\prompt",
        "/userdata/..%2Fx",
        "prompt",
        "*",
        "",
        "http://evil.example/prompt",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_that_can_be_read_in_two_ways_is_refused(method: str, path: str) -> None:
    with pytest.raises(PathRefused):
        classify(method, path)


def test_a_doubled_slash_alone_is_no_way_to_the_page() -> None:
    with pytest.raises(PathRefused):
        classify("GET", "//")
    assert classify("POST", "//") is C.OTHER


def test_dots_inside_a_name_and_in_the_query_are_no_dot_segments() -> None:
    assert classify("GET", "/userdata/..hidden%2Fa..b") is C.HOME
    assert classify("GET", "/view?subfolder=../x") is C.RESULTS
    assert classify("GET", "/view#../x") is C.RESULTS


def test_patterns_move_paths_of_custom_nodes_and_the_first_match_counts() -> None:
    rules = RouteRules.parse({"/my/one": "interface", "/my/*": "home", "/models*": "other"})
    assert classify("GET", "/my/one", rules) is C.INTERFACE
    assert classify("GET", "/api/my/two/three", rules) is C.HOME
    assert classify("GET", "/models/x", rules) is C.OTHER
    assert classify("GET", "/else", rules) is C.OTHER


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/prompt"), ("GET", "/ws"), ("GET", "/queue"), ("GET", "/history/1"), ("GET", "/gateway/x")],
)
def test_patterns_cannot_take_over_what_the_gateway_answers(method: str, path: str) -> None:
    assert classify(method, path, RouteRules.parse({"/*": "interface"})) not in ROUTABLE


def test_a_pattern_cannot_hide_a_refused_path() -> None:
    with pytest.raises(PathRefused):
        classify("GET", "/my/../x", RouteRules.parse({"/*": "home"}))


@pytest.mark.parametrize(
    ("routes", "named"),
    [
        ({"my": "home"}, "'my'"),
        ({5: "home"}, "5"),
        ({"/my": "prompt"}, "'prompt'"),
        ({"/my": "nowhere"}, "'nowhere'"),
        ({"/my": ["home"]}, r"\['home'\]"),
    ],
    ids=["no slash", "no text", "class not allowed", "no class", "a list"],
)
def test_a_wrong_pattern_is_named(routes: dict[object, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RouteRules.parse(routes)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", True),
        ("/index.html", True),
        ("/?user_id=x", True),
        ("/assets/x.js", False),
        ("/extensions", False),
        ("/queue", True),
        ("/userdata", True),
        ("/gateway/", True),
        ("/gateway/api/v1/sessions", True),
        ("/gateway/healthz", False),
        ("/gateway/readyz?x", False),
        ("/gateway/metrics", False),
        ("/gateway/metrics/x", True),
        ("/gateway/ui/extension.js", False),
    ],
)
def test_files_and_probes_need_no_identity_but_pages_and_data_do(path: str, expected: bool) -> None:
    assert needs_identity(classify("GET", path), path) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/history/abc", "abc"),
        ("/api/history/a%2Fb?x", "a/b"),
        ("/api/jobs/abc", "abc"),
        ("/jobs/abc/cancel", "abc"),
        ("/history/abc/cancel", None),
        ("/history/", None),
        ("/history", None),
        ("/view", None),
    ],
)
def test_the_prompt_that_a_path_names(path: str, expected: str | None) -> None:
    assert prompt_id_of(path) == expected


@pytest.mark.parametrize(
    ("path", "route", "under_api"),
    [
        ("/history/a%2Fb?x=/api/", "/history/a%2Fb", False),
        ("/api/history", "/history", True),
        ("/%61pi/%68istory", "/history", True),
        ("/api", "/api", False),
        ("/api%2Fhistory", "/api%2Fhistory", False),
    ],
)
def test_a_route_is_read_as_comfyuis_router_reads_it(path: str, route: str, under_api: bool) -> None:
    assert route_of(path) == route
    assert is_under_api(path) is under_api
