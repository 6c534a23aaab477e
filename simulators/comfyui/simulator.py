"""Puts one simulated ComfyUI together."""

import asyncio
import contextlib
import logging
import secrets
import shutil
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web

from simulators.comfyui.admin_routes import AdminRoutes
from simulators.comfyui.executor import Executor
from simulators.comfyui.folders import Folders
from simulators.comfyui.info_routes import InfoRoutes
from simulators.comfyui.installation import Installation
from simulators.comfyui.job_routes import JobRoutes
from simulators.comfyui.middlewares import SeenRequest, cache_headers, loopback_origin_only, noting, suffering
from simulators.comfyui.mood import Mood
from simulators.comfyui.nodes import Nodes
from simulators.comfyui.prompt_queue import PromptQueue
from simulators.comfyui.prompt_routes import PromptRoutes
from simulators.comfyui.sockets import MOST_BODY_BYTES, Sockets
from simulators.comfyui.upload_routes import UploadRoutes
from simulators.comfyui.userdata_routes import UserdataRoutes
from simulators.comfyui.view_routes import ViewRoutes

MOST_REQUESTS = 500

log = logging.getLogger(__name__)


class ComfySimulator:
    """One server. Each `app()` is one life of it: queue, history and folders begin anew, while `accepted`,
    `requests` and `mood` stay, so a test can let it die and come back. One life at a time.

    base_dir      holds output, input, user and temp, and outlives the server; temp begins empty each time.
                  None: a temporary folder, which is removed when the application is cleaned up
    output_dir    where pictures are saved, if elsewhere; it outlives the server
    mood          the moods to begin with; without them Mood(step_s=step_s)
    installation  which core, nodes and models; another one holds from the next life on
    """

    def __init__(
        self,
        name: str = "duty",
        step_s: float = 0.0,
        output_dir: Path | None = None,
        *,
        base_dir: Path | None = None,
        mood: Mood | None = None,
        multi_user: bool = False,
        installation: Installation | None = None,
    ) -> None:
        self.name = name
        self.mood = mood or Mood(step_s=step_s)
        self.installation = installation or Installation()
        self.accepted: list[dict[str, Any]] = []
        """Every accepted prompt body, with its prompt_id and number, in order of arrival."""
        self.requests: deque[SeenRequest] = deque(maxlen=MOST_REQUESTS)
        self._base_dir = base_dir
        self._output_dir = output_dir
        self._multi_user = multi_user
        self._connections: set[asyncio.BaseTransport] = set()
        self._life: _Life | None = None

    def app(self) -> web.Application:
        """A complete application. Below another (add_subapp) it starts, stops and limits bodies by itself."""
        life = self._life = _Life(
            self.name,
            self.mood,
            self.accepted,
            base_dir=self._base_dir,
            output_dir=self._output_dir,
            installation=self.installation,
            multi_user=self._multi_user,
        )
        app = web.Application(
            client_max_size=MOST_BODY_BYTES,
            middlewares=[
                noting(self.requests, self._connections),
                suffering(self.mood),
                cache_headers,
                loopback_origin_only,
            ],
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

    def forget_prompt(self, prompt_id: str) -> None:
        """This one prompt is lost, whether it waits, runs or stands in the history, and nobody is told."""
        self._alive().forget_prompt(prompt_id)

    def kill(self) -> None:
        """The process dies: connections are cut, open or new, and all that was in memory is lost."""
        self.mood.dead, self.mood.dead_by = True, "close"
        self.drop_sockets()
        for transport in list(self._connections):
            if isinstance(transport, asyncio.Transport):
                transport.abort()
        self.forget()

    def revive(self) -> None:
        """The process is started again after `kill`, on the same folders; temporary files are gone."""
        self.folders.wipe_temp()
        self.mood.dead = False

    def restart(self) -> None:
        self.kill()
        self.revive()

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
        accepted: list[dict[str, Any]],
        *,
        base_dir: Path | None,
        output_dir: Path | None,
        installation: Installation,
        multi_user: bool,
    ) -> None:
        # Only named here: a life that never starts leaves nothing behind.
        own = Path(tempfile.gettempdir()).resolve() / f"comfyui-simulator-{secrets.token_hex(8)}"
        self._own_dir = None if base_dir else own
        self.folders = Folders.in_(base_dir.resolve() if base_dir else own)
        if output_dir is not None:
            self.folders = replace(self.folders, output=output_dir.resolve())
        nodes = Nodes(installation, self.folders)
        self.queue = PromptQueue(self._queue_changed)
        self.sockets = Sockets(self._state, self._node_running_for, mood)
        self.executor = Executor(self.queue, self.sockets, nodes, mood, name)
        self.prompts = PromptRoutes(self.queue, self.executor, nodes, accepted, mood)
        self.info = InfoRoutes(name, nodes)
        self._jobs = JobRoutes(self.queue, self.executor) if installation.newer else None
        self._views = ViewRoutes(self.folders, newer=installation.newer)
        self._uploads = UploadRoutes(self.folders)
        self._userdata = UserdataRoutes(self.folders, multi_user=multi_user)

    def routes(self) -> list[web.RouteDef]:
        return [
            *self.prompts.routes(),
            *self._views.routes(),
            *self._uploads.routes(),
            *self._userdata.routes(),
            *self.info.routes(),
            *(self._jobs.routes() if self._jobs else ()),
        ]

    async def lived(self, app: web.Application) -> AsyncIterator[None]:
        if self._own_dir is not None:
            self._own_dir.mkdir(mode=0o700)
        await asyncio.to_thread(self.folders.make)
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
        # A thread cannot be cancelled: what it still writes would come up in the folder that is being removed.
        await self.folders.settled()
        if self._own_dir is not None:
            await asyncio.to_thread(shutil.rmtree, self._own_dir)

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

    def forget_prompt(self, prompt_id: str) -> None:
        self.queue.lose(prompt_id)
        self.executor.abandon()

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
