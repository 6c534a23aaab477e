"""Ends the RunPod pod that we run in, by every way there is, and asks whether it worked.

Which rights the key has that RunPod scopes to a pod is not documented, and differs from way to way: so each way is
tried, and none is believed. RunPod's GraphQL answers success to calls that it refused.
"""

import asyncio
import functools
import json
import logging
import shutil
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp

import agent
from agent.clock import Clock
from agent.settings import POD_ID, Pod

logger = logging.getLogger(__name__)

CALL_S = 30.0
COMMAND_S = 20.0
LOOK_AGAIN_S = (0.0, 2.0, 5.0)
"""RunPod shows a pod for a short while after its end."""
MOST_SAID = 300
MOST_BODY_BYTES = 256 * 1024
USER_AGENT = f"comfy-runpod-agent/{agent.__version__}"
"""Cloudflare refuses the names of well-known HTTP libraries."""


class OwnPod:
    """The session stays its owner's; redirects are not followed, they could lead the key elsewhere.

    command_s  how long one runpodctl may take
    """

    def __init__(
        self, session: aiohttp.ClientSession, pod: Pod, clock: Clock, *, command_s: float = COMMAND_S
    ) -> None:
        # Settings have checked it; it is looked at again where it is put into a query.
        if not POD_ID.fullmatch(pod.id):
            raise ValueError("this is no pod's id")
        self._session = session
        self._pod = pod
        self._clock = clock
        self._command_s = command_s
        self._seeing: set[str] = set()
        """The APIs that have shown the pod to our key."""

    async def end(self) -> bool:
        """Try one way after another until the pod is known to be gone. False: it is not known to be gone."""
        await self._is_gone()  # which of the APIs shows this pod at all
        for name, way in self._ways():
            outcome = await way()
            is_gone = await self._is_gone_soon()
            said = "it is gone" if is_gone else "it is not known to be gone"
            logger.warning("Ending pod %s by %s: %s; %s", self._pod.id, name, outcome, said)
            if is_gone:
                return True
        return False

    def _ways(self) -> Iterator[tuple[str, Callable[[], Awaitable[str]]]]:
        if program := shutil.which("runpodctl"):
            for verb in (("remove", "pod"), ("pod", "delete")):
                yield (
                    f"runpodctl {' '.join(verb)}",
                    functools.partial(self._command, program, *verb, self._pod.id),
                )
        if self._pod.api_key is not None:
            yield "podTerminate", self._terminate
            yield "DELETE /v2/pods", self._delete

    async def _command(self, program: str, *arguments: str) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        except OSError as error:
            return f"cannot be started ({error.strerror})"
        try:
            async with asyncio.timeout(self._command_s):
                said, _ = await process.communicate()
        except TimeoutError:
            return f"not done after {self._command_s:g} s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return f"exit code {process.returncode}, {self._shown(said.decode(errors='replace'))}"

    async def _terminate(self) -> str:
        query = f'mutation {{ podTerminate(input: {{podId: "{self._pod.id}"}}) }}'
        return self._shown(await self._call("POST", "/graphql", {"query": query}))

    async def _delete(self) -> str:
        return self._shown(await self._call("DELETE", f"/v2/pods/{self._pod.id}"))

    async def _is_gone_soon(self) -> bool:
        for pause_s in LOOK_AGAIN_S:
            await self._clock.sleep(pause_s)
            if await self._is_gone():
                return True
        return False

    async def _is_gone(self) -> bool:
        """Whether an API says so that showed the pod before, and none shows it still. A key that may not see the pod
        may well be told that there is none."""
        if self._pod.api_key is None:
            return False
        query = f'query {{ pod(input: {{podId: "{self._pod.id}"}}) {{ id desiredStatus }} }}'
        shown = {
            "graphql": _shown_by_graphql(*await self._call("POST", "/graphql", {"query": query})),
            "v2": _shown_by_v2(*await self._call("GET", f"/v2/pods/{self._pod.id}")),
        }
        self._seeing |= {api for api, is_there in shown.items() if is_there}
        return True not in shown.values() and any(shown[api] is False for api in self._seeing)

    async def _call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """(status, the JSON that came or None); status 0 where there was no answer."""
        headers = {"Authorization": f"Bearer {self._pod.api_key}", "User-Agent": USER_AGENT}
        try:
            async with self._session.request(
                method,
                self._pod.api_base + path,
                json=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=CALL_S),
            ) as response:
                # readexactly's partial result is the whole of a short body, read() may be a piece of it
                try:
                    text = await response.content.readexactly(MOST_BODY_BYTES)
                except asyncio.IncompleteReadError as short:
                    text = short.partial
                try:
                    return response.status, json.loads(text)
                except ValueError:
                    return response.status, None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return 0, type(error).__name__

    def _shown(self, told: object) -> str:
        """Fit for the log: short, on one line, without the key."""
        text = " ".join(str(told).split())
        if self._pod.api_key:
            text = text.replace(self._pod.api_key, "(key)")
        return text[:MOST_SAID]


def _shown_by_graphql(status: int, told: Any) -> bool | None:
    """Whether {"data": {"pod": …}} shows the pod; None where it says nothing of use."""
    data = told.get("data") if isinstance(told, dict) and not told.get("errors") else None
    if status != 200 or not isinstance(data, dict) or "pod" not in data:
        return None
    return isinstance(data["pod"], dict) and data["pod"].get("desiredStatus") != "TERMINATED"


def _shown_by_v2(status: int, told: Any) -> bool | None:
    """The same of the REST API, whose refusals have a title and their status in the body."""
    if not isinstance(told, dict):
        return None
    if status == 404 and told.get("status") == 404:
        return False
    return told.get("status") != "TERMINATED" if status == 200 and "status" in told else None
