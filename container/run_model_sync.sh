#!/usr/bin/env bash
# Fetches the models of the manifest, again after a failure. Exit code 0 when all required ones are there.
# Environment from start.sh.
set -uo pipefail
unset GATEWAY_POD_TOKEN AUTH_TOKEN RUNPOD_API_KEY

code=0
for attempt in $(seq "$MODEL_SYNC_ATTEMPTS"); do
    if [ "$attempt" -gt 1 ]; then
        echo "model_sync ended with code $code; attempt $attempt of $MODEL_SYNC_ATTEMPTS in $MODEL_SYNC_PAUSE_S s"
        sleep "$MODEL_SYNC_PAUSE_S"
    fi
    (eval "exec $MODEL_SYNC_COMMAND")
    code=$?
    # 2: manifest or arguments are wrong, which another attempt does not change.
    if [ "$code" -eq 0 ] || [ "$code" -eq 2 ]; then break; fi
done
: >"$MODEL_SYNC_DONE_FILE"
exit "$code"
