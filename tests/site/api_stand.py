"""The API on a real socket, over the fakes: the clock and the cloud stand still until a test moves them."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from jsonschema import Draft202012Validator, FormatChecker

from comfy_gateway.core import site_contract
from comfy_gateway.core.life.own_pod import Policy
from comfy_gateway.core.people.identity import IdentityRules
from comfy_gateway.core.people.roles import Role
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.service.life.event_log import EventLog
from comfy_gateway.service.life.operations import Operations
from comfy_gateway.site.api import Document, OperatorPages, OwnPages, Stream
from comfy_gateway.site.api.document import describe
from comfy_gateway.site.app import build_app
from comfy_gateway.site.operators_page import OperatorsPage
from comfy_gateway.site.server import SiteServer
from tests.fakes.clock import FakeClock
from tests.service.own_stand import LIBERAL, own_session
from tests.service.world import ALICE, RULES, World

API = "/gateway/api/v1"
ME = f"{API}/me"
BOSS = UserId(IdKind.NAMED, "boss")


@dataclass
class Api:
    """Asks the site as the hooks do."""

    world: World
    http: aiohttp.ClientSession
    url: str
    operations: Operations
    log: EventLog
    parts: list[OwnPages | OperatorPages | Stream]
    document: dict[str, Any]

    async def __call__(
        self,
        method: str,
        path: str,
        user: UserId | None = ALICE,
        body: bytes = b"",
        *,
        role: Role = Role.USER,
    ) -> tuple[int, Any]:
        headers = self.headers(user, role)
        async with self.http.request(method, self.url + path, headers=headers, data=body) as response:
            assert response.content_type == "application/json"
            assert response.headers["Cache-Control"] == "no-store"
            told = await response.json()
        self._hold_to_document(method, path, response.status, told)
        return response.status, told

    def _hold_to_document(self, method: str, path: str, status: int, told: Any) -> None:
        """Every answer that any test gets is one that the document describes."""
        plain = path.partition("?")[0]
        for template, item in self.document["paths"].items():
            if re.fullmatch(template.replace("{id}", "[^/]+"), plain) and method.lower() in item:
                described = item[method.lower()]["responses"][str(status)]
                schema = described["content"]["application/json"]["schema"]
                whole = schema | {"components": self.document["components"]}
                Draft202012Validator(whole, format_checker=FormatChecker()).validate(told)
                _hold_to_fields(whole, schema, told)

    async def boss(self, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
        """As an operator, below the API's root."""
        return await self(method, API + path, BOSS, body, role=Role.OPERATOR)

    def headers(self, user: UserId | None, role: Role = Role.USER) -> dict[str, str]:
        """What the hooks send."""
        found = {site_contract.KEY: "k"}
        if user is not None:
            found[site_contract.USER] = user.key
        if role is Role.OPERATOR:
            found[site_contract.ROLE] = str(role)
        return found


@asynccontextmanager
async def api(policy: Policy = LIBERAL, *, world: World | None = None) -> AsyncIterator[Api]:
    """As wiring builds it."""
    world = world or World(FakeClock(), rules=RULES)
    log = EventLog(world.clock)
    world.sessions.listen(log.happened)
    operations = Operations(
        sessions=world.sessions,
        bursts=world.bursts,
        life=world.life,
        signals=world.signals,
        keeping=world.keeping,
        readings=world.readings,
        log=log,
        ledger=world.ledger,
        rules=world.rules,
        pod_logs=world.logs,
        clock=world.clock,
    )
    own = own_session(world, policy)
    parts: list[OwnPages | OperatorPages | Stream] = [
        OwnPages(own, IdentityRules()),
        OperatorPages(
            operations=operations,
            own=own,
            log=log,
            ledger=world.ledger,
            pool=world.pool,
            store=world.store,
            clock=world.clock,
            identity_key="user_id",
        ),
        Stream(operations=operations, pool=world.pool, ledger=world.ledger, clock=world.clock),
    ]
    operations_of_all = [operation for part in parts for operation in part.operations()]
    document = Document(operations_of_all)
    page = OperatorsPage(operations=operations, pool=world.pool, ledger=world.ledger, clock=world.clock)
    server = SiteServer(build_app(key="k", parts=[*parts, document, page]))
    address = await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield Api(
                world,
                http,
                address.url(""),
                operations,
                log,
                parts,
                describe([*operations_of_all, *document.operations()]),
            )
    finally:
        await server.aclose()
        await world.stop()


def _hold_to_fields(whole: dict[str, Any], schema: dict[str, Any], told: Any) -> None:
    """Nothing is told that the document does not know."""
    schema = whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if isinstance(told, dict) and "properties" in schema:
        assert set(told) == set(schema["properties"])
        for name, value in told.items():
            _hold_to_fields(whole, schema["properties"][name], value)
    elif isinstance(told, list):
        for one in told:
            _hold_to_fields(whole, schema.get("items", {}), one)


def kind(document: Any) -> str:
    """The word of a refusal, whose shape is looked at."""
    assert set(document) == {"error", "node_errors"}
    assert set(document["error"]) == {"type", "message", "details", "extra_info"}
    return str(document["error"]["type"])
