"""How the gateway is started by hand, as the README says, and how it ends."""

import asyncio
import contextlib
import fcntl
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import psutil
import pytest
from aiohttp import web

from comfy_gateway.doctor.examination import examine
from comfy_gateway.doctor.findings import Status
from tests.e2e.conftest import StartGateway
from tests.e2e.gateway_process import ROOT, GatewayProcess, environment, mitmdump, running_gateway
from tests.e2e.world import Duty, Person, eventually
from tests.ports import free_ports
from tests.programs import REQUIRE_ALL

SCRIPT: Final = str(ROOT / "addons/gateway.py")
MITMPROXYS_PORT: Final = 8080
"""mitmproxy opens its own default for a moment before the addon can say where to listen."""
ENDS_WITHIN_S: Final = 10.0
READS_AT_ONCE_BYTES: Final = 1 << 16


@pytest.fixture
def mitmproxys_port() -> Iterator[None]:
    """mitmproxy's default port for this test alone; skips where something else has it."""
    lock = Path(tempfile.gettempdir()) / "comfy-gateway-tests-mitmproxys-port.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", MITMPROXYS_PORT))
            except OSError:
                message = f"port {MITMPROXYS_PORT}, mitmproxy's own default, is taken on this machine"
                if os.environ.get(REQUIRE_ALL) == "1":
                    pytest.fail(message, pytrace=False)
                pytest.skip(message)
        yield


def program(name: str) -> str:
    """mitmdump or mitmweb beside this Python."""
    return str(Path(sys.executable).with_name(name))


@asynccontextmanager
async def by_hand(
    name: str, *arguments: str, port: int, duty: Duty, home: Path
) -> AsyncIterator[GatewayProcess]:
    """The line of the README, from a folder that has nothing to do with the project."""
    command = [program(name), "--mode", "reverse:http://127.0.0.1:9", "-s", SCRIPT, *arguments]
    settings = {"DUTY_POD_URL": duty.url, "PORT": str(port), "HOME": str(home)}
    async with running_gateway(settings, state_dir=home, confdir=home, command=command) as gateway:
        yield gateway


def listening(gateway: GatewayProcess) -> set[tuple[str, int]]:
    """Addresses on which the process takes connections."""
    connections = psutil.Process(gateway.process.pid).net_connections("inet")
    return {(found.laddr.ip, found.laddr.port) for found in connections if found.status == psutil.CONN_LISTEN}


# Started by hand --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("mitmproxys_port")
async def test_mitmdump_by_hand_listens_where_the_settings_say_and_nowhere_else(
    duty: Duty, http: aiohttp.ClientSession, tmp_path: Path, free_port: int
) -> None:
    beside = tmp_path / "beside.py"
    beside.write_text("import gc, logging\nlogging.warning('Garbage is collected: %s', gc.isenabled())\n")
    async with by_hand("mitmdump", "-s", str(beside), port=free_port, duty=duty, home=tmp_path) as gateway:
        assert gateway.lines_with("Garbage is collected: True")
        assert gateway.url == f"http://127.0.0.1:{free_port}"
        answer = await Person(http, gateway.url).prompt()
        assert answer.status == 200
        places = listening(gateway)
        assert ("127.0.0.1", free_port) in places
        assert {ip for ip, _ in places} == {"127.0.0.1"}
        assert len(places) == 2, "the gateway and its own site"
        assert await gateway.stop() == 0


@pytest.mark.usefixtures("mitmproxys_port")
async def test_mitmweb_by_hand_does_the_same_and_shows_itself_on_loopback(
    duty: Duty, http: aiohttp.ClientSession, tmp_path: Path, free_port: int
) -> None:
    web_port = free_ports(1)[0]
    arguments = ("--set", "web_open_browser=false", "--set", f"web_port={web_port}")
    async with by_hand("mitmweb", *arguments, port=free_port, duty=duty, home=tmp_path) as gateway:
        answer = await Person(http, gateway.url).prompt()
        assert answer.status == 200
        places = listening(gateway)
        assert {("127.0.0.1", free_port), ("127.0.0.1", web_port)} <= places
        assert {ip for ip, _ in places} <= {"127.0.0.1", "::1"}
        async with http.get(f"http://127.0.0.1:{web_port}/") as page:
            assert page.status in {200, 403}, "mitmweb asks for its token"


@pytest.mark.usefixtures("mitmproxys_port")
async def test_mitmproxys_own_default_port_may_be_taken(
    duty: Duty, http: aiohttp.ClientSession, tmp_path: Path, free_port: int
) -> None:
    with socket.socket() as other:
        other.bind(("", MITMPROXYS_PORT))
        other.listen()
        async with by_hand("mitmdump", port=free_port, duty=duty, home=tmp_path) as gateway:
            assert (await Person(http, gateway.url).prompt()).status == 200
            assert str(MITMPROXYS_PORT) not in gateway.log


@pytest.mark.usefixtures("mitmproxys_port")
async def test_by_hand_too_a_port_that_is_taken_ends_the_start_and_is_named(
    tmp_path: Path, confdir: Path
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        command = [*(program("mitmdump"), "-s", SCRIPT), "--set", f"confdir={confdir}"]
        ended = await start_that_fails(tmp_path, command, DUTY_POD_URL="http://127.0.0.1:9/", PORT=str(port))
    assert ended.code == 1
    assert f"The gateway cannot start: 127.0.0.1:{port} cannot be listened on" in ended.stdout
    assert "address already in use" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


async def test_the_log_of_a_start_says_where_the_gateway_and_its_servers_are_and_nothing_else_of_ours(
    duty: Duty, start_gateway: StartGateway
) -> None:
    async with start_gateway(DUTY_POD_URL=duty.url) as gateway:
        told = [line.partition("] ")[2] for line in gateway.lines]
    [first, server, last] = told
    assert (first, last) == (f"Loading script {SCRIPT}", f"The gateway is ready at {gateway.url}/")
    assert re.fullmatch(rf"duty server duty-[0-9a-f]+ is {re.escape(duty.url)}", server)


# Starts that cannot be --------------------------------------------------------------------------------------


@dataclass
class Ended:
    """A start that ended by itself."""

    code: int
    stdout: str
    stderr: str


async def start_that_fails(tmp_path: Path, command: list[str], **settings: str) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment(settings, tmp_path),
        cwd=tmp_path,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            stdout, stderr = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Ended(process.returncode, stdout.decode(), stderr.decode())


async def test_wrong_settings_end_the_start_with_one_line_for_each_fault(
    tmp_path: Path, confdir: Path
) -> None:
    ended = await start_that_fails(
        tmp_path, mitmdump(confdir=confdir), PORT="eight", RUNPOD_API="v3", HEALTH_PATH="queue"
    )
    assert ended.code == 2
    lines = ended.stderr.splitlines()
    assert sorted(line.split("=")[0].split(" ")[0] for line in lines) == [
        "DUTY_POD_URL",
        "HEALTH_PATH",
        "PORT",
        "RUNPOD_API",
    ]
    assert "Traceback" not in ended.stdout + ended.stderr


async def test_what_only_runpods_adapter_can_judge_is_a_wrong_setting_too(
    tmp_path: Path, confdir: Path
) -> None:
    ended = await start_that_fails(
        tmp_path,
        mitmdump(confdir=confdir),
        DUTY_POD_URL="http://127.0.0.1:9/",
        RUNPOD_API_KEY="test-key",
        RUNPOD_IMAGE_NAME="example/comfyui:1",
        RUNPOD_GPU_TYPE_ID="NVIDIA L40S",
        RUNPOD_EXTRA_PAYLOAD='{"min_memory_in_gb": "a lot\\"}"}',
    )
    assert ended.code == 2
    [line] = ended.stderr.splitlines()
    assert line.startswith("The pods cannot be ordered like this")


@pytest.mark.parametrize("package", ["sqlalchemy", "orjson", "pydantic", "dotenv"])
async def test_a_missing_package_is_told_with_what_to_do(tmp_path: Path, confdir: Path, package: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {package!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    ended = await start_that_fails(
        tmp_path, mitmdump(confdir=confdir), DUTY_POD_URL="http://127.0.0.1:9/", PYTHONPATH=str(tmp_path)
    )
    assert ended.code == 1
    assert f"needs the Python package '{package}'" in ended.stderr
    assert "pip install -r requirements.txt" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


async def test_a_port_that_is_taken_ends_the_start_and_is_named(tmp_path: Path, confdir: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        command = mitmdump("--listen-port", port, confdir=confdir)
        ended = await start_that_fails(tmp_path, command, DUTY_POD_URL="http://127.0.0.1:9/", PORT=port)
    assert ended.code == 1
    assert port in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


# Endings ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def endless_duty() -> AsyncIterator[str]:
    """A ComfyUI whose ``/view`` never ends and whose ``/object_info`` never begins."""

    async def queue(_request: web.Request) -> web.Response:
        return web.json_response({"queue_running": [], "queue_pending": []})

    async def never(_request: web.Request) -> web.Response:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(bytes(READS_AT_ONCE_BYTES))
        return response

    async def socket_of_a_page(request: web.Request) -> web.WebSocketResponse:
        opened = web.WebSocketResponse()
        await opened.prepare(request)
        async for _ in opened:
            pass
        return opened

    app = web.Application()
    app.add_routes(
        [
            web.get("/queue", queue),
            web.get("/view", endless),
            web.get("/ws", socket_of_a_page),
            web.get("/object_info", never),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def test_sigterm_ends_it_in_ten_seconds_whatever_hangs_on_it(
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with (
        endless_duty() as slow_url,
        contextlib.AsyncExitStack() as opened,
        start_gateway(DUTY_POD_URL=slow_url) as gateway,
    ):
        # A download that is not read.
        download = await opened.enter_async_context(
            http.get(f"{gateway.url}/view?filename=x.png", headers={"X-Comfy-User": "alice"})
        )
        assert await download.content.readexactly(READS_AT_ONCE_BYTES)
        # A page's socket.
        await opened.enter_async_context(
            http.ws_connect(f"{gateway.url}/ws?clientId=tab", headers={"X-Comfy-User": "alice"})
        )
        host, port = gateway.url.removeprefix("http://").split(":")
        for head in (
            # An upload and a prompt that stop, an answer that never begins, a request that is never whole.
            b"POST /upload/image HTTP/1.1\r\nHost: %s\r\nX-Comfy-User: alice\r\nContent-Length: 99999\r\n\r\nxx",
            b"POST /prompt HTTP/1.1\r\nHost: %s\r\nX-Comfy-User: alice\r\nContent-Length: 99999\r\n\r\n{",
            b"GET /object_info HTTP/1.1\r\nHost: %s\r\nX-Comfy-User: alice\r\n\r\n",
            b"GET /queue HT",
        ):
            _, writer = await asyncio.open_connection(host, int(port))
            opened.callback(writer.close)
            writer.write(head.replace(b"%s", f"{host}:{port}".encode()))
            await writer.drain()
        # Only once it has seen them all.
        await eventually(lambda: len(clients_of(gateway, int(port))) >= 6, "six open connections")
        started_s = time.monotonic()
        assert await gateway.stop(within_s=ENDS_WITHIN_S) == 0
        assert time.monotonic() - started_s < ENDS_WITHIN_S
    # Python before 3.12.2 prints a trace of its own for each connection that asyncio's server still had.
    assert "comfy_gateway" not in gateway.log, "a trace through our modules"
    assert "did not end cleanly" not in gateway.log


def clients_of(gateway: GatewayProcess, port: int) -> list[object]:
    """Open connections to its port, as the process has them."""
    return [
        found
        for found in psutil.Process(gateway.process.pid).net_connections("inet")
        if found.status == psutil.CONN_ESTABLISHED and found.laddr.port == port
    ]


# Seen by the doctor -----------------------------------------------------------------------------------------


async def test_the_doctor_tells_a_gateway_that_runs_from_a_port_that_is_taken(
    duty: Duty, start_gateway: StartGateway, tmp_path: Path
) -> None:
    async with start_gateway(DUTY_POD_URL=duty.url) as gateway:
        port = gateway.url.rpartition(":")[2]
        settings = {"DUTY_POD_URL": duty.url, "PORT": port, "GATEWAY_STATE_DIR": str(tmp_path / "doctor")}
        findings = [finding async for finding in examine(settings, root=tmp_path)]
    [found] = [finding for finding in findings if finding.subject.startswith(f"port {port}")]
    assert found.status is Status.WARN
    assert "a gateway that runs already" in found.text
