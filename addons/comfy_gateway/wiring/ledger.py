"""The prompt ledger, and what is written behind it."""

from dataclasses import dataclass

from comfy_gateway.adapters.sql import SqlLedgerStore
from comfy_gateway.service.prompts.activity import Activity
from comfy_gateway.service.prompts.journal import Journal
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.wiring.base import Base


@dataclass(frozen=True)
class LedgerParts:
    """Every prompt, and when each server last had to do with one."""

    ledger: Ledger
    activity: Activity


async def open_ledger(base: Base) -> LedgerParts:
    """Loads what an earlier gateway has written."""
    journal = Journal(SqlLedgerStore(base.database), base.clock)
    base.stack.push_async_callback(journal.aclose)
    ledger = Ledger(base.clock, journal)
    await ledger.load()
    journal.start()
    activity = Activity(base.clock)
    ledger.watch(lambda record: activity.touch(record.backend_id))
    return LedgerParts(ledger, activity)
