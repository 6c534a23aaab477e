"""`/v2`: the REST API, over the same cloud and with the same faults as GraphQL.

What it answers follows the published OpenAPI description; what that leaves open is a guess. There are pods and GPU
types, nothing else.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from simulators.runpod.catalog import GpuType, Stock
from simulators.runpod.cloud import RefusedError, RunPodSimulator
from simulators.runpod.deeds import Deed
from simulators.runpod.faults import Call, Operation, Strikes
from simulators.runpod.pods import SimPod
from simulators.runpod.replies import as_body
from simulators.runpod.rest_orders import CreatePod
from simulators.runpod.rest_replies import problem, spoilt_rest_reply
from simulators.runpod.rest_views import ACTIONS, rest_gpu_view, rest_pod_view, status_of


@dataclass(frozen=True)
class Answer:
    """`document` is None where there is no body."""

    status: int
    document: Any = None


_GONE = Answer(204)

type Act = Callable[[Deed], Awaitable[Answer]]


class ActionRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    action: Literal["start", "stop", "restart", "terminate"]


_OPERATION_OF: dict[str, Operation] = {"start": "resume", "stop": "stop", "terminate": "terminate"}


class RestApi:
    """Executes each request to its end, even when the caller has left: as the real service does."""

    def __init__(self, cloud: RunPodSimulator) -> None:
        self._cloud = cloud

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v2/pods", self.list_pods),
            web.post("/v2/pods", self.create_pod),
            web.get("/v2/pods/{pod_id}", self.get_pod),
            web.delete("/v2/pods/{pod_id}", self.delete_pod),
            web.post("/v2/pods/{pod_id}/action", self.act_on_pod),
            web.get("/v2/catalog/gpus", self.list_gpus),
            web.get("/v2/catalog/gpus/{gpu_id}", self.get_gpu),
        ]

    async def list_pods(self, request: web.Request) -> web.StreamResponse:
        async def act(deed: Deed) -> Answer:
            pods = deed.listed()
            if pods is None:
                return Answer(200, {"pods": None})
            return Answer(200, {"pods": [await self._view(pod, deed.view_s) for pod in pods]})

        return await self._answer(request, self._call("list"), act)

    async def create_pod(self, request: web.Request) -> web.StreamResponse:
        if (refused := self._refused(request)) is not None:
            return refused
        try:
            asked = CreatePod.model_validate_json(await request.read())
        except ValidationError as error:
            return _unprocessable(error)

        async def act(deed: Deed) -> Answer:
            if broken := asked.rule_broken():
                raise RefusedError(broken)
            gpu = self._cloud.gpu_types.get(asked.gpu.id)
            if gpu is None:
                raise RefusedError(f"unknown gpu type {asked.gpu.id}")
            return Answer(201, await self._view(deed.create(asked.order(gpu))))

        data_center = asked.dataCenterIds[0] if asked.dataCenterIds else None
        call = self._call("create", gpu=asked.gpu.id, data_center=data_center, name=asked.name)
        return await self._answer(request, call, act)

    async def get_pod(self, request: web.Request) -> web.StreamResponse:
        pod_id = request.match_info["pod_id"]

        async def act(deed: Deed) -> Answer:
            pod = deed.shown(pod_id)
            if pod is None:
                raise RefusedError("pod not found", status=404)
            return Answer(200, await self._view(pod, deed.view_s))

        return await self._answer(request, self._call("get", pod_id=pod_id), act)

    async def delete_pod(self, request: web.Request) -> web.StreamResponse:
        pod_id = request.match_info["pod_id"]

        async def act(deed: Deed) -> Answer:
            deed.terminate(pod_id)
            return _GONE

        return await self._answer(request, self._call("terminate", pod_id=pod_id), act)

    async def act_on_pod(self, request: web.Request) -> web.StreamResponse:
        pod_id = request.match_info["pod_id"]
        if (refused := self._refused(request)) is not None:
            return refused
        try:
            action = ActionRequest.model_validate_json(await request.read()).action
        except ValidationError as error:
            return _unprocessable(error)
        if action == "restart":
            return problem(501, "the simulator does not restart pods")

        async def act(deed: Deed) -> Answer:
            pod = self._cloud.shown(pod_id)
            if pod is None:
                raise RefusedError("pod not found", status=404)
            status = status_of(pod, self._cloud.clock.monotonic())
            if action not in ACTIONS[status]:
                raise RefusedError(f"{action} is not valid for a pod that is {status}", status=409)
            match action:
                case "terminate":
                    deed.terminate(pod_id)
                    return _GONE
                case "stop":
                    return Answer(200, await self._view(deed.stop(pod_id) or pod))
                case _:
                    return Answer(200, await self._view(deed.resume(pod_id)))

        return await self._answer(request, self._call(_OPERATION_OF[action], pod_id=pod_id), act)

    async def list_gpus(self, request: web.Request) -> web.StreamResponse:
        async def act(_deed: Deed) -> Answer:
            gpus = [rest_gpu_view(gpu, self._stock(request, gpu)) for gpu in self._cloud.gpu_types.values()]
            return Answer(200, {"gpus": gpus})

        return await self._answer(request, self._call("gpu"), act)

    async def get_gpu(self, request: web.Request) -> web.StreamResponse:
        gpu_id = request.match_info["gpu_id"]

        async def act(_deed: Deed) -> Answer:
            gpu = self._cloud.gpu_types.get(gpu_id)
            if gpu is None:
                raise RefusedError("gpu type not found", status=404)
            return Answer(200, rest_gpu_view(gpu, self._stock(request, gpu)))

        return await self._answer(request, self._call("gpu", gpu=gpu_id), act)

    def _stock(self, request: web.Request, gpu: GpuType) -> Stock | None:
        """None where it is not asked for. The rest of the query is ignored."""
        is_asked = request.query.get("include") == "AVAILABILITY"
        if is_asked != ("product" in request.query):
            raise RefusedError("include=AVAILABILITY and product need one another")
        return self._cloud.stock_of(gpu) if is_asked else None

    def _call(self, operation: Operation, **scope: Any) -> Call:
        return Call(operation, key="", at_s=self._cloud.clock.monotonic(), **scope)

    async def _view(self, pod: SimPod, at_s: float | None = None) -> dict[str, Any]:
        now_s = self._cloud.clock.monotonic()
        return await rest_pod_view(self._cloud, pod, now_s if at_s is None else at_s)

    def _refused(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") != f"Bearer {self._cloud.api_key}":
            self._cloud.calls["unauthorized"] += 1
            return problem(401, "missing bearer token")
        return None

    def _throttled(self) -> web.Response | None:
        headers = self._cloud.rate_limited()
        if headers is None:
            return None
        return problem(429, "rate limit exceeded for the minute window", headers=headers)

    async def _answer(self, request: web.Request, call: Call, act: Act) -> web.StreamResponse:
        if (refused := self._refused(request)) is not None:
            return refused
        if (throttled := self._throttled()) is not None:
            return throttled
        clock = self._cloud.clock
        fault = self._cloud.strike(call)
        if fault is not None and fault.strikes is Strikes.INSTEAD:
            return await spoilt_rest_reply(fault, request, clock)
        if fault is not None and fault.kind == "slow":
            await clock.sleep(fault.seconds or 0.0)
        if call.operation == "create" and self._cloud.delays.create_s > 0:
            await clock.sleep(self._cloud.delays.create_s)
        deed = Deed(self._cloud, fault)
        reply: web.Response
        if deed.is_null:
            reply = web.json_response(None)
        else:
            try:
                answer = await act(deed)
            except RefusedError as error:
                reply = problem(error.status, str(error))
            else:
                reply = _reply(answer)
        if fault is not None and fault.strikes is Strikes.AFTER:
            body = reply.body if isinstance(reply.body, bytes) else b""
            return await spoilt_rest_reply(fault, request, clock, body)
        return reply


def _reply(answer: Answer) -> web.Response:
    if answer.document is None:
        return web.Response(status=answer.status)
    return web.Response(status=answer.status, body=as_body(answer.document), content_type="application/json")


def _unprocessable(error: ValidationError) -> web.Response:
    told = [f"$.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)]
    return problem(422, "Request validation failed.", errors=told)
