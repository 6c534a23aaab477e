#!/usr/bin/env bash
# Becomes the telemetry agent. Environment from start.sh.
set -euo pipefail
unset GATEWAY_POD_TOKEN
command=$AGENT_COMMAND
# Not a setting of the agent, which warns of AGENT_ names that it does not know.
unset AGENT_COMMAND
eval "exec $command"
