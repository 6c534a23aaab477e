"""``/view`` of files of a pod that may have died a moment ago: a real vault, a simulated pod, and wires to cut."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import aiohttp
import pytest
from yarl import URL

from comfy_gateway.adapters.clock import SystemClock
from comfy_gateway.core import site_contract
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.service.files.files import Files
from comfy_gateway.service.files.told_files import ToldFiles
from comfy_gateway.service.requests.routes import Routes
from comfy_gateway.site.app import build_app
from comfy_gateway.site.pictures import Pictures
from comfy_gateway.site.pod_view import MUTE_S, PodView
from comfy_gateway.site.server import SiteServer
from comfy_gateway.site.vault_view import VaultView
from tests.fakes.clock import FakeClock
from tests.service.vault_stand import ALIAS, ALICE, PodStand, pod_stand, vault_of
from tests.service.vault_stand import Stand as VaultStand

KEY = "the-key"
HOME = Backend("duty-0", Source.DUTY, Upstream("http", "127.0.0.1", 9))
USER = UserId.from_key(ALICE)
KEPT = FileName("kept.png")
LATE = FileName("late.png")
"""Made when the wire to the vault was cut already."""


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def source(self) -> str | None:
        return self.headers.get(site_contract.SOURCE)


@dataclass
class Stand:
    """A site before a vault that has KEPT and a pod that has KEPT and LATE."""

    pod: PodStand
    vault: VaultStand
    routes: Routes
    http: aiohttp.ClientSession
    url: str
    clock: FakeClock
    nudged: list[UserId] = field(default_factory=list)

    async def get(
        self,
        file: FileName = KEPT,
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        method: str = "GET",
        owner: str = ALICE,
    ) -> Answer:
        url = URL(self.url + site_contract.POD_FILE_PATH).with_query(
            filename=file.filename, subfolder=ALIAS, type=file.type
        )
        sent = {site_contract.KEY: KEY, site_contract.OWNER: owner} | dict(headers)
        async with self.http.request(method, url, headers=sent) as response:
            return Answer(response.status, response.headers.copy(), await response.read())


@pytest.fixture
async def stand(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stand]:
    """Its parameter is the patience with a pod, if a test wants little."""
    async with AsyncExitStack() as stack:
        pod = await stack.enter_async_context(pod_stand(tmp_path / "pod", has_agent=False))
        vault = await stack.enter_async_context(vault_of(tmp_path, pod))
        vault.name(pod.make(KEPT.filename, b"as it was copied"))
        await vault.stored()
        pod.make(LATE.filename, b"never copied")
        http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        routes = Routes(HOME, lambda _user: HOME)
        routes.set_private(USER, pod.place.backend)
        view = VaultView(vault.vault, Pictures())
        nudged: list[UserId] = []
        clock = FakeClock()
        patience_s = getattr(request, "param", 30.0)
        pods = PodView(
            http=http,
            files=Files(routes=routes, told=ToldFiles(SystemClock()), vault=vault.vault),
            vault=vault.vault,
            view=view,
            nudge=nudged.append,
            clock=clock,
            whole_s=patience_s,
            patience_s=patience_s,
        )
        site = SiteServer(build_app(key=KEY, parts=[view, pods]))
        address = await site.start()
        stack.push_async_callback(site.aclose)
        yield Stand(pod, vault, routes, http, address.url(""), clock, nudged)


async def test_a_pod_that_lives_is_asked_for_what_it_has_now(stand: Stand) -> None:
    stand.pod.make(KEPT.filename, b"written again")
    answer = await stand.get()
    assert (answer.status, answer.body, answer.source) == (200, b"written again", "private")
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Length"] == str(len(b"written again"))
    assert stand.nudged == []


async def test_parts_tags_and_heads_are_the_pods_own(stand: Stand) -> None:
    part = await stand.get(headers={"Range": "bytes=3-5"})
    assert (part.status, part.body, part.source) == (206, b"it ", "private")
    assert part.headers["Content-Range"] == "bytes 3-5/16"
    whole = await stand.get()
    assert (await stand.get(headers={"If-None-Match": whole.headers["ETag"]})).status == 304
    head = await stand.get(method="HEAD")
    assert (head.status, head.headers["Content-Length"], head.body) == (200, "16", b"")


async def test_a_pod_that_has_just_died_is_stood_in_for_by_the_vault(stand: Stand) -> None:
    stand.pod.die()
    answer = await stand.get()
    assert (answer.status, answer.body, answer.source) == (200, b"as it was copied", None)
    assert stand.nudged == [USER], "and looked at"
    assert (await stand.get(headers={"Range": "bytes=3-5"})).body == b"it "
    assert (await stand.get(method="HEAD")).status == 200


@pytest.mark.parametrize("stand", [0.3], indirect=True)
async def test_a_pod_that_hangs_is_not_waited_for_long(stand: Stand) -> None:
    stand.pod.comfyui.held.clear()
    answer = await stand.get()
    assert (answer.status, answer.body) == (200, b"as it was copied")
    assert stand.nudged == [USER]
    asked = stand.pod.comfyui.connections
    assert (await stand.get()).body == b"as it was copied"
    assert stand.pod.comfyui.connections == asked, "the other pictures of the page do not wait as long"
    stand.pod.comfyui.held.set()
    stand.pod.make(KEPT.filename, b"written again")
    await stand.clock.advance(MUTE_S)
    assert (await stand.get()).body == b"written again"


async def test_a_pod_that_breaks_off_before_the_first_byte_is_stood_in_for(stand: Stand) -> None:
    stand.pod.comfyui.cut_after_bytes = [40]
    assert (await stand.get()).body == b"as it was copied"


@pytest.mark.parametrize("status", [404, 502])
async def test_what_a_proxy_says_of_a_pod_that_is_gone_is_no_answer(stand: Stand, status: int) -> None:
    (stand.pod.output / KEPT.filename).unlink()
    stand.pod.simulator.mood.dead = status == 502
    answer = await stand.get()
    assert (answer.status, answer.body) == (200, b"as it was copied")


async def test_what_the_vault_has_not_is_told_as_the_pod_tells_it(stand: Stand) -> None:
    assert (await stand.get(LATE)).body == b"never copied"
    assert (await stand.get(FileName("no-such.png"))).status == 404
    assert stand.nudged == []
    stand.pod.die()
    answer = await stand.get(LATE)
    assert answer.status == 502
    assert b"upstream_unreachable" in answer.body
    assert b"127.0.0.1" not in answer.body
    assert stand.nudged == [USER]


@pytest.mark.parametrize("stand", [0.3], indirect=True)
async def test_a_pod_that_hangs_is_late_where_nobody_else_has_the_file(stand: Stand) -> None:
    stand.pod.comfyui.held.clear()
    assert (await stand.get(LATE)).status == 504
    stand.pod.comfyui.held.set()


async def test_a_file_that_breaks_off_in_the_middle_is_seen_to_be_cut(stand: Stand) -> None:
    stand.pod.make("film.mp4", bytes(4_000_000))
    stand.pod.comfyui.cut_after_bytes = [1_000_000]
    with pytest.raises(aiohttp.ClientPayloadError):
        await stand.get(FileName("film.mp4"))


async def test_a_route_that_went_away_meanwhile_leads_to_the_vault(stand: Stand) -> None:
    stand.routes.clear_private(USER)
    assert (await stand.get()).body == b"as it was copied"
    assert (await stand.get(LATE)).status == 404


async def test_nobody_else_sees_it(stand: Stand) -> None:
    assert (await stand.get(owner="named:bob")).status == 404
