"""What the simulated ComfyUI says about itself, the page's files, and whom it refuses."""

from collections.abc import AsyncIterator

import pytest

from tests.simulators.comfy_client import DEADLINE_S, Duty, png, saved


@pytest.mark.parametrize("api", ["", "api/"])
async def test_every_route_exists_with_and_without_api(duty: Duty, api: str) -> None:
    async with duty.http.get(f"{duty.served.url}{api}") as answer:
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-cache")
    assert await duty.get(f"{api}extensions") == ["/extensions/core/hello.js"]
    assert set(await duty.get(f"{api}object_info")) >= {"EmptyImage", "SaveImage", "LoadImage", "SimSleep"}
    assert (await duty.get(f"{api}features"))["max_upload_size"] == 100 * 1024 * 1024
    assert "duty" in (await duty.get(f"{api}system_stats"))["devices"][0]["name"]
    assert "checkpoints" in await duty.get(f"{api}models")
    assert await duty.get(f"{api}models/loras") == ["detail.safetensors"]
    for path in ("models/vae", "embeddings"):
        assert await duty.get(f"{api}{path}") == []
    for path in ("i18n", "workflow_templates", "history", "object_info/Unknown", "settings"):
        assert await duty.get(f"{api}{path}") == {}
    assert await duty.get(f"{api}queue") == {"queue_running": [], "queue_pending": []}
    assert await duty.get(f"{api}prompt") == {"exec_info": {"queue_remaining": 0}}
    assert await duty.post(f"{api}free", {"unload_models": True, "free_memory": True}) == 200
    async with duty.http.ws_connect(f"{api}ws") as ws:
        assert (await ws.receive_json(timeout=DEADLINE_S))["type"] == "status"


async def test_object_info_offers_the_uploaded_files(duty: Duty) -> None:
    await duty.upload("photo.png", png("red"))
    info = (await duty.get("object_info/LoadImage"))["LoadImage"]
    assert info["input"]["required"]["image"] == [["photo.png"], {"image_upload": True}]
    assert (info["output"], info["output_node"]) == (["IMAGE", "MASK"], False)


async def test_logs_and_files_are_told_below_internal(duty: Duty) -> None:
    await duty.run(saved())
    assert await duty.get("internal/files/output") == ["ComfyUI_00001_.png"]
    assert "duty" in await duty.get("internal/logs")
    assert (await duty.get("internal/logs/raw"))["entries"]


async def test_a_module_can_be_revalidated_and_says_no_caching_time(duty: Duty) -> None:
    async with duty.http.get("assets/lib/words.mjs") as answer:
        assert answer.status == 200
        assert "Cache-Control" not in answer.headers
        revalidation = [
            ("If-None-Match", answer.headers["ETag"]),
            ("If-Modified-Since", answer.headers["Last-Modified"]),
        ]
    for header in revalidation:
        async with duty.http.get("assets/lib/words.mjs", headers=[header]) as answer:
            assert answer.status == 304
    async with duty.http.get("assets/index-5f1d3c07.css") as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
    async with duty.http.get("extensions/core/hello.js") as answer:
        assert answer.content_type == "text/javascript"
    async with duty.http.get("assets/none.js") as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:8188", "http://127.0.0.1:8188", 200),
        ("127.0.0.1:8188", "http://127.0.0.1:9999", 403),
        ("127.0.0.1:8188", "http://127.0.0.1", 200),
        ("localhost:8188", "http://127.0.0.1:8188", 403),
        ("localhost", "http://localhost:8188", 200),
        ("[::1]:8188", "http://evil.example", 403),
        ("comfy.example", "http://evil.example", 200),
        ("127.0.0.1:8188", "null", 200),
    ],
)
async def test_a_foreign_origin_is_refused_on_loopback_only(
    duty: Duty, host: str, origin: str, status: int
) -> None:
    async with duty.http.get("queue", headers={"Host": host, "Origin": origin}) as answer:
        assert answer.status == status


async def test_a_body_over_the_limit_is_refused(duty: Duty) -> None:
    async def megabytes() -> AsyncIterator[bytes]:
        for _ in range(101):
            yield bytes(1024 * 1024)

    async with duty.http.post("userdata/big", data=megabytes()) as answer:
        assert answer.status == 413
