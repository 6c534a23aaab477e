#!/usr/bin/env bash
# Becomes ComfyUI on loopback; after the models where MODEL_SYNC is "first". Environment from start.sh.
set -euo pipefail

if [ "$MODEL_SYNC" = first ] && [ ! -e "$MODEL_SYNC_DONE_FILE" ]; then
    # In the foreground here, not before supervisord: so the agent tells of its progress and keeps the pod's lease.
    bash "$CONTAINER_DIR/run_model_sync.sh" || echo "Starting ComfyUI although models are missing."
fi

# Custom nodes are other people's programs: none of the pod's secrets is theirs.
unset GATEWAY_POD_TOKEN AUTH_TOKEN RUNPOD_API_KEY

if [ -n "${COMFYUI_COMMAND:-}" ]; then
    # A command line with variables, as a person writes it in a template.
    eval "exec $COMFYUI_COMMAND"
fi

cd "$COMFYUI_DIR"
# shellcheck disable=SC2086 # several words
exec "$COMFYUI_PYTHON" main.py \
    --listen 127.0.0.1 --port "$COMFYUI_PORT" \
    --output-directory "$DATA_DIR/output" \
    --input-directory "$DATA_DIR/input" \
    --temp-directory "$DATA_DIR" \
    --user-directory "$DATA_DIR/user" \
    --extra-model-paths-config "$EXTRA_MODEL_PATHS" \
    --max-upload-size "$COMFYUI_MAX_UPLOAD_MB" \
    --disable-auto-launch \
    ${COMFYUI_ARGS:-}
