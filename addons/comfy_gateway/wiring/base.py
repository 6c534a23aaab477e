"""What every part stands on: settings, clock, keys, database, connections, tasks."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import aiohttp

from comfy_gateway.adapters.clock import SystemClock
from comfy_gateway.adapters.master_secret import load_or_create
from comfy_gateway.adapters.sql import Database, open_database
from comfy_gateway.core.inputs.spaces import EVERYBODYS, InputSpaces
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.ports import Clock
from comfy_gateway.service.life.rules import Rules
from comfy_gateway.service.meters import Meters
from comfy_gateway.service.tasks import Tasks
from comfy_gateway.settings import Settings


@dataclass(frozen=True)
class Base:
    """Lent to all parts; closed when ``stack`` is, in the reverse order of opening."""

    settings: Settings
    rules: Rules
    keys: Keys
    clock: Clock
    database: Database
    http: aiohttp.ClientSession
    """For short questions to servers, agents and probes."""
    tasks: Tasks
    stack: AsyncExitStack
    meters: Meters = field(default_factory=Meters)

    @property
    def spaces(self) -> InputSpaces:
        """Inputs of each user's own on the shared servers, where users are hidden from one another."""
        access = self.settings.access
        return InputSpaces(self.keys, access.shared_inputs) if access.visibility.hides_others else EVERYBODYS

    async def http_for_files(self) -> aiohttp.ClientSession:
        """Of their own: files on their way must not take the connections of probes and questions."""
        return await self.stack.enter_async_context(
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        )


async def open_base(settings: Settings, rules: Rules, stack: AsyncExitStack) -> Base:
    """Raises GatewayError or OSError with a text for the operator."""
    keys = Keys(await _master_secret(settings))
    database = await open_database(settings.database_url.get_secret_value())
    stack.push_async_callback(database.aclose)
    http = await stack.enter_async_context(
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit_per_host=16),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
    )
    tasks = Tasks("gateway")
    stack.push_async_callback(tasks.aclose)
    return Base(
        settings=settings,
        rules=rules,
        keys=keys,
        clock=SystemClock(),
        database=database,
        http=http,
        tasks=tasks,
        stack=stack,
    )


async def _master_secret(settings: Settings) -> bytes:
    if settings.secret is not None:
        return settings.secret.get_secret_value().encode()
    return await asyncio.to_thread(load_or_create, settings.state_dir)
