"""`/_sim/`: steers the simulator from another process. JSON, no authentication, never a pod's env.

    GET    /_sim/state       pods (all that ever existed), calls by operation, delays, rules
    GET    /_sim/ledger      {"total_usd", "usd_per_hour", "rows": [LedgerRow…]}
    POST   /_sim/faults      a Fault, or a list of them; DELETE forgets all rules
    POST   /_sim/defaults    some of Delays: for pods that are created from now on
    POST   /_sim/stock       {"NVIDIA L40S": "NONE"}: what is left of GPU types, NONE to HIGH
    POST   /_sim/account     some of AccountChange: {"balance_usd": 5, "calls_per_minute": 60}
    POST   /_sim/retired     {"retired": true}: the GraphQL API answers 410
    POST   /_sim/pods/{id}   a PodChange, such as {"kill": true} or {"telemetry": [{"gpu_percent": 50}]}
    POST   /_sim/clock       {"advance_s": 60}, only with a FakeClock

A wrong body is answered with 422 and what is wrong with it, an unknown pod with 404.
"""

from dataclasses import asdict
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, TypeAdapter, ValidationError

from simulators.clock import FakeClock
from simulators.runpod.account import AccountChange
from simulators.runpod.catalog import Stock
from simulators.runpod.cloud import RunPodSimulator
from simulators.runpod.faults import Fault
from simulators.runpod.pods import Delays, SimPod
from simulators.runpod.telemetry import Step


class PodChange(BaseModel):
    """What is to happen to a pod; several at once are carried out in this order. `comfy` are moods."""

    model_config = ConfigDict(extra="forbid")

    delays: Delays | None = None
    stuck: bool | None = None
    unplaced: bool | None = None
    runtime_hidden: bool | None = None
    app_dead: bool | None = None
    agent_dead: bool | None = None
    app_restart: bool = False
    comfy: dict[str, Any] | None = None
    telemetry: list[Step] | None = None
    kill: bool = False
    vanish: bool = False


class ClockChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    advance_s: NonNegativeFloat


class Retirement(BaseModel):
    model_config = ConfigDict(extra="forbid")

    retired: bool


_STOCK: TypeAdapter[dict[str, Stock]] = TypeAdapter(dict[str, Stock])
_FAULTS: TypeAdapter[Fault | list[Fault]] = TypeAdapter(Fault | list[Fault])


class Admin:
    def __init__(self, cloud: RunPodSimulator) -> None:
        self._cloud = cloud

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/_sim/state", self.state),
            web.get("/_sim/ledger", self.ledger),
            web.post("/_sim/faults", self.add_faults),
            web.delete("/_sim/faults", self.clear_faults),
            web.post("/_sim/defaults", self.set_defaults),
            web.post("/_sim/stock", self.set_stock),
            web.post("/_sim/account", self.change_account),
            web.post("/_sim/retired", self.retire),
            web.post("/_sim/pods/{pod_id}", self.change_pod),
            web.post("/_sim/clock", self.advance),
        ]

    async def state(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "now_s": self._cloud.clock.monotonic(),
                "pods": [self._pod(pod) for pod in self._cloud.pods.values()],
                "calls": dict(self._cloud.calls),
                "delays": self._cloud.delays.model_dump(),
                "faults": [
                    rule.fault.model_dump(exclude_none=True) | {"seen": rule.seen, "fired": rule.fired}
                    for rule in self._cloud.faults.rules
                ],
            }
        )

    async def ledger(self, _request: web.Request) -> web.Response:
        ledger = self._cloud.ledger
        return web.json_response(
            {
                "total_usd": ledger.total_usd(),
                "usd_per_hour": ledger.usd_per_hour(),
                "rows": [asdict(row) for row in ledger.rows()],
            }
        )

    async def add_faults(self, request: web.Request) -> web.Response:
        try:
            told = _FAULTS.validate_json(await request.read())
        except ValidationError as error:
            return _wrong(error)
        for fault in told if isinstance(told, list) else [told]:
            self._cloud.faults.add(fault)
        return web.json_response({"rules": len(self._cloud.faults.rules)})

    async def clear_faults(self, _request: web.Request) -> web.Response:
        self._cloud.faults.clear()
        return web.json_response({"rules": 0})

    async def set_defaults(self, request: web.Request) -> web.Response:
        try:
            told = Delays.model_validate_json(await request.read())
        except ValidationError as error:
            return _wrong(error)
        self._cloud.delays = self._cloud.delays.model_copy(update=told.model_dump(exclude_unset=True))
        return web.json_response(self._cloud.delays.model_dump())

    async def set_stock(self, request: web.Request) -> web.Response:
        try:
            told = _STOCK.validate_json(await request.read())
        except ValidationError as error:
            return _wrong(error)
        self._cloud.stock |= told
        return web.json_response(self._cloud.stock)

    async def change_account(self, request: web.Request) -> web.Response:
        try:
            self._cloud.change_account(AccountChange.model_validate_json(await request.read()))
        except ValidationError as error:
            return _wrong(error)
        return web.json_response({"balance_usd": self._cloud.balance_usd()})

    async def retire(self, request: web.Request) -> web.Response:
        try:
            self._cloud.retired = Retirement.model_validate_json(await request.read()).retired
        except ValidationError as error:
            return _wrong(error)
        return web.json_response({"retired": self._cloud.retired})

    async def change_pod(self, request: web.Request) -> web.Response:
        pod = self._cloud.pods.get(request.match_info["pod_id"])
        if pod is None:
            return web.json_response({"error": "there never was such a pod"}, status=404)
        try:
            change = PodChange.model_validate_json(await request.read())
        except ValidationError as error:
            return _wrong(error)
        try:
            self._carry_out(pod, change)
        except ValueError as error:  # a mood that there is not
            return web.json_response({"errors": [{"msg": str(error)}]}, status=422)
        return web.json_response(self._pod(pod))

    def _carry_out(self, pod: SimPod, change: PodChange) -> None:
        if change.delays is not None:
            pod.delays = pod.delays.model_copy(update=change.delays.model_dump(exclude_unset=True))
        if change.stuck is not None:
            pod.stuck = change.stuck
        if change.unplaced is not None:
            pod.unplaced = change.unplaced
        if change.runtime_hidden is not None:
            pod.runtime_hidden = change.runtime_hidden
        if change.app_dead is not None:
            self._cloud.kill_app(pod.id, dead=change.app_dead)
        if change.agent_dead is not None:
            self._cloud.kill_agent(pod.id, dead=change.agent_dead)
        if change.app_restart:
            self._cloud.restart_app(pod.id)
        if change.comfy is not None:
            pod.comfy.mood.change(change.comfy)
        if change.telemetry is not None:
            pod.telemetry.script(*change.telemetry)
        if change.kill:
            self._cloud.kill(pod.id)
        if change.vanish:
            self._cloud.vanish(pod.id)

    async def advance(self, request: web.Request) -> web.Response:
        clock = self._cloud.clock
        if not isinstance(clock, FakeClock):
            return web.json_response({"error": "this cloud runs in real time"}, status=409)
        try:
            told = ClockChange.model_validate_json(await request.read())
        except ValidationError as error:
            return _wrong(error)
        clock.advance(told.advance_s)
        return web.json_response({"now_s": clock.monotonic()})

    def _pod(self, pod: SimPod) -> dict[str, Any]:
        now_s = self._cloud.clock.monotonic()
        row = self._cloud.ledger.row(pod.id)
        return {
            "id": pod.id,
            "name": pod.name,
            "state": pod.phase(now_s).value,
            "gpu": row.gpu,
            "data_center": pod.data_center,
            "usd_per_hour": pod.usd_per_hour,
            "usd": row.usd,
            "created_at_s": pod.created_at_s,
            "ended_at_s": pod.ended_at_s,
            "last_status_change": pod.events[-1].status_change,
            "leases": len(pod.lease_times_s),
            "last_lease_at_s": pod.lease_times_s[-1] if pod.lease_times_s else None,
            "stuck": pod.stuck,
            "unplaced": pod.unplaced,
            "runtime_hidden": pod.runtime_hidden,
            "app_dead": pod.app_dead,
            "agent_dead": pod.agent_dead,
        }


def _wrong(error: ValidationError) -> web.Response:
    return web.json_response({"errors": error.errors(include_url=False, include_context=False)}, status=422)
