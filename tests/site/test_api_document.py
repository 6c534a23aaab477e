"""The OpenAPI document, and a client that is made from it.

That real answers are as it says is looked at in every test of the API: ``api_stand`` holds each answer to it.
"""

import asyncio
import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from comfy_gateway.core.life.session import State
from comfy_gateway.core.people.roles import Role
from tests.service.world import ALICE
from tests.site.api_stand import API, BOSS, Api, api

CLIENT = "comfy_gateway_client"
GENERATOR = shutil.which("openapi-python-client") or ""
"""It cannot be installed beside runpod, whose command line wants another typer."""


async def test_the_document_is_one_and_has_every_path() -> None:
    async with api() as ask:
        status, document = await ask.boss("GET", "/openapi.json")
        assert status == 200
        assert document == ask.document
        OpenAPIV31SpecValidator(document).validate()
        routes = {
            (route.method.lower(), str(route.path)) for part in ask.parts for route in part.routes()
        } - {("get", "/gateway/events")}
        described = {(method, path) for path, item in document["paths"].items() for method in item}
        assert described == routes | {("get", f"{API}/openapi.json")}


async def test_names_of_operations_are_each_once() -> None:
    async with api() as ask:
        names = [one["operationId"] for item in ask.document["paths"].values() for one in item.values()]
        assert len(names) == len(set(names))


@pytest.mark.long
@pytest.mark.skipif(
    not GENERATOR, reason="needs openapi-python-client on PATH: uv tool install openapi-python-client==0.29.1"
)
async def test_a_client_made_from_the_document_drives_a_whole_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api() as ask:
        await _generate(ask.document, tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        try:
            await _live(ask)
        finally:
            for name in [name for name in sys.modules if name.split(".")[0] == CLIENT]:
                del sys.modules[name]


async def _generate(document: dict[str, Any], folder: Path) -> None:
    source, config = folder / "openapi.json", folder / "config.yaml"
    source.write_text(json.dumps(document))
    config.write_text("post_hooks: []\n")
    command = (
        *(GENERATOR, "generate", "--meta", "none"),
        *("--path", str(source), "--config", str(config), "--output-path", str(folder / CLIENT)),
        "--fail-on-warning",
    )
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(120):
        told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()


async def _live(ask: Api) -> None:
    client_of = importlib.import_module(CLIENT).Client
    async with (
        client_of(base_url=ask.url, headers=ask.headers(ALICE)) as user,
        client_of(base_url=ask.url, headers=ask.headers(BOSS, Role.OPERATOR)) as boss,
    ):
        await _drive(ask, user, boss)


async def _drive(ask: Api, user: Any, boss: Any) -> None:
    """``user`` and ``boss`` are generated clients."""

    async def call(client: Any, tag: str, name: str, *args: Any, **values: Any) -> Any:
        return await importlib.import_module(f"{CLIENT}.api.{tag}.{name}").asyncio(
            *args, client=client, **values
        )

    assert (await call(user, "me", "me")).state == "shared"
    assert (await call(user, "me", "me_promote")).can.give_back
    await ask.world.until(State.READY)
    assert (await call(user, "me", "me_keep")).idle_ends_in_s == 1800
    (session,) = (await call(boss, "operators", "sessions")).sessions
    assert (session.user, session.state) == ("alice", "ready")
    assert (await call(boss, "operators", "session_extend", session.id)).idle_ends_at is not None
    assert len((await call(boss, "operators", "session_log", session.id, lines=3)).lines) == 3
    assert (await call(boss, "operators", "session", session.id)).readings
    assert (await call(boss, "operators", "session_drain", session.id)).user == "alice"
    await ask.world.until(State.SHARED)
    refusal = await call(user, "me", "me_give_back")
    assert refusal.error.type_ == "no_pod"
    events = (await call(boss, "operators", "events", limit=50)).events
    assert events[0].after == "shared"
    assert (await call(boss, "operators", "spend")).total_usd > 0
    assert [one.is_home for one in (await call(boss, "operators", "duty")).servers] == [True]
    assert (await call(boss, "operators", "prompts")).prompts == []


async def test_the_document_says_whose_id_a_path_takes() -> None:
    async with api() as ask:
        told = {
            path: item["get"]["parameters"][0]["description"]
            for path, item in ask.document["paths"].items()
            if path.endswith("/log")
        }
        assert told == {
            f"{API}/sessions/{{id}}/log": "Of a session.",
            f"{API}/pods/{{id}}/log": "The name of a pod.",
        }
