"""Shows what was spent today on the metrics page, also where no budget is set."""

import logging
from typing import Final

from comfy_gateway.core.errors import StoreError
from comfy_gateway.core.money.costs import day_of, spent_by_user
from comfy_gateway.core.ports import Clock, SessionStore
from comfy_gateway.service.meters import Meters

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 60.0


async def show_spend(store: SessionStore, meters: Meters, clock: Clock) -> None:
    """Look each minute, for ever. The last figure stays while the store does not answer."""
    while True:
        now = clock.now()
        today = day_of(now)
        try:
            bills = await store.bills(since=today)
        except StoreError as error:
            logger.warning("what was spent today is not known: %s", error)
        else:
            meters.spent_today(sum(spent_by_user(bills, since=today, until=now).values()))
        await clock.sleep(INTERVAL_S)
