"""The gateway before servers of all kinds: behind a prefix, dead, late, deaf, or several; and before a plain script."""

import contextlib
import socket
from collections import Counter
from urllib.parse import urlencode

import aiohttp
import pytest
from yarl import URL

from comfy_gateway.core.requests.duty_servers import id_of
from comfy_gateway.core.requests.upstream import Upstream
from simulators.comfyui import ComfySimulator, serve
from tests.e2e.conftest import StartGateway
from tests.e2e.world import Duty, Person, eventually, picture


async def test_paths_reach_comfyui_byte_for_byte_behind_a_prefix(
    start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    simulator = ComfySimulator(name="duty")
    async with serve(simulator, prefix="/studio/comfy") as served:
        async with start_gateway(DUTY_POD_URL=served.url) as gateway:
            path = "/api/userdata/workflows%2Fa%20b%2Bc.json?overwrite=true&full_info=%7E"
            url = URL(f"{gateway.url}{path}", encoded=True)
            async with http.post(url, data=b"{}", headers={"X-Comfy-User": "alice"}) as answer:
                assert answer.status == 200, await answer.text()
        raw_paths = [seen.path for seen in simulator.requests]
        assert any(seen.endswith(path) for seen in raw_paths), raw_paths


async def test_a_dead_server_is_a_502_that_names_no_address(
    start_gateway: StartGateway, http: aiohttp.ClientSession, unused_tcp_port: int
) -> None:
    async with start_gateway(DUTY_POD_URL=f"http://127.0.0.1:{unused_tcp_port}") as gateway:
        alice = Person(http, gateway.url)
        for answer in (await alice.get("/queue"), await alice.prompt()):
            assert answer.status == 502
            assert answer.content_type == "application/json"
            body = await answer.text()
            assert "127.0.0.1" not in body
            assert str(unused_tcp_port) not in body
        with pytest.raises(aiohttp.WSServerHandshakeError) as handshake:
            async with alice.socket():
                pass
        assert handshake.value.status == 502
        assert (await alice.get("/gateway/healthz")).status == 200
        assert (await alice.get("/gateway/readyz")).status == 503


async def test_a_server_that_answers_late_is_a_504(
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    duty.sim.mood.delay_s = 30
    async with start_gateway(DUTY_POD_URL=duty.url, GATEWAY_UPSTREAM_TIMEOUT_S="0.5") as gateway:
        answer = await Person(http, gateway.url).get("/queue")
        assert answer.status == 504
        assert (await answer.json())["error"]["type"] == "upstream_timeout"
        duty.sim.mood.delay_s = 0
        assert (await Person(http, gateway.url).get("/queue")).status == 200


async def test_a_server_that_takes_no_connection_is_a_504(
    start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        with contextlib.ExitStack() as waiting:
            # Nobody accepts: once the backlog is full the kernel lets further connects hang.
            for _ in range(4):
                filler = waiting.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            settings = {"DUTY_POD_URL": f"http://127.0.0.1:{port}", "GATEWAY_CONNECT_TIMEOUT_S": "0.5"}
            async with start_gateway(**settings) as gateway:
                answer = await Person(http, gateway.url).get("/system_stats")
                assert answer.status == 504
                assert (await answer.json())["error"]["type"] == "upstream_timeout"


async def test_the_unmodified_script_client_works_when_no_id_is_required(
    duty: Duty, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async with start_gateway(DUTY_POD_URL=duty.url, REQUIRE_USER_ID="0") as gateway:
        script = Person(http, gateway.url, name=None, client_id="script-1")
        async with script.socket() as events:
            accepted = await (await script.prompt()).json()
            assert await events.ended(accepted["prompt_id"]) == "execution_success"
        history = await (await script.get(f"/history/{accepted['prompt_id']}")).json()
        [image] = history[accepted["prompt_id"]]["outputs"]["9"]["images"]
        query = {name: image[name] for name in ("filename", "subfolder", "type")}
        async with http.get(f"{gateway.url}/view", params=query) as view:
            assert view.status == 200
            assert (await view.read()).startswith(b"\x89PNG")


async def test_users_of_a_pool_stick_to_a_server_and_leave_a_dead_one(
    start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    servers = [ComfySimulator(name=f"duty-{number}") for number in range(2)]
    async with (
        serve(servers[0]) as first,
        serve(servers[1]) as second,
        start_gateway(DUTY_POD_URL=f"{first.url},{second.url}") as gateway,
    ):
        people = [Person(http, gateway.url, name=f"user{number}") for number in range(6)]
        for _ in range(2):
            for person in people:
                assert (await person.prompt()).status == 200
        # Each user's prompts bear one client_id of their own.
        users_at = [Counter(prompt["client_id"] for prompt in server.accepted) for server in servers]
        assert all(users_at), "nobody was put on one of the servers"
        assert sorted((users_at[0] + users_at[1]).values()) == [2] * 6
        assert not set(users_at[0]) & set(users_at[1])

        before = len(servers[0].accepted)
        servers[1].mood.dead = True
        await gateway.wait_for_line(
            f"duty server {id_of(Upstream.parse(second.url))} does not answer", within_s=30
        )
        for person in people:
            assert (await person.prompt()).status == 200
        assert len(servers[0].accepted) == before + 6


@pytest.mark.long
async def test_pictures_keep_their_addresses_when_the_list_of_servers_is_turned_round(
    start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    """All servers number from 00001: the picture of another would look right to everybody but its maker."""
    async with serve(ComfySimulator(name="first")) as first, serve(ComfySimulator(name="second")) as second:
        async with start_gateway(DUTY_POD_URL=first.url) as gateway:
            alice = Person(http, gateway.url)
            prompt_id = (await (await alice.prompt(picture(1))).json())["prompt_id"]
            await eventually(lambda: is_listed(alice, prompt_id), "it is done")
            file = await picture_of(alice, prompt_id)
            before = await seen(alice, file)
        async with http.post(f"{second.url}prompt", json={"prompt": picture(2)}) as posted:
            assert posted.status == 200
        async with start_gateway(DUTY_POD_URL=f"{second.url},{first.url}") as gateway:
            alice = Person(http, gateway.url)
            assert await picture_of(alice, prompt_id) == file
            assert await seen(alice, file) == before
        async with start_gateway(DUTY_POD_URL=second.url) as gateway:
            alice = Person(http, gateway.url)
            assert (await seen(alice, file))[0] == 404
            assert (await http.get(f"{second.url}view?{file}")).status == 200, "it has another one"


async def is_listed(person: Person, prompt_id: str) -> bool:
    return prompt_id in await (await person.get(f"/history/{prompt_id}")).json()


async def seen(person: Person, file: str) -> tuple[int, bytes]:
    """Status and bytes."""
    async with person.http.get(f"{person.url}/view?{file}", headers=person.headers) as view:
        return view.status, await view.read()


async def picture_of(person: Person, prompt_id: str) -> str:
    """The query of its address."""
    history = await (await person.get(f"/history/{prompt_id}")).json()
    [image] = history[prompt_id]["outputs"]["9"]["images"]
    return urlencode({name: image[name] for name in ("filename", "subfolder", "type")})
