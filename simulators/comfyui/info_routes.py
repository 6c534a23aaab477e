"""What the server says about itself: nodes, models, system, extensions, logs; and the page."""

import platform
from pathlib import Path

from aiohttp import web

from simulators.comfyui.nodes import Nodes
from simulators.comfyui.sockets import FEATURES

WEB_ROOT = Path(__file__).parent / "web"
EXTENSIONS = sorted(
    f"/{path.relative_to(WEB_ROOT).as_posix()}" for path in WEB_ROOT.glob("extensions/**/*.js")
)
MODEL_FOLDERS = (
    "checkpoints",
    "loras",
    "vae",
    "text_encoders",
    "diffusion_models",
    "embeddings",
    "upscale_models",
)
GIB = 1024**3


class InfoRoutes:
    def __init__(self, server: str, nodes: Nodes) -> None:
        self._server = server
        self._nodes = nodes

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self.page),
            web.get("/extensions", self.extensions),
            web.get("/object_info", self.object_info),
            web.get("/object_info/{node_class}", self.object_info_of),
            web.get("/system_stats", self.system_stats),
            web.get("/models", self.models),
            web.get("/models/{folder}", self.models_in),
            web.get("/experiment/models", self.model_folders),
            web.get("/embeddings", self.embeddings),
            web.get("/view_metadata/{folder_name}", self.view_metadata),
            web.get("/features", self.features),
            web.get("/i18n", self.translations),
            web.get("/workflow_templates", self.workflow_templates),
        ]

    def routes_without_twin(self) -> list[web.AbstractRouteDef]:
        """Routes that do not exist again under /api. The page's files come last: they match any path."""
        return [
            web.get("/internal/logs", self.logs),
            web.get("/internal/logs/raw", self.raw_logs),
            web.patch("/internal/logs/subscribe", self.subscribe_logs),
            web.get("/internal/files/{kind}", self.files),
            web.static("/", WEB_ROOT),
        ]

    async def page(self, request: web.Request) -> web.StreamResponse:
        headers = {"Cache-Control": "no-cache", "Pragma": "no-cache", "Expires": "0"}
        return web.FileResponse(WEB_ROOT / "index.html", headers=headers)

    async def extensions(self, request: web.Request) -> web.Response:
        return web.json_response(EXTENSIONS)

    async def object_info(self, request: web.Request) -> web.Response:
        return web.json_response(
            {name: self._nodes.described(node) for name, node in self._nodes.classes.items()}
        )

    async def object_info_of(self, request: web.Request) -> web.Response:
        node = self._nodes.classes.get(request.match_info["node_class"])
        return web.json_response({node.name: self._nodes.described(node)} if node else {})

    async def system_stats(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "system": {
                    "os": "posix",
                    "ram_total": 64 * GIB,
                    "ram_free": 48 * GIB,
                    "comfyui_version": self._nodes.installation.version,
                    "required_frontend_version": "1.27.10",
                    "installed_templates_version": "0.1.94",
                    "required_templates_version": "0.1.94",
                    "python_version": platform.python_version(),
                    "pytorch_version": "simulated",
                    "embedded_python": False,
                    "argv": ["main.py"],
                },
                "devices": [
                    {
                        "name": f"cuda:0 Simulated GPU of {self._server}",
                        "type": "cuda",
                        "index": 0,
                        "vram_total": 24 * GIB,
                        "vram_free": 20 * GIB,
                        "torch_vram_total": 4 * GIB,
                        "torch_vram_free": GIB,
                    }
                ],
            }
        )

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response(MODEL_FOLDERS)

    async def models_in(self, request: web.Request) -> web.Response:
        folder = request.match_info["folder"]
        if folder not in MODEL_FOLDERS:
            raise web.HTTPNotFound(text="")
        return web.json_response(self._nodes.models(folder))

    async def model_folders(self, request: web.Request) -> web.Response:
        return web.json_response(
            [{"name": name, "folders": [f"/comfyui/models/{name}"]} for name in MODEL_FOLDERS]
        )

    async def embeddings(self, request: web.Request) -> web.Response:
        return web.json_response(
            [name.rpartition(".")[0] or name for name in self._nodes.models("embeddings")]
        )

    async def view_metadata(self, request: web.Request) -> web.Response:
        raise web.HTTPNotFound(text="")

    async def features(self, request: web.Request) -> web.Response:
        return web.json_response(FEATURES)

    async def translations(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def workflow_templates(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def logs(self, request: web.Request) -> web.Response:
        return web.json_response(f"ComfyUI simulator {self._server}\n")

    async def raw_logs(self, request: web.Request) -> web.Response:
        entry = {"t": "2025-01-01T00:00:00", "m": f"ComfyUI simulator {self._server}\n"}
        return web.json_response({"entries": [entry], "size": {"cols": 80, "rows": 24}})

    async def subscribe_logs(self, request: web.Request) -> web.Response:
        await request.json()
        return web.Response()

    async def files(self, request: web.Request) -> web.Response:
        folder = self._nodes.folders.of_type(request.match_info["kind"])
        if folder is None:
            return web.json_response({"error": "Invalid directory type"}, status=400)
        found = sorted(
            (path for path in folder.iterdir() if path.is_file()), key=lambda path: -path.stat().st_mtime
        )
        return web.json_response([path.name for path in found])
