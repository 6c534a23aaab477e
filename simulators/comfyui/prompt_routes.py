"""/prompt, /queue, /interrupt, /free and /history."""

import json
import time
import uuid
from typing import Any

from aiohttp import web

from simulators.comfyui.executor import Executor
from simulators.comfyui.mood import Mood
from simulators.comfyui.nodes import Nodes
from simulators.comfyui.prompt_queue import SECRET_EXTRA_DATA, Item, PromptQueue
from simulators.comfyui.validation import NO_PROMPT, fault, validate

INVALID_PROMPT_ID = fault(
    "invalid_prompt_id",
    "prompt_id must be a valid UUID",
    "prompt_id must be a UUID string in canonical lowercase hyphenated form; omit it to let the server generate one",
)


class PromptRoutes:
    def __init__(
        self,
        queue: PromptQueue,
        executor: Executor,
        nodes: Nodes,
        accepted: list[dict[str, Any]],
        mood: Mood,
    ) -> None:
        self._queue = queue
        self._executor = executor
        self._nodes = nodes
        self._accepted = accepted
        self._mood = mood
        self._counter = 0

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/prompt", self.get_prompt),
            web.post("/prompt", self.post_prompt),
            web.get("/queue", self.get_queue),
            web.post("/queue", self.post_queue),
            web.post("/interrupt", self.post_interrupt),
            web.post("/free", self.post_free),
            web.get("/history", self.get_history),
            web.post("/history", self.post_history),
            web.get("/history/{prompt_id}", self.get_history_of),
        ]

    def forget(self) -> None:
        self._counter = 0

    def state(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": self._queue.remaining}}

    async def get_prompt(self, request: web.Request) -> web.Response:
        return web.json_response(self.state())

    async def post_prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        number = self._number_of(body)
        if "prompt" not in body:
            return web.json_response({"error": NO_PROMPT, "node_errors": {}}, status=400)
        prompt = body["prompt"]
        try:
            prompt_id = self._id_of(body)
        except ValueError:
            return web.json_response({"error": INVALID_PROMPT_ID, "node_errors": {}}, status=400)
        verdict = validate(prompt, body.get("partial_execution_targets"), self._nodes)
        if verdict.error is not None:
            return web.json_response({"error": verdict.error, "node_errors": verdict.node_errors}, status=400)
        item = Item(number, prompt_id, prompt, self._extra_data_of(body), verdict.outputs)
        self._accepted.append({**body, "prompt_id": prompt_id, "number": number})
        if self._nodes.installation.newer:
            item.secrets = {
                name: item.extra_data.pop(name) for name in SECRET_EXTRA_DATA if name in item.extra_data
            }
            item.extra_data["create_time"] = time.time_ns() // 1_000_000
        if not self._mood.forgetful:
            self._queue.put(item)
        return web.json_response(
            {"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors}
        )

    def _id_of(self, body: dict[str, Any]) -> str:
        """Newer cores take a canonical UUID or nothing, older ones whatever can be written out.

        Raises ValueError.
        """
        if not self._nodes.installation.newer:
            return str(body["prompt_id"]) if "prompt_id" in body else str(uuid.uuid4())
        told = body.get("prompt_id")
        return str(uuid.uuid4()) if told is None else checked_job_id(told)

    def _extra_data_of(self, body: dict[str, Any]) -> dict[str, Any]:
        extra_data = dict(body.get("extra_data", {}))
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        return extra_data

    def _number_of(self, body: dict[str, Any]) -> float:
        """A number from the counter is used up by a refused prompt as well."""
        if "number" in body:
            return float(body["number"])
        number = -self._counter if body.get("front") else self._counter
        self._counter += 1
        return number

    async def get_queue(self, request: web.Request) -> web.Response:
        running = self._queue.running
        return web.json_response(
            {
                "queue_running": [running.as_json()] if running else [],
                "queue_pending": [item.as_json() for item in self._queue.pending],
            }
        )

    async def post_queue(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("clear"):
            self._queue.clear()
        for prompt_id in body.get("delete", ()):
            self._queue.delete(prompt_id)
        return web.Response()

    async def post_interrupt(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except json.JSONDecodeError:
            body = {}
        prompt_id = body.get("prompt_id")
        running = self._queue.running
        if not prompt_id or (running is not None and running.prompt_id == prompt_id):
            self._executor.interrupt()
        return web.Response()

    async def post_free(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("free_memory"):
            self._executor.free_memory()
        return web.Response()

    async def get_history(self, request: web.Request) -> web.Response:
        max_items, offset = request.query.get("max_items"), request.query.get("offset")
        page = self._queue.page_of_history(
            None if max_items is None else int(max_items), -1 if offset is None else int(offset)
        )
        return web.json_response(page)

    async def get_history_of(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["prompt_id"]
        history = self._queue.history
        return web.json_response({prompt_id: history[prompt_id]} if prompt_id in history else {})

    async def post_history(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("clear"):
            self._queue.history = {}
        for prompt_id in body.get("delete", ()):
            self._queue.history.pop(prompt_id, None)
        return web.Response()


def checked_job_id(told: Any) -> str:
    """The id, if it is a UUID written as newer cores want it. Raises ValueError."""
    if not isinstance(told, str) or str(uuid.UUID(told)) != told:
        raise ValueError("no canonical UUID")
    return told
