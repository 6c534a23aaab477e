#!/usr/bin/env bash
# run_logged.sh NAME USER COMMAND...: becomes COMMAND as USER ("" = as whoever runs this), its output with NAME before
# each line. Called by supervisord, whose signals and restarts so meet COMMAND itself.
set -euo pipefail

name=$1
user=$2
shift 2

# A killed program may leave children: nginx's worker would go on holding the port, ComfyUI's the GPU's memory. They are in
# the process group that supervisord made for it, whose number is the first process's.
read -r _ _ _ _ group _ <"/proc/$$/stat"
if [ "$group" = "$$" ]; then
    group_file=$RUN_DIR/$name.group
    before=$(cat "$group_file" 2>/dev/null || true)
    if [ -n "$before" ] && [ "$before" != "$$" ] && kill -TERM -- "-$before" 2>/dev/null; then
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            kill -0 -- "-$before" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL -- "-$before" 2>/dev/null || true
    fi
    if [ "$before" != "$$" ]; then echo "$$" >"$group_file"; fi
fi

if [ -n "$user" ] && [ "$(id -un)" != "$user" ]; then
    # First the user, then the pipe: a pipe that root has made cannot be opened as /dev/stdout by anybody else.
    HOME=$(getent passwd "$user" | cut -d: -f6)
    export HOME
    exec setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups --no-new-privs \
        "$BASH" "${BASH_SOURCE[0]}" "$name" "" "$@"
fi

arguments=("$name")
if [ "$name" = comfyui ]; then
    # The agent answers /logs from it, also after ComfyUI has died.
    arguments+=(--file "$COMFYUI_LOG_FILE")
fi

# Signals go to the whole process group. This process outlives them, so that the last words are not lost; it ends with
# the last one who writes.
exec "$@" > >(
    trap '' TERM INT
    exec "$POD_PYTHON" "$CONTAINER_DIR/log_lines.py" "${arguments[@]}"
) 2>&1
