"""Every parser that reads what strangers send, behind one function from bytes; each may refuse, none may break."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from posixpath import normpath
from random import Random
from typing import Final
from urllib.parse import unquote

from comfy_gateway.core import loose_json
from comfy_gateway.core.events.frames import read, text
from comfy_gateway.core.files.homes import Home, asked
from comfy_gateway.core.files.view_query import file_of_query, naming
from comfy_gateway.core.inputs.refs import read as read_ref
from comfy_gateway.core.inputs.refs import written
from comfy_gateway.core.inputs.spaces import InputSpaces
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.callers import TrustedProxies, find_caller, without_query_key
from comfy_gateway.core.people.cookie import IdentityCookie, cookie_values, without_identity_cookie
from comfy_gateway.core.people.hosts import AllowedHosts, check_origin, explain_foreign
from comfy_gateway.core.people.identity import IdentityRules, RequestFacts, identify
from comfy_gateway.core.people.return_path import safe_return
from comfy_gateway.core.people.users import is_valid_name
from comfy_gateway.core.prompts.body import PromptBody
from comfy_gateway.core.requests.classify import PathRefused, classify, needs_identity, prompt_id_of, route_of
from comfy_gateway.core.requests.request_head import refuse_head

_COOKIE: Final = IdentityCookie("a key of tests")
_RULES: Final = IdentityRules()
_KEYS: Final = Keys(bytes(32))
_HOME: Final = Home.of(_KEYS, None)
_SPACES: Final = InputSpaces(_KEYS, "shared")
_SPACE: Final = _SPACES.own(None)


def _prompt(raw: bytes) -> None:
    try:
        body = PromptBody.parse(raw)
        body.chosen_id()
        if body.client_id is not None:
            body.client_id.encode()
        body.number_shown(1)
        body.addressed("id", "sid").write()
    except ValueError:
        return


def _json(raw: bytes) -> None:
    try:
        loose_json.write(loose_json.read(raw))
    except ValueError:
        return


def _path(raw: bytes) -> None:
    path = "/" + raw.decode("latin-1")
    try:
        found = classify("GET", path)
        needs_identity(found, path)
        prompt_id_of(path)
        route_of(path)
    except PathRefused:
        return


def _query(raw: bytes) -> None:
    query = raw.decode("latin-1")
    file = file_of_query(query)
    if file is not None:
        naming(query, file)
    without_query_key(f"/view?{query}", "user_id")


def _host(raw: bytes) -> None:
    host, _, origin = raw.decode("latin-1").partition("\n")
    check_origin(host, origin, AllowedHosts())
    explain_foreign(host, origin, AllowedHosts())


def _cookie(raw: bytes) -> None:
    cookies = raw.decode("latin-1")
    assert _COOKIE.read(cookies) is None, "nobody can write our signature"
    cookie_values(cookies, "a")
    without_identity_cookie(cookies)


def _name(raw: bytes) -> None:
    name = raw.decode("latin-1")
    found = identify(RequestFacts(header=(name,), client_id=name, peer_ip=name), _RULES).user
    if found is not None:
        assert is_valid_name(found.name)
        assert "\r" not in found.name
        assert "\n" not in found.name


def _caller(raw: bytes) -> None:
    value = raw.decode("latin-1")
    find_caller(
        lambda _name: [value],
        peer="127.0.0.1",
        host=value,
        is_tls=False,
        is_public_https=False,
        trusted=TrustedProxies(["127.0.0.0/8"]),
    )


def _head(raw: bytes) -> None:
    head = raw + b"\r\n\r\n"
    if refuse_head(head) is None:
        assert b"\x00" not in head
        assert head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n")


def _home(raw: bytes) -> None:
    path = _HOME.path_of(raw.decode("utf-8", "surrogateescape"))
    if path is not None:
        once = asked(path)
        opened = unquote(once) if "%" in once else once  # as ComfyUI reads it
        assert (normpath(opened) + "/").startswith(_HOME.folder + "/")


def _input(raw: bytes) -> None:
    text = raw.decode("utf-8", "surrogateescape")
    ref = read_ref(text)
    if ref is None:
        return
    there = _SPACE.there(ref.file)
    folder = "shared" if _SPACES.is_shared(ref.file) else _SPACE.folder
    assert folder in there.subfolder.split("/")[:2]
    assert normpath(there.path) == there.path
    assert _SPACE.plain(there) == (ref.file if folder != "shared" else there)
    if len(there.path.encode()) < 1024:  # a longer one is not carried, and stays in the folder all the same
        assert read_ref(written(there, is_annotated=True)) == replace(ref, file=there, is_annotated=True)


def _shown(raw: bytes) -> None:
    shown = _SPACE.shown(raw.replace(b"a", _SPACE.folder.encode()))
    assert _SPACE.folder.encode() not in shown


def _return(raw: bytes) -> None:
    path = safe_return(raw.decode("latin-1"))
    assert path.startswith("/")
    assert not path.startswith(("//", "/\\"))


def _frame(raw: bytes) -> None:
    read(text(raw))


PARSERS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "prompt": _prompt,
    "json": _json,
    "path": _path,
    "query": _query,
    "host": _host,
    "cookie": _cookie,
    "name": _name,
    "caller": _caller,
    "head": _head,
    "home": _home,
    "input": _input,
    "shown": _shown,
    "return": _return,
    "frame": _frame,
}
SEEDS: Final = [
    b'{"prompt":{"1":{"class_type":"SaveImage","inputs":{"images":["2",0]}}},"client_id":"a","number":1}',
    b'{"delete":["a"],"clear":true,"prompt_id":"\\ud800","extra_data":{"client_id":"\\udfff"}}',
    b"GET /api/prompt?filename=a&subfolder=b HTTP/1.1\r\nHost: localhost:8000\r\nX-Comfy-User: alice",
    b"history/%2e%2e%2fgateway//x\\..;a=b?user_id=alice",
    b"filename=a%00.png&subfolder=..%2f&type=output",
    b"[::1]:8000\nhttp://localhost:8000",
    b"comfy_gateway_user=Im5hbWVkOmJvYiI.AAAA; a=b",
    b'for="[2001:db8::1]:80";proto=https;host=evil, 10.0.0.1',
    b"NaN", b"1e999", b"-Infinity", b'"\\ud800"', b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b"9" * 5000,
    b"[" * 900 + b"]" * 900, b"clipspace/a b.png [input]", b"workflows%2F..%252e/a.json", b"3d/x.glb [temp]",
]  # fmt: skip


def mutated(choose: Random) -> bytes:
    """A seed, cut, joined, repeated and changed in some places."""
    raw = bytearray(choose.choice(SEEDS))
    for _ in range(choose.randrange(1, 8)):
        place = choose.randrange(len(raw) + 1)
        match choose.randrange(5):
            case 0:
                raw[place:place] = bytes([choose.randrange(256)])
            case 1:
                del raw[place : place + choose.randrange(1, 9)]
            case 2:
                other = choose.choice(SEEDS)
                raw[place:place] = other[choose.randrange(len(other)) :][:40]
            case 3:
                raw[place:place] = raw[place : place + 9] * choose.randrange(1, 9)
            case _:
                raw[place:place] = choose.choice(
                    [
                        b"\r\n",
                        b"\n",
                        b"\x00",
                        b"%0d%0a",
                        b"%2f",
                        b"..",
                        b"\\",
                        b'"',
                        b"{",
                        b"[",
                        b"\xed\xa0\x80",
                    ]
                )
    return bytes(raw)
