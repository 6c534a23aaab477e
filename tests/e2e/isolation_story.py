"""What one user tries against another's work, on a shared server of any make."""

import asyncio
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import aiohttp
from PIL import Image

from comfy_gateway.core.inputs.spaces import names_space
from tests.conditions import wait_for
from tests.e2e.world import Events, Person

TAB = "the-tab-of-alice"
FROM_AFAR = {"X-Forwarded-For": "192.0.2.7"}
"""Whoever says that somebody else stands behind them is no operator, though they come from this machine."""

type Nodes = dict[str, Any]


@dataclass
class Guest(Person):
    """A user who is no operator."""

    @property
    def headers(self) -> dict[str, str]:
        return super().headers | FROM_AFAR

    async def post(self, path: str, body: Any) -> aiohttp.ClientResponse:
        """POST of JSON, with the answer read."""
        async with self.http.post(f"{self.url}{path}", json=body, headers=self.headers) as answer:
            await answer.read()
            return answer

    async def submit(self, nodes: Nodes, **more: Any) -> str:
        """Submit a workflow that is accepted; returns its id."""
        body = {"prompt": nodes, "client_id": self.client_id, **more}
        answer = await self.post("/prompt", body)
        assert answer.status == 200, await answer.text()
        return str((await answer.json())["prompt_id"])

    async def read(self, path: str) -> Any:
        """A page's JSON."""
        answer = await self.get(path)
        assert answer.status == 200, path
        return await answer.json()

    async def queue(self) -> list[list[Any]]:
        """What runs, then what waits."""
        found = await self.read("/queue")
        return [*found["queue_running"], *found["queue_pending"]]


@dataclass
class Work:
    """What alice has on the server: one picture, one prompt that runs and some that wait."""

    alice: Guest
    events: Events
    nodes: Nodes
    done: str
    picture: dict[str, str]
    slow: list[str]
    last: Nodes
    """The workflow of the last of them: the one that the server's cache holds in the end."""

    @property
    def ids(self) -> set[str]:
        return {self.done, *self.slow}

    @property
    def view(self) -> str:
        return "&".join(f"{key}={value}" for key, value in self.picture.items())

    async def has_suffered_nothing(self) -> None:
        """Everything ends well, and is there."""
        for prompt_id in self.slow:
            assert await self.events.ended(prompt_id, within_s=60) == "execution_success"
        history = await self.alice.read("/history")
        assert history.keys() >= self.ids
        assert {history[one]["status"]["status_str"] for one in self.ids} == {"success"}
        assert (await self.alice.get(f"/view?{self.view}")).status == 200


async def at_work(alice: Guest, events: Events, quick: Nodes, slow: Callable[[], Nodes]) -> Work:
    """Alice has begun."""
    done = await alice.submit(quick)
    assert await events.ended(done) == "execution_success"

    async def entry() -> dict[str, Any]:
        found: dict[str, Any] = await alice.read(f"/history/{done}")
        return found

    made = await wait_for(entry, "alice's picture is in her history")
    [picture] = next(iter(made[done]["outputs"].values()))["images"]
    workflows = [slow() for _ in range(3)]
    ids = [await alice.submit(nodes) for nodes in workflows]
    await events.until(
        lambda event: event["type"] == "execution_start" and event["data"].get("prompt_id") == ids[0],
        "alice's prompt runs",
    )
    return Work(alice, events, quick, done, picture, ids, workflows[-1])


async def try_to_touch(bob: Guest, work: Work) -> None:
    """Everything that stops, clears, deletes or takes over; each is answered as for what is not there."""
    veiled = [item[1] for item in await bob.queue()]
    for path in ("", "/api"):
        for order in ({}, *({"prompt_id": one} for one in (*work.slow, *veiled)), {"prompt_id": ["x"]}):
            assert (await bob.post(f"{path}/interrupt", order)).status == 200
        for order in (
            {"clear": True},
            {"delete": [*work.slow, *veiled]},
            {"clear": True, "delete": work.slow},
        ):
            assert (await bob.post(f"{path}/queue", order)).status == 200
        for order in ({"clear": True}, {"delete": [*work.ids]}):
            assert (await bob.post(f"{path}/history", order)).status == 200
        assert (await bob.post(f"{path}/free", {"unload_models": True})).status == 403
        for route in (
            "/manager/reboot",
            "/internal/logs",
            "/internal/files/output",
            "/%66ree",
            "/customnode/getlist",
        ):
            refused = await bob.get(path + route)
            assert refused.status == 403
            assert (await refused.json())["error"]["type"] == "operators_only"
    for one in work.slow:
        await bob.post(f"/api/jobs/{one}/cancel", None)
    await bob.post("/api/jobs/cancel", {"job_ids": [*work.slow, str(uuid4())]})
    await bob.post("/api/jobs/cancel", {"job_ids": [*work.slow, "x"]})
    for one in work.ids:
        taken = await bob.post("/prompt", {"prompt": work.nodes, "prompt_id": one})
        assert taken.status == 409


async def try_to_see(bob: Guest, work: Work, *, is_queue_still: bool = True) -> None:
    """Everything that shows. ``is_queue_still``: alice's first slow prompt still runs."""
    queue = await bob.queue()
    assert len(queue) == len(work.slow) or not is_queue_still
    assert [item[2:] for item in queue] == [[{}, {}, []]] * len(queue)
    assert [item[0] for item in queue] == sorted(item[0] for item in queue)
    assert await bob.queue() == queue or not is_queue_still
    asked = ["/queue", "/api/queue", "/history", "/api/history?max_items=10", "/api/jobs", "/prompt"]
    asked += [f"/history/{one}" for one in (*work.ids, *(item[1] for item in queue))]
    asked += [f"/api/jobs/{one}" for one in work.ids]
    for path in asked:
        text = await (await bob.get(path)).text()
        assert not any(one in text for one in work.ids), path
        assert work.picture["filename"] not in text, path
    for one in work.ids:
        assert await bob.read(f"/history/{one}") == await bob.read(f"/history/{uuid4()}") == {}
    unknown = await bob.get("/view?filename=gateway-e2e-no-such_00001_.png&type=output")
    name, kind = work.picture["filename"], work.picture["type"]
    for query in (
        work.view,
        f"filename={name}",
        f"filename={name}%20[{kind}]",
        f"{work.view}&preview=webp;50",
        f"{work.view}&filename=another",
        f"filename=x%2F{name}&type={kind}",
        f"subfolder=.&filename={name}",
    ):
        for path in ("/view", "/api/view", "/vhs/viewvideo"):
            answer = await bob.get(f"{path}?{query}")
            assert (answer.status, await answer.text()) == (404, "")
            assert answer.headers == {**answer.headers, "Content-Type": unknown.headers["Content-Type"]}
    assert (unknown.status, await unknown.text()) == (404, "")


def reading(text: str) -> Nodes:
    """A workflow that shows an input file."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": text}},
        "9": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


async def try_to_use(bob: Guest, work: Work) -> None:
    """Alice's picture as an input of bob's prompt, or below a mask of his."""
    name = work.picture["filename"]
    told = []
    for text in (
        f"{name} [output]",
        "gateway-e2e-no-such.png [output]",
        f"../output/{name}",
        f"x/../{name} [output]",
    ):
        refused = await bob.post("/prompt", {"prompt": reading(text), "client_id": TAB})
        assert refused.status == 400, text
        told.append((await refused.text()).replace(text.removesuffix(" [output]"), "…"))
    assert told[0] == told[1]
    mask = aiohttp.FormData()
    mask.add_field("image", b"no picture", filename="mask.png", content_type="image/png")
    mask.add_field("original_ref", json.dumps({"filename": name, "type": "output", "subfolder": ""}))
    async with bob.http.post(f"{bob.url}/upload/mask", data=mask, headers=bob.headers) as answer:
        assert answer.status == 400
        assert name in await answer.text()


def a_png(number: int, *, side: int = 8) -> bytes:
    """A picture that no other test has uploaded."""
    buffer = io.BytesIO()
    noise = random.Random(number).randbytes(side * side * 3)
    Image.frombytes("RGB", (side, side), noise).save(buffer, format="PNG")
    return buffer.getvalue()


async def upload(guest: Guest, name: str, data: bytes, kind: str = "image", **fields: str) -> Any:
    """Upload a picture that is taken; returns the answer."""
    form = aiohttp.FormData(fields)
    form.add_field("image", data, filename=name, content_type="image/png")
    async with guest.http.post(f"{guest.url}/upload/{kind}", data=form, headers=guest.headers) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def viewed(guest: Guest, query: str) -> bytes | int:
    """What ``/view`` shows of a file, or the status of its refusal."""
    async with guest.http.get(f"{guest.url}/view?{query}", headers=guest.headers) as answer:
        return await answer.read() if answer.status == 200 else answer.status


async def inputs_are_each_ones_own(alice: Guest, bob: Guest, name: str) -> tuple[bytes, bytes]:
    """Uploads of one name, by id, by guess, as inputs and in lists; ``name`` is new on the server.

    Returns what a prompt of bob's has made of his upload, and the upload.
    """
    hers, his, second = (a_png(random.randrange(1 << 30)) for _ in range(3))
    secret, told = f"alice-{name}", {"name": name, "subfolder": "", "type": "input"}
    assert await upload(alice, name, hers) == await upload(alice, name, hers) == told
    await upload(alice, secret, hers, subfolder="clipspace")
    assert await upload(bob, name, his, overwrite="true") == told
    assert (await upload(bob, name, second))["name"] == name.replace(".", " (1).")
    assert [await viewed(one, f"filename={name}&type=input") for one in (alice, bob)] == [hers, his]
    assert await viewed(alice, f"filename={secret}&subfolder=clipspace&type=input") == hers
    for query in (
        f"filename={secret}&subfolder=clipspace",
        f"filename=clipspace/{secret}",
        f"filename={secret}&subfolder=clipspace&filename={name}",
        f"filename={secret}&subfolder=x/../clipspace",
        "filename=example.png&subfolder=.",
        "filename=example.png&subfolder=x/..",
    ):
        assert await viewed(bob, f"{query}&type=input") == 404, query
    for text in (
        f"clipspace/{secret}",
        f"clipspace/{secret} [input]",
        f"../clipspace/{secret}",
        "example.png",
    ):
        refused = await bob.post("/prompt", {"prompt": reading(text), "client_id": TAB})
        assert refused.status == 400, text
        assert not names_space(await refused.text())
        assert (await alice.post("/prompt", {"prompt": reading(text)})).status == (
            200 if text[0] == "c" else 400
        )
    for guest, theirs in ((alice, []), (bob, [name.replace(".", " (1).")])):
        info = await (await guest.get("/object_info")).text()
        assert not names_space(info)
        [names, _] = json.loads(info)["LoadImage"]["input"]["required"]["image"]
        assert names == sorted([name, *theirs])
    async with bob.socket() as events:
        mine = await bob.submit(reading(f"{name}"))
        assert await events.ended(mine) == "execution_success"
        assert not names_space(json.dumps(events.seen))
    entry = (await bob.read(f"/history/{mine}"))[mine]
    assert entry["prompt"][2]["1"]["inputs"]["image"] == name
    [shown] = entry["outputs"]["9"]["images"]
    made = await viewed(bob, "&".join(f"{key}={value}" for key, value in shown.items()))
    assert isinstance(made, bytes)
    for page in ("/queue", "/history", "/api/jobs"):
        assert not names_space(await (await bob.get(page)).text())
    drawn = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 77)).save(drawn, format="PNG")
    for original, is_drawn in ((name, True), (secret, False)):
        about = json.dumps({"filename": original, "subfolder": "", "type": "input"})
        mask = f"mask-of-{original}"
        await upload(bob, mask, drawn.getvalue(), "mask", subfolder="clipspace", original_ref=about)
        for guest in (alice, bob):
            prompt = {"prompt": reading(f"clipspace/{mask} [input]"), "client_id": guest.client_id}
            status = (await guest.post("/prompt", prompt)).status
            assert status == (200 if is_drawn and guest is bob else 400)
    shared = aiohttp.FormData({"subfolder": "shared"})
    shared.add_field("image", hers, filename=name)
    async with bob.http.post(f"{bob.url}/upload/image", data=shared, headers=bob.headers) as refusal:
        assert refusal.status == 403
    return made, his


async def an_identical_prompt(bob: Guest, work: Work) -> None:
    """It is answered from the cache: the file is bob's now as well, and nothing else of alice's is."""
    entry = (await work.alice.read(f"/history/{work.slow[-1]}"))[work.slow[-1]]
    [cached] = next(iter(entry["outputs"].values()))["images"]
    view = "/view?" + "&".join(f"{key}={value}" for key, value in cached.items())
    assert (await bob.get(view)).status == 404
    async with bob.socket() as events:
        same = await bob.submit(work.last)
        assert await events.ended(same) == "execution_success"
        outputs = [event["data"]["output"] for event in events.seen if event["type"] == "executed"]
        assert [output["images"] for output in outputs if output] == [[cached]]
        assert (await bob.get(view)).status == 200
        assert (await bob.get(f"/view?{work.view}")).status == 404
        assert (await bob.read("/history")).keys() == {same}
        assert (await bob.post("/history", {"clear": True})).status == 200
        assert await bob.read("/history") == {}
    assert (await work.alice.read("/history")).keys() >= work.ids
    await work.alice.submit(reading(f"{work.picture['filename']} [output]"))


async def listen_in(bob: Guest, act: Callable[[], Any]) -> list[Any]:
    """What bob hears under alice's own socket id, and under his, while ``act`` goes on."""
    heard: list[Any] = []

    async def listen(client_id: str) -> None:
        query = f"{bob.url}/ws?clientId={client_id}"
        async with bob.http.ws_connect(query, headers=bob.headers) as socket:
            async for message in socket:
                heard.append(message.data if isinstance(message.data, bytes) else json.loads(message.data))

    listeners = [asyncio.ensure_future(listen(one)) for one in (TAB, "the-tab-of-bob")]
    try:
        await wait_for(lambda: len(heard) >= 2, "bob is greeted twice")
        await act()
    finally:
        for listener in listeners:
            listener.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
    return heard


async def homes_are_each_ones_own(alice: Guest, bob: Guest, name: str) -> None:
    """Saved workflows and settings; ``name`` is new on the server."""
    saved = f"/api/userdata/workflows%2F{name}.json"
    assert (
        await (await alice.post(f"{saved}?overwrite=false", {"secret": 1})).json() == f"workflows/{name}.json"
    )
    assert (await bob.get(saved)).status == 404
    assert (await bob.post(f"{saved}?overwrite=false", {"bobs": 1})).status == 200
    assert (await bob.post(f"{saved[4:]}/move/{name}", None)).status == 200
    assert await alice.read(saved) == {"secret": 1}
    assert await alice.read("/userdata?dir=workflows&recurse=true") == [f"{name}.json"]
    assert (await bob.read("/v2/userdata")) != (await alice.read("/v2/userdata"))
    listed = await alice.read("/v2/userdata")
    assert {one["path"] for one in listed} == {"workflows", f"workflows/{name}.json"}
    for path in ("%252e%252e", f"%252e%252e%252F{name}", "..%255c"):
        assert (await bob.get(f"/userdata/{path}")).status in {400, 403, 404}
    assert (await alice.post("/api/settings/Comfy.Locale", "de")).status == 200
    assert await alice.read("/settings/Comfy.Locale") == "de"
    assert "Comfy.Locale" not in await bob.read("/settings")
    assert (await alice.http.delete(f"{alice.url}{saved}", headers=alice.headers)).status == 204
    assert (await bob.http.delete(f"{bob.url}/userdata/{name}", headers=bob.headers)).status == 204
