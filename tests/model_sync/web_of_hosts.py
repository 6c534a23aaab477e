"""The hosts that matter, by their real names and by TLS, on loopback: huggingface.co, civitai.com and their delivery.

The program under test is told of them as a company tells its programs: HTTPS_PROXY and SSL_CERT_FILE. The proxy leads
every name to one server here, so nothing leaves the machine and no line of model_sync knows that it is tested.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from aiohttp import web

from tests.model_sync.stand import sha256

COMMIT = "1234567890abcdef1234567890abcdef12345678"
HUB, CIVITAI, DELIVERY = "huggingface.co", "civitai.com", "delivery.example"
HF_TOKEN, CIVITAI_TOKEN = "hf_geheim_1", "civitai_geheim_2"


@dataclass
class Asked:
    host: str
    method: str
    path: str
    authorization: str | None
    range: str | None


@dataclass
class WebOfHosts:
    """One model, `data`, at /owner/name/resolve/… of the hub and as version 7 of Civitai; both want their token."""

    data: bytes
    folder: Path
    asked: list[Asked] = field(default_factory=list)
    proxy_port: int = 0
    # What the hub says about the file; the delivery serves `data`.
    published_sha256: str = ""
    hub_answers: bool = True

    @property
    def env(self) -> dict[str, str]:
        return {
            "HTTPS_PROXY": f"http://127.0.0.1:{self.proxy_port}",
            "SSL_CERT_FILE": str(self.folder / "ca.pem"),
            "HF_TOKEN": HF_TOKEN,
            "CIVITAI_TOKEN": CIVITAI_TOKEN,
            # Where huggingface_hub would look for a token of the person who runs the tests.
            "HF_HOME": str(self.folder / "hf"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    @property
    def hosts_with_a_token(self) -> set[tuple[str, str]]:
        return {(asked.host, asked.authorization) for asked in self.asked if asked.authorization}

    def paths(self, host: str) -> list[str]:
        return [asked.path for asked in self.asked if asked.host == host]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["WebOfHosts"]:
        self.published_sha256 = self.published_sha256 or sha256(self.data)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.folder / "ca.pem"))
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(HUB, CIVITAI, DELIVERY).configure_cert(tls)
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        tls_port = runner.addresses[0][1]
        proxy = await asyncio.start_server(lambda r, w: _lead(r, w, tls_port), "127.0.0.1", 0)
        self.proxy_port = proxy.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            proxy.close()
            # Ends the connections that the proxy still leads here.
            await runner.cleanup()
            await proxy.wait_closed()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization")
        self.asked.append(
            Asked(request.host, request.method, request.path, authorization, request.headers.get("Range"))
        )
        if request.host == HUB:
            return self._hub(request, authorization)
        if request.host == CIVITAI:
            return self._civitai(request, authorization)
        return self._delivery(request)

    def _hub(self, request: web.Request, authorization: str | None) -> web.Response:
        if not self.hub_answers and request.method == "HEAD":
            return web.Response(status=503)
        if authorization != f"Bearer {HF_TOKEN}":
            return web.Response(status=401, headers={"X-Error-Code": "GatedRepo"})
        if request.path == "/api/models/owner/name":
            return web.json_response({"id": "owner/name", "sha": COMMIT, "siblings": []})
        if request.path == f"/api/models/owner/name/tree/{COMMIT}":
            lfs = {"oid": self.published_sha256, "size": len(self.data), "pointerSize": 135}
            return web.json_response(
                [
                    {"type": "directory", "oid": "0" * 40, "size": 0, "path": "unet"},
                    {
                        "type": "file",
                        "oid": "0" * 40,
                        "size": len(self.data),
                        "path": "unet/x.safetensors",
                        "lfs": lfs,
                    },
                    {"type": "file", "oid": "1" * 40, "size": 2, "path": "config.json"},
                ]
            )
        if request.path.endswith("config.json"):
            return web.Response(body=b"{}", headers={"ETag": '"' + "1" * 40 + '"', "X-Repo-Commit": COMMIT})
        if not request.path.endswith("x.safetensors"):
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        return web.Response(
            status=302,
            headers={
                "Location": f"https://{DELIVERY}/blob?signature=geheim",
                "X-Linked-Etag": f'"{self.published_sha256}"',
                "X-Linked-Size": str(len(self.data)),
                "X-Repo-Commit": COMMIT,
            },
        )

    def _civitai(self, request: web.Request, authorization: str | None) -> web.Response:
        if request.path == "/api/v1/model-versions/7":
            file = {
                "name": "detail.safetensors",
                "sizeKB": len(self.data) / 1024,
                "primary": True,
                "hashes": {"SHA256": sha256(self.data).upper(), "AutoV2": "ABC"},
                "downloadUrl": f"https://{CIVITAI}/api/download/models/7",
            }
            return web.json_response({"id": 7, "model": {"name": "Detail", "type": "LORA"}, "files": [file]})
        if authorization != f"Bearer {CIVITAI_TOKEN}":
            return web.Response(status=401)
        return web.Response(status=307, headers={"Location": f"https://{DELIVERY}/blob?signature=geheim"})

    def _delivery(self, request: web.Request) -> web.Response:
        asked = request.http_range
        part = self.data[asked]
        if asked.start is None:
            return web.Response(body=part, headers={"ETag": '"blob"'})
        last = len(self.data) - 1
        headers = {"ETag": '"blob"', "Content-Range": f"bytes {asked.start}-{last}/{len(self.data)}"}
        return web.Response(status=206, body=part, headers=headers)


async def _lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """A proxy of CONNECT alone, that leads every host to `port` here."""
    with closing(writer), suppress(ConnectionError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"CONNECT "), head
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pipe(reader, inner_writer), _pipe(inner_reader, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
    writer.close()
