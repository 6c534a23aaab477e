#!/usr/bin/env bash
# Writes the locks of the pod's image, for Python 3.12 on Linux (x86-64):
#   pod.lock      supervisor, agent and model_sync
#   comfyui.lock  ComfyUI; only where its requirements.txt is named: container/refresh_locks.sh ../ComfyUI/requirements.txt
# Needs uv (in .venv after `./run_gateway.sh test`, or on PATH).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=$PWD/.venv/bin/uv
[ -x "$uv" ] || uv=uv

compile() {
    local lock=$1
    shift
    "$uv" pip compile --quiet --python-version 3.12 --python-platform x86_64-manylinux_2_28 --generate-hashes \
        --no-annotate --custom-compile-command container/refresh_locks.sh --output-file "$lock" "$@"
}

compile container/pod.lock container/requirements.txt agent/requirements.txt model_sync/requirements.txt \
    model_sync/requirements-s3.txt
if [ "$#" -gt 0 ]; then
    compile container/comfyui.lock "$1" --constraints container/comfyui-torch.txt
fi
