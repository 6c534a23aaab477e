"""Runnable stand-ins for the servers that the gateway talks to: for demo, tests and benchmarks."""
