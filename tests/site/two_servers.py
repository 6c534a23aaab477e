"""Alice's shared server and her pod, both simulated, behind a whole site on a real socket."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any
from urllib.parse import quote

from yarl import URL

from comfy_gateway.core import site_contract
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord, outcome_of_history
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.core.results.history import shown_entry
from simulators.comfyui import ComfySimulator, Installation, serve
from tests.conditions import wait_for
from tests.site.site_stand import ALICE, PEER, Site, site_before

BOB = UserId(IdKind.NAMED, "bob")
SECRET = "the-secret"


def picture(color: int = 0) -> dict[str, Any]:
    """A graph that saves a picture; the same one again is answered from the server's cache."""
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": color},
        },
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "ComfyUI"}},
    }


def sleep(seconds: float = 60.0, seed: int = 0) -> dict[str, Any]:
    """A graph that works for so long."""
    return {"1": {"class_type": "SimSleep", "inputs": {"seconds": seconds, "steps": 200, "seed": seed}}}


@dataclass
class Server:
    """One simulated server, and prompts that are sent to it as the hooks would."""

    sim: ComfySimulator
    backend: Backend
    site: Site

    async def submit(
        self,
        graph: dict[str, Any] | None = None,
        *,
        user: UserId | None = ALICE,
        is_known: bool = True,
        **more: Any,
    ) -> str:
        """Send a prompt and enter it into the ledger; returns its id."""
        body = {
            "prompt": graph or picture(),
            "client_id": "upstream",
            "extra_data": {"api_key_comfy_org": SECRET, "extra_pnginfo": {"workflow": {"id": "w1"}}},
            **more,
        }
        url = self.backend.upstream.url("/prompt")
        async with self.site.http.post(url, json=body) as response:
            assert response.status == 200, await response.text()
            prompt_id: str = (await response.json())["prompt_id"]
        if is_known:
            key = None if user is None else user.key
            number = self.site.ledger.next_number()
            now = datetime.now(UTC)
            self.site.ledger.accept(
                PromptRecord(prompt_id, key, "tab", self.backend.id, number=number, accepted_at=now)
            )
        return prompt_id

    async def run(self, graph: dict[str, Any] | None = None, **more: Any) -> str:
        """Send a prompt and wait until it has ended, in the ledger too."""
        prompt_id = await self.submit(graph, **more)
        await self.ended(prompt_id)
        return prompt_id

    async def ended(self, prompt_id: str) -> Mapping[str, Any]:
        """Wait for the end of a prompt; its entry is noted and kept as the relay and the archive would."""

        async def found() -> dict[str, Any]:
            url = self.backend.upstream.url(f"/history/{quote(prompt_id, safe='')}")
            async with self.site.http.get(URL(url, encoded=True)) as response:
                answer: dict[str, Any] = await response.json()
            return answer

        entry: dict[str, Any] = (await wait_for(found, "the prompt's end"))[prompt_id]
        self.site.ledger.end(prompt_id, outcome_of_history(entry))
        return entry

    async def keep(self, prompt_id: str) -> None:
        """Keep the entry, as is done at every end."""
        record = self.site.ledger.find(prompt_id)
        assert record is not None
        entry = await self.ended(prompt_id)
        shown = shown_entry(entry, alias=self.backend.alias, number=record.number, sid=record.sid)
        self.site.ledger.keep_entry(prompt_id, shown)

    async def runs(self, prompt_id: str) -> None:
        """Wait until the prompt runs."""

        async def is_running() -> bool:
            async with self.site.http.get(self.backend.upstream.url("/queue")) as response:
                return prompt_id in {item[1] for item in (await response.json())["queue_running"]}

        await wait_for(is_running, "the prompt to run")
        self.site.ledger.begin(prompt_id)

    async def queue_ids(self) -> set[str]:
        """What the server itself has."""
        async with self.site.http.get(self.backend.upstream.url("/queue")) as response:
            queue = await response.json()
        return {item[1] for item in (*queue["queue_running"], *queue["queue_pending"])}

    async def history_ids(self) -> list[str]:
        """What the server itself remembers."""
        async with self.site.http.get(self.backend.upstream.url("/history")) as response:
            return list(await response.json())


@dataclass
class TwoServers:
    """Everybody's server, Alice's pod, and the site before them."""

    site: Site
    duty: Server
    pod: Server

    async def get(self, path: str, *, user: UserId | None = ALICE, status: int = 200) -> Any:
        """The JSON of an answer with that status."""
        async with self._asked("GET", path, user) as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def source(self, path: str, *, user: UserId | None = ALICE) -> str | None:
        """Whose answer it is."""
        async with self._asked("GET", path, user) as response:
            said: str | None = response.headers.get(site_contract.SOURCE)
            return said

    async def post(
        self,
        path: str,
        body: Any = None,
        *,
        user: UserId | None = ALICE,
        raw: bytes | IO[bytes] | None = None,
    ) -> tuple[int, Any]:
        """Status and body of an answer."""
        more: dict[str, Any] = {"data": raw} if raw is not None else {} if body is None else {"json": body}
        async with self._asked("POST", path, user, **more) as response:
            text = await response.read()
            return response.status, (await response.json()) if text else None

    async def history(self, query: str = "", *, user: UserId | None = ALICE) -> dict[str, Any]:
        """``/history``."""
        answer: dict[str, Any] = await self.get(f"/history{query}", user=user)
        return answer

    def leave_pod(self) -> None:
        """The pod is gone."""
        self.site.routes.clear_private(ALICE)

    def end(self, prompt_id: str, outcome: Outcome) -> None:
        """Note an ending that no server tells of."""
        assert self.site.ledger.end(prompt_id, outcome)

    def _asked(self, method: str, path: str, user: UserId | None, **more: Any) -> Any:
        headers = {**self.site.headers, site_contract.PEER: PEER}
        if user is not None:
            headers[site_contract.USER] = user.key
        url = self.site.url + site_contract.COMFY_PATH + path
        return self.site.http.request(method, url, headers=headers, **more)


@asynccontextmanager
async def two_servers(
    *,
    duty: Installation | None = None,
    pod: Installation | None = None,
    **site_options: Any,
) -> AsyncIterator[TwoServers]:
    """Alice is on her pod; what she sent before is on duty."""
    async with AsyncExitStack() as stack:
        sims = ComfySimulator("duty", installation=duty), ComfySimulator("pod", installation=pod)
        served = [await stack.enter_async_context(serve(sim)) for sim in sims]
        site = await stack.enter_async_context(site_before(served[0].url, **site_options))
        backend = Backend(
            "comfy-gw-alice-a1", Source.PRIVATE, Upstream.parse(served[1].url), "token", "private-a1"
        )
        site.routes.set_private(ALICE, backend)
        yield TwoServers(site, Server(sims[0], site.pool.home, site), Server(sims[1], backend, site))
