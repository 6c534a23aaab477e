"""The gateway's state in SQLite (one gateway) or PostgreSQL (several), by one set of queries."""

from comfy_gateway.adapters.sql.store import SqlSessionStore, open_store

__all__ = ["SqlSessionStore", "open_store"]
