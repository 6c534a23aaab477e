"""Runs prompts one after another, in ComfyUI's order (main.py:107, execution.py:638).

A node whose class, inputs and ancestors equal one of the previous prompt is answered from the cache; where it
is an output, its `executed` names the file of the earlier run. The cache holds the last prompt's nodes only.
"""

import asyncio
import copy
import logging
import random
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from simulators.comfyui.mood import PAUSE_POLL_S, Mood
from simulators.comfyui.narration import Narration
from simulators.comfyui.node_class import Result, is_link
from simulators.comfyui.nodes import Nodes
from simulators.comfyui.plan import cache_keys, needed, next_of, note_changes
from simulators.comfyui.prompt_queue import Item, PromptQueue
from simulators.comfyui.sockets import Sockets

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """Somebody asked the running prompt to stop."""


class Forgotten(Exception):
    """The running prompt was lost with the queue: nothing more is said about it."""


@dataclass(frozen=True)
class Kept:
    """A result in the cache, and the node that it was made for: the history goes on naming that one."""

    node_id: str
    result: Result


@dataclass
class Running:
    """Kept after the prompt's end as in ComfyUI: only node_id says that something runs."""

    client_id: str | None = None
    node_id: str | None = None


class Executor:
    def __init__(
        self,
        queue: PromptQueue,
        sockets: Sockets,
        nodes: Nodes,
        mood: Mood,
        server: str,
    ) -> None:
        self.queue = queue
        self.sockets = sockets
        self.nodes = nodes
        self.mood = mood
        self.server = server
        self.running = Running()
        self.cache: dict[str, Kept] = {}
        self._temp_prefixes: dict[tuple[str, str], str] = {}
        self._free_memory = False
        self._stop = asyncio.Event()
        self._work = asyncio.Event()

    def wake(self) -> None:
        """To be called when the queue may have got a prompt."""
        self._work.set()

    def interrupt(self) -> None:
        """Stops the prompt that runs; without one nothing happens, also not to the next one."""
        self._stop.set()

    def free_memory(self) -> None:
        """Empties the cache, after the prompt that runs (main.py:159)."""
        self._free_memory = True
        self._work.set()

    def forget(self) -> None:
        """To be called after the queue forgot: ends the running prompt in silence, and all is as at a start."""
        self._reset()
        self.abandon()

    def abandon(self) -> None:
        """To be called after the queue lost the running prompt: it ends in silence."""
        if self.queue.running is None:
            self.running = Running()
            self._stop.set()

    def temp_prefix(self, node_id: str, class_type: str) -> str:
        """Of a node: the same from prompt to prompt while prompts have that node (nodes.py:1620)."""
        key = (node_id, class_type)
        if key not in self._temp_prefixes:
            letters = "".join(random.choice(string.ascii_lowercase) for _ in range(5))
            self._temp_prefixes[key] = f"_temp_{letters}"
        return self._temp_prefixes[key]

    def begin(self, prompt: dict[str, dict[str, Any]], keys: dict[str, str]) -> None:
        """Drops what this prompt cannot use."""
        self.cache = {key: self.cache[key] for key in keys.values() if key in self.cache}
        present = {(node_id, node["class_type"]) for node_id, node in prompt.items()}
        self._temp_prefixes = {key: told for key, told in self._temp_prefixes.items() if key in present}

    def _reset(self) -> None:
        self.cache = {}
        self._temp_prefixes = {}
        self._free_memory = False

    async def run_forever(self) -> None:
        while True:
            if self._free_memory:
                self._reset()
            item = self.queue.start_next()
            if item is None:
                self._work.clear()
                await self._work.wait()
                continue
            try:
                await self._run(item)
            except Forgotten:
                log.info("prompt %s was forgotten", item.prompt_id)

    async def _run(self, item: Item) -> None:
        self._stop.clear()
        self.running = Running(item.client_id)
        narration = Narration(self.sockets, item)
        run = PromptRun(self, item, narration)
        completed = await run.to_the_end()
        self.raise_if_forgotten(item)
        self.running.node_id = None
        status = {
            "status_str": "success" if completed else "error",
            "completed": completed,
            "messages": narration.messages,
        }
        self.queue.finish(item, run.result(), status)
        narration.ended()

    async def step(self, item: Item, least_s: float) -> None:
        """Raises Interrupted or Forgotten as soon as it is asked for."""
        while self.mood.wedged:  # as in a kernel that never returns: nobody looks at an interruption
            self.raise_if_forgotten(item)
            await asyncio.sleep(PAUSE_POLL_S)
        await self._stoppable_sleep(max(least_s, self.mood.step_s))
        while self.mood.paused and not self._stop.is_set():
            await self._stoppable_sleep(PAUSE_POLL_S)
        self.raise_if_stopped(item)

    async def _stoppable_sleep(self, duration_s: float) -> None:
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(duration_s):
                await self._stop.wait()
        except TimeoutError:
            return

    def raise_if_stopped(self, item: Item) -> None:
        self.raise_if_forgotten(item)
        if self._stop.is_set():
            raise Interrupted

    def raise_if_forgotten(self, item: Item) -> None:
        if self.queue.running is not item:
            raise Forgotten


class PromptRun:
    """One prompt on its way through the executor."""

    def __init__(self, executor: Executor, item: Item, narration: Narration) -> None:
        self._executor = executor
        self._item = item
        self._prompt = copy.deepcopy(item.prompt)
        self._narration = narration
        self._keys: dict[str, str] = {}

    async def to_the_end(self) -> bool:
        """Whether every node ran. What went wrong has been told by then."""
        executor, prompt = self._executor, self._prompt
        self._narration.started()
        await asyncio.to_thread(note_changes, prompt, executor.nodes)
        executor.raise_if_forgotten(self._item)
        self._keys = cache_keys(prompt)
        executor.begin(prompt, self._keys)
        self._narration.cached([node_id for node_id in prompt if self._cached(node_id)])
        waiting = needed(prompt, self._item.outputs, lambda node_id: self._cached(node_id) is not None)
        while waiting:
            node_id = next_of(prompt, waiting, executor.nodes)
            waiting.remove(node_id)
            if not await self._ran(node_id):
                return False
        self._narration.succeeded()
        return True

    def result(self) -> dict[str, Any]:
        """The outputs of the prompt's nodes for the history, those from the cache included."""
        cached = {node_id: self._cached(node_id) for node_id in self._prompt}
        shown = {node_id: kept for node_id, kept in cached.items() if kept and kept.result.ui}
        meta = {
            node_id: {
                "node_id": kept.node_id,
                "display_node": kept.node_id,
                "parent_node": None,
                "real_node_id": kept.node_id,
            }
            for node_id, kept in shown.items()
        }
        return {"outputs": {node_id: kept.result.ui for node_id, kept in shown.items()}, "meta": meta}

    async def _ran(self, node_id: str) -> bool:
        executor, narration = self._executor, self._narration
        cached = self._cached(node_id)
        if cached is not None:
            narration.node_was_cached(node_id, cached.result.ui)
            return True
        if self._item.client_id is not None:
            executor.running.node_id = node_id
        narration.node_started(node_id)
        inputs: dict[str, Any] = {}
        try:
            executor.raise_if_stopped(self._item)
            node = self._prompt[node_id]
            inputs = {name: self._value(value) for name, value in node["inputs"].items()}
            work = NodeRun(executor, self._item, narration, node_id, self._prompt)
            result = await executor.nodes.classes[node["class_type"]].run(work, inputs)
            executor.raise_if_forgotten(self._item)
        except Forgotten:
            raise
        except Interrupted:
            narration.interrupted(node_id)
            return False
        except Exception as error:  # noqa: BLE001 - whatever a node raises is the prompt's error
            executor.raise_if_forgotten(self._item)
            narration.failed(node_id, inputs, error)
            return False
        executor.cache[self._keys[node_id]] = Kept(node_id, result)
        narration.node_finished(node_id, result.ui)
        return True

    def _cached(self, node_id: str) -> Kept | None:
        return self._executor.cache.get(self._keys[node_id])

    def _value(self, value: Any) -> Any:
        """The value of an input, a link's taken from the node that ran before. LookupError when none did."""
        if not is_link(value):
            return value
        return self._executor.cache[self._keys[value[0]]].result.outputs[value[1]]


class NodeRun:
    """What one node of a prompt may use (see nodes.Work)."""

    def __init__(
        self,
        executor: Executor,
        item: Item,
        narration: Narration,
        node_id: str,
        prompt: dict[str, dict[str, Any]],
    ) -> None:
        self._executor = executor
        self._item = item
        self._narration = narration
        self._node_id = node_id
        self._class_type: str = prompt[node_id]["class_type"]
        self.server = executor.server
        self.folders = executor.nodes.folders
        self.metadata: Mapping[str, Any] = {"prompt": prompt, **(item.extra_data.get("extra_pnginfo") or {})}

    @property
    def temp_prefix(self) -> str:
        return self._executor.temp_prefix(self._node_id, self._class_type)

    async def step(self, least_s: float = 0.0) -> None:
        await self._executor.step(self._item, least_s)

    def progress(self, value: float, maximum: float, preview: Image.Image | None = None) -> None:
        self._narration.node_advanced(self._node_id, value, maximum, preview)
