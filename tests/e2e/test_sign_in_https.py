"""``AUTH_MODE=basic`` and ``AUTH_MODE=proxy`` by HTTPS that mitmproxy serves: what differs from plain HTTP.

``AUTH_MODE=tokens`` by HTTPS has a file of its own (test_sign_in_tokens.py).
"""

import base64
import ssl
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path

import aiohttp
import bcrypt
import pytest
import trustme

from comfy_gateway.core.people.session_cookie import PLAIN_NAME, SECURE_NAME
from tests.e2e.gateway_process import running_gateway
from tests.e2e.way_in import ask, client, noting_comfyui

MASTER = "m" * 40
PAGE = {"Accept": "text/html"}
PROXY, STRANGER = "127.0.0.2", "127.0.0.1"


@dataclass(frozen=True)
class Tls:
    """A certificate of this machine, and who trusts it."""

    settings: dict[str, str]
    trust: ssl.SSLContext


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    authority = trustme.CA()
    served = authority.issue_cert("127.0.0.1")
    served.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    served.private_key_pem.write_to_path(tmp_path / "key.pem")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    return Tls({"TLS_CERT": str(tmp_path / "cert.pem"), "TLS_KEY": str(tmp_path / "key.pem")}, trust)


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


async def test_a_password_by_https_leaves_a_cookie_that_no_plain_connection_carries(
    tls: Tls, tmp_path: Path, confdir: Path
) -> None:
    name, password = "zoe.mueller@example.com", "ünï:cödé " + "x" * 40
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"{name}:{hashed}\n", encoding="utf-8")
    settings = tls.settings | {
        "AUTH_MODE": "basic",
        "AUTH_BASIC": f"@{tmp_path / 'htpasswd'}",
        "GATEWAY_SECRET": MASTER,
    }
    async with (
        noting_comfyui() as comfyui,
        running_gateway(
            settings | {"DUTY_POD_URL": comfyui.url}, state_dir=tmp_path, confdir=confdir
        ) as gateway,
        client(trust=tls.trust) as http,
    ):
        assert gateway.url.startswith("https://")
        status, answer, _ = await ask(http, f"{gateway.url}/?wrong", headers=basic(name, "x") | PAGE)
        assert (status, "Set-Cookie" in answer.headers) == (401, False)
        status, answer, _ = await ask(http, f"{gateway.url}/?right", headers=basic(name, password) | PAGE)
        assert status == 200
        cookie = SimpleCookie(answer.headers["Set-Cookie"])[SECURE_NAME]
        assert cookie["secure"]
        assert cookie["httponly"]
        assert not SimpleCookie(answer.headers["Set-Cookie"]).get(PLAIN_NAME)
        kept = {"Cookie": f"{SECURE_NAME}={cookie.value}"}
        async with http.ws_connect(f"{gateway.url}/ws?clientId=z", headers=kept) as socket:
            assert (await socket.receive_json(timeout=10))["type"] == "status"
        # The same value under the name of plain HTTP is nobody's.
        renamed = {"Cookie": f"{PLAIN_NAME}={cookie.value}"}
        assert (await ask(http, f"{gateway.url}/queue?renamed", headers=renamed))[0] == 401
        assert comfyui.of("wrong") == comfyui.of("renamed") == []
        for secret in (password, cookie.value, basic(name, password)["Authorization"]):
            assert secret not in gateway.log
            assert secret not in comfyui.everything


async def test_a_proxy_that_speaks_https_is_believed_and_a_stranger_is_not(
    tls: Tls, tmp_path: Path, confdir: Path
) -> None:
    settings = tls.settings | {
        "AUTH_MODE": "proxy",
        "TRUSTED_PROXIES": PROXY,
        "USER_ID_HEADER": "X-Forwarded-User",
    }
    named = {"X-Forwarded-User": "alice@example.com", "X-Forwarded-Proto": "https"}
    async with (
        noting_comfyui() as comfyui,
        running_gateway(
            settings | {"DUTY_POD_URL": comfyui.url}, state_dir=tmp_path, confdir=confdir
        ) as gateway,
        client(PROXY, trust=tls.trust) as proxy,
        client(STRANGER, trust=tls.trust) as stranger,
    ):
        status, answer, _ = await ask(proxy, f"{gateway.url}/queue?proxy", headers=named)
        assert (status, answer.headers["X-Comfy-Session-User"]) == (200, "alice@example.com")
        async with proxy.ws_connect(f"{gateway.url}/ws?clientId=a", headers=named) as socket:
            assert (await socket.receive_json(timeout=10))["type"] == "status"
        assert (await ask(stranger, f"{gateway.url}/queue?stranger", headers=named))[0] == 401
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await stranger.ws_connect(f"{gateway.url}/ws?clientId=stranger", headers=named)
        assert refused.value.status == 401
        assert comfyui.of("stranger") == []
