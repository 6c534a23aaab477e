"""What a load balancer and Prometheus are told."""

import pytest

from comfy_gateway.core.requests.upstream import Source
from simulators.comfyui import ComfySimulator, serve
from tests.site.site_stand import Site, site_before


async def asked(site: Site, path: str) -> tuple[int, object]:
    async with site.http.get(site.url + path, headers=site.headers) as response:
        assert response.headers["Cache-Control"] == "no-store"
        return response.status, await response.json()


async def test_health_is_that_the_site_answers() -> None:
    async with site_before("http://127.0.0.1:9") as site:
        assert await asked(site, "/gateway/healthz") == (200, {"status": "ok"})


async def test_ready_is_that_one_duty_server_has_answered_its_last_probe() -> None:
    servers = ComfySimulator(name="first"), ComfySimulator(name="second")
    async with (
        serve(servers[0]) as first,
        serve(servers[1]) as second,
        site_before(first.url, second.url) as site,
    ):
        assert await asked(site, "/gateway/readyz") == (503, {"status": "no duty server", "duty": {}})
        await site.pool.probe_all()
        both = {"duty-0": True, "duty-1": True}
        assert await asked(site, "/gateway/readyz") == (200, {"status": "ready", "duty": both})
        servers[0].mood.dead = True
        await site.pool.probe_all()
        one = {"duty-0": False, "duty-1": True}
        assert await asked(site, "/gateway/readyz") == (200, {"status": "ready", "duty": one})
        servers[1].mood.dead = True
        await site.pool.probe_all()
        none = {"duty-0": False, "duty-1": False}
        assert await asked(site, "/gateway/readyz") == (503, {"status": "no duty server", "duty": none})


async def test_readiness_tells_no_address() -> None:
    async with site_before("http://127.0.0.1:9/secret") as site:
        await site.pool.probe_all()
        async with site.http.get(f"{site.url}/gateway/readyz", headers=site.headers) as response:
            text = await response.text()
        assert "127.0.0.1" not in text
        assert "secret" not in text


@pytest.mark.parametrize("source", [Source.DUTY, Source.PRIVATE])
async def test_metrics_are_prometheus_text_with_labels_from_the_start(source: Source) -> None:
    async with site_before("http://127.0.0.1:9") as site:
        line = f'comfy_gateway_prompts_accepted_total{{source="{source}"}} '
        for count in (0, 1):
            async with site.http.get(f"{site.url}/gateway/metrics", headers=site.headers) as response:
                assert response.status == 200
                assert response.content_type == "text/plain"
                assert f"{line}{count}.0" in await response.text()
            site.meters.prompt_accepted(source)
