"""Stands in for a ComfyUI that costs next to nothing: what is measured is what is in front of it.

nginx answers GETs of fixed size. Prompts go to a small ASGI program, which knows every prompt as done at once.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import free_port, running

SMALL = json.dumps(
    {"system": {"os": "posix", "comfyui_version": "0.3.64"}, "devices": [{"name": "cpu", "pad": "x" * 130}]}
)
LARGE_BYTES = 500_000

_NGINX = """daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr; {user}
events {{ worker_connections 2048; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/body; default_type application/json;
  map $http_upgrade $upgrade {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{port};
    location = /system_stats {{ return 200 '{small}'; }}
    location = /object_info_of_500_kb {{ alias {folder}/large.json; }}
    location / {{
      proxy_pass http://127.0.0.1:{app}; proxy_http_version 1.1; proxy_request_buffering off;
      proxy_set_header Connection $upgrade; proxy_set_header Upgrade $http_upgrade;
      client_max_body_size 100m; client_body_buffer_size 1m;
    }}
  }}
}}
"""
_DONE = {"outputs": {}, "status": {"status_str": "success", "completed": True, "messages": []}}


@dataclass(frozen=True)
class Upstream:
    """Where it listens."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def upstream(folder: Path, *, core: int) -> Iterator[Upstream]:
    """Both programs. Raises RuntimeError when one does not start."""
    port, app = free_port(), free_port()
    (folder / "large.json").write_text(json.dumps({"pad": "x" * (LARGE_BYTES - 11)}))
    user = "user root;" if os.geteuid() == 0 else ""  # else it takes one that may not read our files
    config = _NGINX.format(folder=folder, port=port, app=app, small=SMALL, user=user)
    (folder / "upstream.conf").write_text(config)
    serve = [
        sys.executable, "-m", "uvicorn", "--log-level", "warning", "--port", str(app), "--no-access-log",
        "benchmarks.upstream:app",
    ]  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(running(serve, port=app, core=core, folder=folder, name="prompts"))
        nginx = ["nginx", "-c", str(folder / "upstream.conf")]
        stack.enter_context(running(nginx, port=port, core=core, folder=folder, name="upstream"))
        yield Upstream(port)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The ASGI program for prompts, queue, history and socket."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
    else:
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        answer = json.dumps(_answer(scope["method"], scope["path"], body)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def _answer(method: str, path: str, body: bytes) -> Any:
    if path.endswith("/prompt") and method == "POST":
        return {"prompt_id": json.loads(body).get("prompt_id", "p"), "number": 1, "node_errors": {}}
    if path.endswith("/queue"):
        return {"queue_running": [], "queue_pending": []}
    if "/history/" in path:
        return {path.rpartition("/")[2]: _DONE}
    if path.endswith("/object_info"):
        return {"EmptyImage": {"input": {"required": {"width": ["INT", {}]}}, "output": ["IMAGE"]}}
    return {}
