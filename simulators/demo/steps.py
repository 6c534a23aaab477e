"""The three steps of the demo: as lines for a shell, and done by the demo itself."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

import aiohttp

from simulators.demo.scenery import THRESHOLD_COUNT

USER: Final = "alice"
USER_HEADER: Final = "X-Comfy-User"
READY_HEADER: Final = "X-Comfy-Session-Ready"
SOURCE_HEADER: Final = "X-Comfy-Session-Source"
SCRIPT_WITHIN_S: Final = 60.0
LOOK_EVERY_S: Final = 0.5
_COLOUR: Final = '"COLOUR"'
"""Stands for the number that makes each picture another one."""

Say = Callable[[str], None]


def workflow(colour: int | str) -> dict[str, Any]:
    """The body of a prompt that makes one small picture."""
    return {
        "prompt": {
            "1": {
                "class_type": "EmptyImage",
                "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": colour},
            },
            "2": {
                "class_type": "SaveImage",
                "inputs": {"images": ["1", 0], "filename_prefix": "demo"},
            },
        }
    }


def curl_lines(url: str) -> tuple[str, str, str]:
    """Burst, move and reaping for sh, bash and zsh. The second and the third wait until what they show is so."""
    body = json.dumps(workflow("COLOUR"), separators=(",", ":")).replace(_COLOUR, "'$n'")
    numbers = " ".join(str(n) for n in range(1, THRESHOLD_COUNT + 1))
    who = f"-H '{USER_HEADER}: {USER}'"
    burst = (
        f"for n in {numbers}; do curl -sS {who} -H 'Content-Type: application/json' -d '{body}' {url}/prompt; "
        "echo; done"
    )
    look = f"curl -sSI {who} {url}/system_stats"
    return burst, _until(look, "1", "private"), _until(look, "0", "duty")


def _until(look: str, ready: str, source: str) -> str:
    wanted = f"Session-(Ready: {ready}|Source: {source})"
    return f"until {look} | grep -iE '{wanted}'; do sleep 1; done"


class StepFailed(Exception):
    """The script did not come as far as it should; the text says how far."""


async def play(url: str, ledger_url: str, was_reaped: asyncio.Event, say: Say) -> None:
    """Take alice through the three steps, to the event and to a cloud in which nothing costs anything.

    Raises StepFailed when that does not work within a minute.
    """
    step = "burst"
    try:
        async with (
            asyncio.timeout(SCRIPT_WITHIN_S),
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
        ):
            visitor = _Visitor(http, url, say)
            for number in range(1, THRESHOLD_COUNT + 1):
                await visitor.prompt(number)
            step = "move"
            await visitor.wait_for(ready="1", source="private")
            await visitor.prompt(THRESHOLD_COUNT + 1)
            step = "reaping"
            await visitor.wait_for(ready="0", source="duty")
            await was_reaped.wait()
            if (spent := (await _ledger(http, ledger_url))["usd_per_hour"]) > 0:
                raise StepFailed(f"{step}: ${spent:.2f} an hour are still being spent")
    except TimeoutError:
        raise StepFailed(f"{step}: not within {SCRIPT_WITHIN_S:g} s") from None
    except aiohttp.ClientError as error:
        raise StepFailed(f"{step}: {error}") from None


async def costs(ledger_url: str) -> list[str]:
    """One line for each pod that was rented, and the sum; nothing where the cloud does not answer any more."""
    try:
        async with asyncio.timeout(2.0), aiohttp.ClientSession() as http:
            ledger = await _ledger(http, ledger_url)
    except (aiohttp.ClientError, TimeoutError):
        return []
    lines = [
        f"{row['name']} ({row['gpu']}): "
        f"{row['billed_s']:.0f} s at ${row['usd_per_hour']:.2f} an hour = ${row['usd']:.4f}"
        for row in ledger["rows"]
    ]
    return [*lines, f"in all ${ledger['total_usd']:.4f}" if lines else "nothing: no pod was rented"]


class _Visitor:
    """Alice."""

    def __init__(self, http: aiohttp.ClientSession, url: str, say: Say) -> None:
        self._http = http
        self._url = url
        self._say = say
        self._headers = {USER_HEADER: USER}

    async def prompt(self, number: int) -> None:
        """Raises StepFailed for a prompt that is not accepted."""
        async with self._http.post(
            f"{self._url}/prompt", json=workflow(number), headers=self._headers
        ) as answer:
            text = await answer.text()
            self._say(
                f"prompt {number}: {answer.status}, {SOURCE_HEADER}: {answer.headers.get(SOURCE_HEADER)}, {text}"
            )
            if answer.status != 200:
                raise StepFailed(f"prompt {number} was not accepted")

    async def wait_for(self, *, ready: str, source: str) -> None:
        """Return when the headers say so."""
        while True:
            async with self._http.head(f"{self._url}/system_stats", headers=self._headers) as answer:
                found = (answer.headers.get(READY_HEADER), answer.headers.get(SOURCE_HEADER))
            if found == (ready, source):
                self._say(f"{READY_HEADER}: {ready}, {SOURCE_HEADER}: {source}")
                return
            await asyncio.sleep(LOOK_EVERY_S)


async def _ledger(http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with http.get(url, raise_for_status=True) as answer:
        ledger: dict[str, Any] = await answer.json()
        return ledger
