"""Parts of the world for end-to-end tests: simulated servers and one certificate folder for all gateways."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest

from simulators.comfyui import ComfySimulator, serve
from simulators.runpod import Delays, RunPodSimulator
from simulators.runpod import serve as serve_cloud
from tests.e2e.cloud import Cloud
from tests.e2e.gateway_process import GatewayProcess, running_gateway
from tests.e2e.world import Duty

StartGateway = Callable[..., AbstractAsyncContextManager[GatewayProcess]]


@pytest.fixture(scope="session")
def confdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mitmproxy makes its CA here once; it costs a second."""
    return tmp_path_factory.mktemp("mitmproxy")


@pytest.fixture
def start_gateway(tmp_path: Path, confdir: Path) -> StartGateway:
    """``start_gateway(NAME="value", …)`` is a context manager; the state folder is the test's own."""

    def start(*arguments: str, **settings: str) -> AbstractAsyncContextManager[GatewayProcess]:
        return running_gateway(settings, state_dir=tmp_path, confdir=confdir, arguments=arguments)

    return start


@pytest.fixture
async def duty() -> AsyncIterator[Duty]:
    """A simulated duty server."""
    simulator = ComfySimulator(name="duty")
    async with serve(simulator) as served:
        yield Duty(simulator, served.url)


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    """A simulated RunPod whose pods boot in half a second."""
    simulator = RunPodSimulator(
        api_key="test-key",
        delays=Delays(create_s=0.1, runtime_s=0.2, app_ready_s=0.6, agent_ready_s=0.4),
    )
    async with serve_cloud(simulator) as served:
        yield Cloud(simulator, served)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that keeps no cookies."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session
