"""`/_sim/…`: what tests and demos ask of a simulator in another process. Not noted, never in a mood."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from simulators.comfyui.simulator import ComfySimulator

ACTIONS = ("forget", "drop_sockets", "kill", "revive", "restart")


class AdminRoutes:
    """POST /_sim/mood takes moods by name, `"forget_prompt": prompt_id`, and true for an action: forget,
    drop_sockets, kill, revive, restart (see ComfySimulator); it answers all moods."""

    def __init__(self, simulator: "ComfySimulator") -> None:
        self._simulator = simulator

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/_sim/mood", self.get_mood, name="sim.mood"),
            web.post("/_sim/mood", self.post_mood, name="sim.mood"),
            web.get("/_sim/requests", self.get_requests, name="sim.requests"),
            web.get("/_sim/accepted", self.get_accepted, name="sim.accepted"),
        ]

    async def get_mood(self, request: web.Request) -> web.Response:
        return web.json_response(asdict(self._simulator.mood))

    async def post_mood(self, request: web.Request) -> web.Response:
        wishes: dict[str, Any] = await request.json()
        actions = [name for name in ACTIONS if wishes.pop(name, False)]
        lost = wishes.pop("forget_prompt", None)
        try:
            self._simulator.mood.change(wishes)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        if lost is not None:
            self._simulator.forget_prompt(lost)
        for name in actions:
            getattr(self._simulator, name)()
        return web.json_response(asdict(self._simulator.mood))

    async def get_requests(self, request: web.Request) -> web.Response:
        return web.json_response([seen.as_json() for seen in self._simulator.requests])

    async def get_accepted(self, request: web.Request) -> web.Response:
        return web.json_response(self._simulator.accepted)
