"""manifest.json -> verified model files below one folder: `python -m model_sync --base-dir models`.

A program of its own, it knows neither the gateway nor the agent. What others read of it is the status file
(`--status-file`), the JSON lines on stdout and the exit code; docs/models.md describes them.
"""
