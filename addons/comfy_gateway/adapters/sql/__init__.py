"""The gateway's state in SQLite (one gateway) or PostgreSQL (several), by one set of queries."""

from comfy_gateway.adapters.sql.database import Database, open_database
from comfy_gateway.adapters.sql.ledger_store import SqlLedgerStore
from comfy_gateway.adapters.sql.plain_names import SqlPlainNames
from comfy_gateway.adapters.sql.sign_outs import SqlSignOuts
from comfy_gateway.adapters.sql.store import SqlSessionStore, open_store
from comfy_gateway.adapters.sql.vault_rows import SqlVaultRows

__all__ = [
    "Database",
    "SqlLedgerStore",
    "SqlPlainNames",
    "SqlSessionStore",
    "SqlSignOuts",
    "SqlVaultRows",
    "open_database",
    "open_store",
]
