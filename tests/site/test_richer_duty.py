"""What a page is told of nodes while its user's pod can do less than duty."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from comfy_gateway.core import site_contract
from comfy_gateway.core.prompts.visibility import Isolation, Visibility
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.site.app import build_app
from comfy_gateway.site.input_files import InputFiles
from comfy_gateway.site.server import SiteServer
from comfy_gateway.site.servers import Servers
from simulators.comfyui import ComfySimulator, Installation, serve
from tests.service.inputs_stand import ALICE, PEER, World, png, world

POORER = Installation(without=frozenset({"ImageInvert"}), models={"checkpoints": ("sd15.safetensors",)})


@dataclass
class Site:
    around: World
    url: str = ""
    is_richer: bool = True

    async def get(self, path: str = "") -> tuple[dict[str, Any], str]:
        headers = {site_contract.KEY: "key", site_contract.PEER: PEER, site_contract.USER: ALICE.key}
        url = self.url + site_contract.OBJECT_INFO_PATH + path
        async with self.around.http.get(url, headers=headers) as response:
            assert response.status == 200
            return json.loads(await response.read()), response.headers[site_contract.SOURCE]


@pytest.fixture(params=[Isolation.ACTIONS, Isolation.FULL])
async def site(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        around = await stack.enter_async_context(world(tmp_path, visibility=Visibility(request.param)))
        made = Site(around)
        served = await stack.enter_async_context(serve(ComfySimulator(name="pod", installation=POORER)))
        pod = Backend("pod-x", Source.PRIVATE, Upstream.parse(served.url), alias="private-x")
        around.routes.set_private(ALICE, pod)
        server = SiteServer(
            build_app(
                key="key",
                parts=[
                    InputFiles(
                        inputs=around.inputs,
                        lists=around.lists,
                        store=around.store,
                        routes=around.routes,
                        servers=Servers(around.http),
                        richer=lambda user: around.routes.duty(user) if made.is_richer else None,
                    )
                ],
            )
        )
        made.url = (await server.start()).url("")
        stack.push_async_callback(server.aclose)
        yield made


def models(info: dict[str, Any]) -> list[str]:
    listed: list[str] = info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0]
    return listed


async def test_nodes_and_models_that_prompts_find_on_duty_are_offered(site: Site) -> None:
    (site.around.home.inputs / "duty.png").write_bytes(png(1))
    info, source = await site.get()
    assert "ImageInvert" in info
    assert models(info) == ["sd15.safetensors", "sdxl.safetensors"]
    assert source == "private"
    assert ("duty.png" in json.dumps(info)) is (site.around.visibility.isolation is Isolation.ACTIONS)
    alone, _source = await site.get("/ImageInvert")
    assert list(alone) == ["ImageInvert"]


async def test_where_duty_has_no_more_the_pods_own_are_offered(site: Site) -> None:
    site.is_richer = False
    info, _source = await site.get()
    assert "ImageInvert" not in info
    assert models(info) == ["sd15.safetensors"]
    assert (await site.get("/ImageInvert"))[0] == {}


@pytest.mark.parametrize("mood", ["dead", "lying"])
async def test_a_duty_server_that_gives_no_usable_answer_does_not_hide_the_pods_nodes(
    site: Site, mood: str
) -> None:
    setattr(site.around.home.simulator.mood, mood, True)
    info, _source = await site.get()
    assert models(info) == ["sd15.safetensors"]
