"""Alarms by apprise: mail, chat, webhooks, whatever its addresses name.

apprise blocks, so it runs in a thread of its own. Its addresses hold passwords and tokens: they are in no text of ours,
and its own log, which may name them, is off.
"""

import asyncio
import logging
from importlib import import_module
from typing import Any, Final

from comfy_gateway.adapters.lane import Lane, LaneClosed
from comfy_gateway.core.errors import AlarmUnsent

TIMEOUT_S: Final = 30.0


class AppriseSender:
    """One address."""

    def __init__(self, url: str, name: str) -> None:
        """``name`` is said in place of the address. Raises ValueError for an address that apprise does not know."""
        logging.getLogger("apprise").disabled = True
        # It notes the path of each request at its lowest level, and the path of a webhook is its password.
        logging.getLogger("urllib3").setLevel(logging.INFO)
        self.name = name
        # Imported here, at the start: it takes a third of a second, and most gateways have no use for it.
        apprise: Any = import_module("apprise")
        self._apprise = apprise.Apprise(asset=apprise.AppriseAsset(app_id="Comfy gateway", async_mode=False))
        if not self._apprise.add(url):
            raise ValueError(
                f"{name} is no address that apprise knows, such as mailto://user:password@example.com"
            )
        self._lane = Lane("alarms", 1)

    async def send(self, title: str, text: str) -> None:
        """Hand one alarm over. Raises AlarmUnsent when that failed or took too long; it may have arrived then."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                is_sent = await asyncio.wrap_future(
                    self._lane.submit(lambda: self._apprise.notify(title=title, body=text))
                )
        except TimeoutError:
            raise AlarmUnsent(f"no answer within {TIMEOUT_S:g} s") from None
        except LaneClosed:
            raise AlarmUnsent("the gateway ends") from None
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything, with its address in the text
            raise AlarmUnsent(f"apprise failed ({type(error).__name__})") from None
        if not is_sent:
            raise AlarmUnsent("it was not taken")

    def close(self) -> None:
        """No more alarms; one that is being sent is not waited for."""
        self._lane.close()
