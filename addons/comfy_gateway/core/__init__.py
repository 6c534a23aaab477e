"""Decisions, tables and records: no I/O, no clock, no event loop, no mitmproxy."""
