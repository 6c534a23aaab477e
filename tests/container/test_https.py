"""HTTPS by Caddy in front of the gateway: the files of the example, and Caddy itself where it is installed."""

import asyncio
import ipaddress
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path

import aiohttp
import yaml

from comfy_gateway.accounts.editor import UsersEditor
from comfy_gateway.adapters.argon2_hashes import Argon2Hashes
from comfy_gateway.core.people.roles import Role
from comfy_gateway.core.people.session_cookie import SECURE_NAME
from tests.conditions import wait_for
from tests.container.pod import CONTAINER
from tests.e2e.gateway_process import running_gateway
from tests.e2e.way_in import ask, client, noting_comfyui
from tests.ports import free_port
from tests.programs import require_program


def test_the_example_lets_nobody_past_caddy_and_trusts_nobody_else() -> None:
    compose = yaml.safe_load((CONTAINER / "compose.https.yaml").read_text())
    caddy, gateway = compose["services"]["caddy"], compose["services"]["gateway"]
    assert "ports" not in gateway
    assert gateway["environment"]["AUTH_MODE"] == "tokens"
    address = caddy["networks"]["inner"]["ipv4_address"]
    assert gateway["environment"]["TRUSTED_PROXIES"] == address
    (network,) = compose["networks"]["inner"]["ipam"]["config"]
    assert ipaddress.ip_address(address) in ipaddress.ip_network(network["subnet"])
    assert gateway["environment"]["AUTH_USERS_FILE"].startswith("/var/lib/gateway/")
    assert gateway["volumes"] == ["gateway:/var/lib/gateway"]
    mounted = next(volume for volume in caddy["volumes"] if "Caddyfile" in volume)
    assert (CONTAINER / mounted.partition(":")[0]).is_file()
    assert gateway["environment"]["GATEWAY_PUBLIC_URL"] == "https://${GATEWAY_DOMAIN}"


@asynccontextmanager
async def running_caddy(folder: Path, domain: str, upstream: str) -> AsyncIterator[None]:
    """Caddy with our file, which makes its own authority for localhost."""
    command = [
        str(require_program("caddy")),
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        str(folder / "Caddyfile"),
    ]
    # Caddy would also listen on port 80, to send people to HTTPS.
    text = (
        (CONTAINER / "Caddyfile")
        .read_text()
        .replace("admin off", "admin off\n\tauto_https disable_redirects")
    )
    (folder / "Caddyfile").write_text(text)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder / "data"),
        "GATEWAY_DOMAIN": domain,
        "GATEWAY_UPSTREAM": upstream,
    }
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def test_people_sign_in_through_caddy(tmp_path: Path) -> None:
    require_program("caddy")
    token = UsersEditor(tmp_path / "users.yaml").add("alice", Role.USER, Argon2Hashes()) or ""
    port = free_port()
    url = f"https://localhost:{port}"
    async with noting_comfyui() as comfyui:
        settings = {
            "DUTY_POD_URL": comfyui.url,
            "GATEWAY_PUBLIC_URL": url,
            "AUTH_MODE": "tokens",
            "AUTH_USERS_FILE": str(tmp_path / "users.yaml"),
            "TRUSTED_PROXIES": "127.0.0.1",
        }
        async with running_gateway(settings, state_dir=tmp_path, confdir=tmp_path) as gateway:
            upstream = gateway.url.removeprefix("http://")
            async with running_caddy(tmp_path, url, upstream):
                authority = tmp_path / "data/caddy/pki/authorities/local/root.crt"
                await wait_for(authority.exists, "Caddy's authority", deadline_s=20)
                trust = ssl.create_default_context(cafile=authority)
                async with client("127.0.7.7", trust=trust) as http:
                    await _use(http, url, token)
        (heard,) = comfyui.of("through-caddy")
        assert heard.headers["X-Forwarded-For"] == "127.0.7.7"
        assert heard.headers["X-Forwarded-Proto"] == "https"
        assert heard.headers["X-Forwarded-Host"] == f"localhost:{port}"
        assert not {"Authorization", "Cookie"} & heard.headers.keys()


async def _use(http: aiohttp.ClientSession, url: str, token: str) -> None:
    async def is_up() -> bool:
        try:
            return (await ask(http, f"{url}/gateway/healthz"))[0] == 200
        except aiohttp.ClientError:
            return False

    await wait_for(is_up, "Caddy", deadline_s=20)
    form, origin = {"token": token, "next": "/"}, {"Origin": url}
    status, answer, _ = await ask(http, f"{url}/gateway/signin", method="POST", data=form, headers=origin)
    assert status == 303
    cookie = SimpleCookie(answer.headers["Set-Cookie"])[SECURE_NAME]
    assert cookie["secure"]
    lies = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Host": "evil.example"}
    headers = origin | lies | {"Cookie": f"{SECURE_NAME}={cookie.value}"}
    status, answer, _ = await ask(http, f"{url}/api/through-caddy", headers=headers)
    assert (status, answer.headers["X-Comfy-Session-User"]) == (200, "alice")
    async with http.ws_connect(f"{url}/ws?clientId=a", headers=headers) as events:
        assert (await events.receive_json(timeout=10))["type"] == "status"
