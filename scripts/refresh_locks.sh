#!/usr/bin/env bash
# Writes the three locks from the requirements files: every version with its hashes, for Python >= 3.12 on Linux, macOS and
# Windows. Versions that a lock already has stay unless requirements changed; --upgrade takes newer ones.
# Needs uv (in .venv after `./run_gateway.sh test`, or on PATH).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=.venv/bin/uv
[ -x "$uv" ] || uv=uv

compile() {
    local lock=$1
    shift
    "$uv" pip compile --quiet --universal --python-version 3.12 --generate-hashes \
        --custom-compile-command scripts/refresh_locks.sh --output-file "$lock" "$@"
}

# Each lock is held to the one before it, so that a larger set never moves a version of a smaller one.
compile requirements.lock requirements.txt "$@"
compile requirements-demo.lock requirements.txt simulators/requirements.txt --constraints requirements.lock "$@"
compile requirements-dev.lock requirements-dev.txt --constraints requirements-demo.lock "$@"
