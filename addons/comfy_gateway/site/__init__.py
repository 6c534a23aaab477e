"""The gateway's own aiohttp application on loopback: relay, refusals, status."""
