#!/usr/bin/env bash
# Exit code 0 when ComfyUI answers through the front door and the agent answers. For Docker's HEALTHCHECK, which has the
# container's environment. RunPod does not look at it.
set -euo pipefail

ask() { curl --silent --show-error --fail --output /dev/null --max-time 4 --config - "$@"; }

# The header on standard input: a command line is seen by everybody.
printf 'header = "X-Comfy-Gateway-Token: %s"\n' "${GATEWAY_POD_TOKEN:-}" \
    | ask "http://127.0.0.1:${FRONT_DOOR_PORT:-8188}/queue"
ask "http://127.0.0.1:${AGENT_PORT:-8000}/healthz" </dev/null
