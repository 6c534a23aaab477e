"""The person's own files: /userdata, /v2/userdata, /settings and /users.

A file name in the path carries its slashes as `%2F`; a proxy that decodes them turns it into another route.
"""

import json
import re
import shutil
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from simulators.comfyui.folders import Folders, below

SETTINGS = "comfy.settings.json"


class UserdataRoutes:
    """With `multi_user` the header Comfy-User names whose files are meant, as ComfyUI's --multi-user."""

    def __init__(self, folders: Folders, *, multi_user: bool) -> None:
        self._folder = folders.user
        self._multi_user = multi_user
        self._users_file = folders.user / "users.json"

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/settings", self.get_settings),
            web.get("/settings/{id}", self.get_setting),
            web.post("/settings", self.post_settings),
            web.post("/settings/{id}", self.post_setting),
            web.get("/users", self.get_users),
            web.post("/users", self.post_users),
            web.get("/userdata", self.list_files),
            web.get("/v2/userdata", self.list_tree),
            web.get("/userdata/{file}", self.get_file),
            web.post("/userdata/{file}", self.post_file),
            web.delete("/userdata/{file}", self.delete_file),
            web.post("/userdata/{file}/move/{dest}", self.move_file),
        ]

    def _users(self) -> dict[str, str]:
        if not self._multi_user:
            return {"default": "default"}
        users: dict[str, str] = json.loads(self._users_file.read_text()) if self._users_file.is_file() else {}
        return users

    def _home(self, request: web.Request) -> Path:
        """The user's folder, not necessarily there. Raises HTTPForbidden for a user who does not exist."""
        user = request.headers.get("Comfy-User", "default") if self._multi_user else "default"
        if user not in self._users():
            raise web.HTTPForbidden(text="Invalid user specified in request")
        return self._folder / user

    def _path(self, request: web.Request, name: str) -> Path:
        """Raises HTTPForbidden for a name that leads out of the user's folder."""
        path = below(self._home(request), unquote(name) if "%" in name else name)
        if path is None:
            raise web.HTTPForbidden(text="")
        return path

    async def get_settings(self, request: web.Request) -> web.Response:
        return web.json_response(self._settings(request))

    async def get_setting(self, request: web.Request) -> web.Response:
        return web.json_response(self._settings(request).get(request.match_info["id"]))

    async def post_settings(self, request: web.Request) -> web.Response:
        self._save_settings(request, {**self._settings(request), **await request.json()})
        return web.Response()

    async def post_setting(self, request: web.Request) -> web.Response:
        setting = {request.match_info["id"]: await request.json()}
        self._save_settings(request, {**self._settings(request), **setting})
        return web.Response()

    def _settings(self, request: web.Request) -> dict[str, Any]:
        path = self._path(request, SETTINGS)
        settings: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        return settings

    def _save_settings(self, request: web.Request, settings: dict[str, Any]) -> None:
        _write(self._path(request, SETTINGS), json.dumps(settings, indent=4).encode())

    async def get_users(self, request: web.Request) -> web.Response:
        if self._multi_user:
            return web.json_response({"storage": "server", "users": self._users()})
        return web.json_response({"storage": "server", "migrated": self._home(request).is_dir()})

    async def post_users(self, request: web.Request) -> web.Response:
        name = (await request.json())["username"].strip()
        users = self._users()
        if name in users.values():
            return web.json_response({"error": "Duplicate username."}, status=400)
        user_id = f"{re.sub('[^a-zA-Z0-9-_]+', '-', name)}_{uuid.uuid4()}"
        _write(self._users_file, json.dumps({**users, user_id: name}).encode())
        return web.json_response(user_id)

    async def list_files(self, request: web.Request) -> web.Response:
        query = request.query
        if not query.get("dir"):
            return web.Response(status=400, text="Directory not provided")
        folder = self._path(request, query["dir"])
        if not folder.is_dir():
            return web.Response(status=404, text="Directory not found")
        found = folder.rglob("*") if query.get("recurse", "").lower() == "true" else folder.glob("*")
        names = sorted(path for path in found if path.is_file())
        if query.get("full_info", "").lower() == "true":
            return web.json_response([_file_info(path, folder) for path in names])
        relative = [path.relative_to(folder).as_posix() for path in names]
        if query.get("split", "").lower() == "true":
            return web.json_response([[name, *name.split("/")] for name in relative])
        return web.json_response(relative)

    async def list_tree(self, request: web.Request) -> web.Response:
        home = self._home(request)
        wanted = unquote(request.query.get("path", ""))
        folder = below(home, wanted)
        if folder is None:
            return web.Response(status=400, text="Invalid path requested")
        if not folder.exists():
            empty = folder == home
            return (
                web.json_response([]) if empty else web.Response(status=404, text="Requested path not found")
            )
        if not folder.is_dir():
            return web.Response(status=400, text="Requested path is not a directory")
        entries = [_tree_entry(path, home) for path in folder.rglob("*")]
        entries.sort(key=lambda entry: (entry["type"] != "directory", entry["name"].lower()))
        return web.json_response(entries)

    async def get_file(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(self._existing(request))

    async def post_file(self, request: web.Request) -> web.Response:
        path = self._path(request, request.match_info["file"])
        if request.query.get("overwrite") == "false" and path.exists():
            return web.Response(status=409, text="File already exists")
        _write(path, await request.read())
        return self._told(request, path)

    async def delete_file(self, request: web.Request) -> web.Response:
        self._existing(request).unlink()
        return web.Response(status=204)

    async def move_file(self, request: web.Request) -> web.Response:
        source = self._existing(request)
        target = self._path(request, request.match_info["dest"])
        if request.query.get("overwrite") == "false" and target.exists():
            return web.Response(status=409, text="File already exists")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)
        return self._told(request, target)

    def _existing(self, request: web.Request) -> Path:
        path = self._path(request, request.match_info["file"])
        if not path.is_file():
            raise web.HTTPNotFound(text="")
        return path

    def _told(self, request: web.Request, path: Path) -> web.Response:
        home = self._home(request)
        if request.query.get("full_info", "false").lower() == "true":
            return web.json_response(_file_info(path, home))
        return web.json_response(path.relative_to(home).as_posix())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _file_info(path: Path, root: Path) -> dict[str, Any]:
    stat = path.stat()
    return {
        "path": path.relative_to(root).as_posix(),
        "size": stat.st_size,
        "modified": stat.st_mtime,
        "created": stat.st_ctime,
    }


def _tree_entry(path: Path, home: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": path.name, "path": path.relative_to(home).as_posix()}
    if path.is_dir():
        return entry | {"type": "directory"}
    stat = path.stat()
    return entry | {"type": "file", "size": stat.st_size, "modified": stat.st_mtime}
