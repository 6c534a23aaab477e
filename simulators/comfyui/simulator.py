"""Puts one simulated ComfyUI together."""

import asyncio
import contextlib
import logging
import secrets
import shutil
import string
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web

from simulators.comfyui.admin_routes import AdminRoutes
from simulators.comfyui.executor import Executor
from simulators.comfyui.file_routes import FileRoutes
from simulators.comfyui.folders import Folders
from simulators.comfyui.info_routes import InfoRoutes
from simulators.comfyui.middlewares import SeenRequest, cache_headers, loopback_origin_only, noting, suffering
from simulators.comfyui.mood import Mood
from simulators.comfyui.prompt_queue import PromptQueue
from simulators.comfyui.prompt_routes import PromptRoutes
from simulators.comfyui.sockets import MOST_BODY_BYTES, Sockets
from simulators.comfyui.userdata_routes import UserdataRoutes

MOST_REQUESTS = 500

log = logging.getLogger(__name__)


class ComfySimulator:
    """One server. Each `app()` is one life of it: queue, history and folders begin anew, while `accepted`,
    `requests` and `mood` stay, so a test can let it die and come back. One life at a time.

    output_dir  where pictures are saved; it outlives the server. None: in the temporary folder of all else,
                which is removed when the application is cleaned up.
    mood        the moods to begin with; without them Mood(step_s=step_s)
    """

    def __init__(
        self,
        name: str = "duty",
        step_s: float = 0.0,
        output_dir: Path | None = None,
        *,
        mood: Mood | None = None,
        multi_user: bool = False,
    ) -> None:
        self.name = name
        self.mood = mood or Mood(step_s=step_s)
        self.accepted: list[dict[str, Any]] = []
        """Every accepted prompt body, with its prompt_id and number, in order of arrival."""
        self.requests: deque[SeenRequest] = deque(maxlen=MOST_REQUESTS)
        self._output_dir = output_dir
        self._multi_user = multi_user
        self._life: _Life | None = None

    def app(self) -> web.Application:
        """A complete application. Below another (add_subapp) it starts, stops and limits bodies by itself."""
        life = self._life = _Life(
            self.name, self.mood, self._output_dir, self.accepted, multi_user=self._multi_user
        )
        app = web.Application(
            client_max_size=MOST_BODY_BYTES,
            middlewares=[noting(self.requests), suffering(self.mood), cache_headers, loopback_origin_only],
        )
        routes = [*life.routes(), web.get("/ws", life.sockets.handle)]
        twins = [
            web.RouteDef(route.method, f"/api{route.path}", route.handler, route.kwargs) for route in routes
        ]
        app.add_routes([*AdminRoutes(self).routes(), *routes, *twins, *life.info.routes_without_twin()])
        app.cleanup_ctx.append(life.lived)
        app.on_shutdown.append(life.drop_sockets)
        return app

    @property
    def folders(self) -> Folders:
        """Where the files of this life are. Raises RuntimeError before the first `app()`."""
        return self._alive().folders

    @property
    def open_sockets(self) -> int:
        return self._alive().sockets.open_count

    def forget(self) -> None:
        """Queue, history and cache are lost as at a restart, and the running prompt ends without a word.
        Sockets stay open and files stay."""
        self._alive().forget()

    def drop_sockets(self) -> int:
        """Cuts every socket without a closing frame, as a dying server does; returns how many."""
        return self._alive().sockets.drop()

    def _alive(self) -> "_Life":
        if self._life is None:
            raise RuntimeError("the simulator has no application yet: call app() or serve it")
        return self._life


class _Life:
    """The parts of one running server, and the one owner of its two tasks."""

    def __init__(
        self,
        name: str,
        mood: Mood,
        output_dir: Path | None,
        accepted: list[dict[str, Any]],
        *,
        multi_user: bool,
    ) -> None:
        # Only named here: a life that never starts leaves nothing behind.
        home = self._home = (
            Path(tempfile.gettempdir()).resolve() / f"comfyui-simulator-{secrets.token_hex(8)}"
        )
        self.folders = Folders(
            (output_dir or home / "output").resolve(), home / "input", home / "temp", home / "user"
        )
        temp_prefix = "_temp_" + "".join(secrets.choice(string.ascii_lowercase) for _ in range(5))
        self.queue = PromptQueue(self._queue_changed)
        self.sockets = Sockets(self._state, self._node_running_for)
        self.executor = Executor(self.queue, self.sockets, self.folders, mood, name, temp_prefix)
        self.prompts = PromptRoutes(self.queue, self.executor, self.folders, accepted)
        self.info = InfoRoutes(name, self.folders)
        self._files = FileRoutes(self.folders)
        self._userdata = UserdataRoutes(self.folders, multi_user=multi_user)

    def routes(self) -> list[web.RouteDef]:
        return [
            *self.prompts.routes(),
            *self._files.routes(),
            *self._userdata.routes(),
            *self.info.routes(),
        ]

    async def lived(self, app: web.Application) -> AsyncIterator[None]:
        self._home.mkdir(mode=0o700)
        self.folders.make()
        tasks = [
            self._started(self.executor.run_forever(), "execution"),
            self._started(self.sockets.publish_forever(), "publishing"),
        ]
        yield
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(shutil.rmtree, self._home)

    def _started(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"comfyui simulator: {what}")
        task.add_done_callback(_log_failure)
        return task

    async def drop_sockets(self, app: web.Application) -> None:
        self.sockets.drop()

    def forget(self) -> None:
        self.queue.forget()
        self.prompts.forget()
        self.executor.forget()

    def _queue_changed(self) -> None:
        self.sockets.publish("status", {"status": self._state()})
        self.executor.wake()

    def _state(self) -> dict[str, Any]:
        return self.prompts.state()

    def _node_running_for(self, sid: str) -> str | None:
        running = self.executor.running
        return running.node_id if running.client_id == sid else None


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("%s ended", task.get_name(), exc_info=task.exception())
