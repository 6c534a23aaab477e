"""The telemetry agent inside a pod: readings of the GPU and the machine, ComfyUI's files and log, and the lease.

It knows nothing of the gateway but JSON (docs/agent.md). `python -m agent` runs it; its settings are the environment.
"""

__version__ = "0.1.0"
