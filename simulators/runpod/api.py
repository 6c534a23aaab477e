"""POST /graphql, as the SDK speaks to it."""

import inspect
import json
from typing import Any

from aiohttp import web
from graphql import DocumentNode, ExecutionResult, GraphQLError, GraphQLSyntaxError, execute, parse, validate

from simulators.runpod.cloud import RunPodSimulator
from simulators.runpod.faults import Call, Fault, Strikes
from simulators.runpod.replies import as_body, refused, spoilt_reply
from simulators.runpod.resolvers import Execution, calls_of, make_schema


class GraphQLApi:
    """Executes one request at a time to its end, even when the caller has left: as the real service does."""

    def __init__(self, cloud: RunPodSimulator) -> None:
        self._cloud = cloud
        self._schema = make_schema()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self._cloud.retired:
            self._cloud.calls["retired"] += 1
            return web.json_response(
                {"message": "This API is gone. Use https://api.runpod.io/v2"}, status=410
            )
        if request.headers.get("Authorization") != f"Bearer {self._cloud.api_key}":
            self._cloud.calls["unauthorized"] += 1
            return web.json_response({"message": "Unauthorized"}, status=401)
        if (headers := self._cloud.rate_limited()) is not None:
            return web.json_response({"message": "Too Many Requests"}, status=429, headers=headers)
        try:
            asked = json.loads(await request.read())
            query, variables = asked["query"], asked.get("variables") or {}
            document = parse(query)
        except (ValueError, KeyError, TypeError) as error:
            return refused(f"Invalid request: {error}")
        except GraphQLSyntaxError as error:
            return refused(error.message)
        if wrong := validate(self._schema, document):
            return web.json_response({"errors": [error.formatted for error in wrong]}, status=400)
        try:
            calls = calls_of(self._schema, document, variables, self._cloud.clock.monotonic())
        except GraphQLError as error:
            return refused(error.message)
        return await self._answer(request, document, variables, calls)

    async def _answer(
        self, request: web.Request, document: DocumentNode, variables: dict[str, Any], calls: list[Call]
    ) -> web.StreamResponse:
        clock = self._cloud.clock
        faults: dict[str, Fault] = {}
        for call in calls:
            if struck := self._cloud.strike(call):
                faults[call.key] = struck
        for key, fault in faults.items():
            if fault.strikes is Strikes.INSTEAD:
                return await spoilt_reply(fault, key, request, clock)
        for fault in faults.values():
            if fault.kind == "slow":
                await clock.sleep(fault.seconds or 0.0)
        if any(call.operation == "create" for call in calls) and self._cloud.delays.create_s > 0:
            await clock.sleep(self._cloud.delays.create_s)
        reply = as_body(await self._execute(document, variables, Execution(self._cloud, faults)))
        for key, fault in faults.items():
            if fault.strikes is Strikes.AFTER:
                return await spoilt_reply(fault, key, request, clock, reply)
        return web.Response(body=reply, content_type="application/json")

    async def _execute(
        self, document: DocumentNode, variables: dict[str, Any], run: Execution
    ) -> dict[str, Any]:
        outcome = execute(self._schema, document, context_value=run, variable_values=variables)
        result = await outcome if inspect.isawaitable(outcome) else outcome
        assert isinstance(result, ExecutionResult)
        return dict(result.formatted)
