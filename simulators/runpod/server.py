"""The simulated cloud over HTTP: both APIs, the pods' proxy and the admin API on one port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from simulators.runner import Runner
from simulators.runpod.admin import Admin
from simulators.runpod.api import GraphQLApi
from simulators.runpod.cloud import RunPodSimulator
from simulators.runpod.proxy import PodProxy, ProxyLimits
from simulators.runpod.rest import RestApi

# with a backlog of 5, sixty parallel connections were reset
BACKLOG = 512
SHUTDOWN_S = 0.5
API_BODY_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Served:
    """Where a cloud listens.

    api_base            for RUNPOD_API_BASE, and the SDK's RUNPOD_API_BASE_URL
    proxy_template      for RUNPOD_PROXY_TEMPLATE
    telemetry_template  the same; for RUNPOD_TELEMETRY_TEMPLATE, when the reader adds the path itself
    telemetry_url_template  with /metrics, for a reader that uses a template with a path as it is
    admin_base          of `/_sim/`
    """

    host: str
    port: int

    @property
    def api_base(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def proxy_template(self) -> str:
        return self.api_base + "/proxy/{pod_id}/{port}"

    @property
    def telemetry_template(self) -> str:
        return self.proxy_template

    @property
    def telemetry_url_template(self) -> str:
        return self.proxy_template + "/metrics"

    @property
    def admin_base(self) -> str:
        return self.api_base + "/_sim"

    def pod_url(self, pod_id: str, port: int = 8188) -> str:
        return self.proxy_template.format(pod_id=pod_id, port=port)


def make_app(cloud: RunPodSimulator, limits: ProxyLimits | None = None) -> web.Application:
    """The routes; whoever runs the application also calls `cloud.close()` at its end."""
    app = web.Application(client_max_size=API_BODY_BYTES)
    app.router.add_post("/graphql", GraphQLApi(cloud).handle)
    app.router.add_routes(RestApi(cloud).routes())
    app.router.add_routes(Admin(cloud).routes())
    proxy = PodProxy(cloud, limits or ProxyLimits())
    app.router.add_route("*", "/proxy/{pod_id}/{port}", proxy.handle)
    app.router.add_route("*", "/proxy/{pod_id}/{port}/{tail:.*}", proxy.handle)
    return app


@asynccontextmanager
async def serve(
    cloud: RunPodSimulator, host: str = "127.0.0.1", port: int = 0, limits: ProxyLimits | None = None
) -> AsyncIterator[Served]:
    """Serve the cloud while the block runs; port 0 takes a free one. Raises OSError if the port is taken.

    At the end open calls are broken off and the pods' servers stop; the cloud's records stay readable.
    """
    runner = Runner(make_app(cloud, limits), access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        served = Served(host, await runner.listen(host, port, backlog=BACKLOG))
        cloud.api_base = served.api_base
        yield served
    finally:
        for pod in cloud.living():
            cloud.hosting.cut(pod)
        await runner.cleanup()
        await cloud.close()
