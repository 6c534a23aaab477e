#!/usr/bin/env bash
# The container's first process: checks the environment, prepares folders and the front door, then becomes supervisord,
# which runs ComfyUI (on loopback), nginx (the front door), the agent and, where wished, model_sync.
# Every path and command can be set, so that tests run this without root and without a container. See docs/container.md.
set -euo pipefail

CONTAINER_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export CONTAINER_DIR
export APP_DIR=${APP_DIR:-$(dirname "$CONTAINER_DIR")}

say() { echo "[start] $*"; }
warn() {
    say "################################################################################"
    for line in "$@"; do say "WARNING: $line"; done
    say "################################################################################"
}

faults=()
fault() { faults+=("$*"); }

# --- settings --------------------------------------------------------------------------------------------------------
export POD_PYTHON=${POD_PYTHON:-/opt/pod/venv/bin/python}
export NGINX_COMMAND=${NGINX_COMMAND:-nginx}
export FRONT_DOOR_HOST=${FRONT_DOOR_HOST:-0.0.0.0}
export FRONT_DOOR_PORT=${FRONT_DOOR_PORT:-8188}
export FRONT_DOOR_MAX_BODY=${FRONT_DOOR_MAX_BODY:-2g}
export FRONT_DOOR_SILENCE=${FRONT_DOOR_SILENCE:-24h}

export COMFYUI_DIR=${COMFYUI_DIR:-/opt/ComfyUI}
export COMFYUI_PYTHON=${COMFYUI_PYTHON:-/opt/comfyui-venv/bin/python}
export COMFYUI_PORT=${COMFYUI_PORT:-8189}
export COMFYUI_MAX_UPLOAD_MB=${COMFYUI_MAX_UPLOAD_MB:-2048}
export EXTRA_MODEL_PATHS=${EXTRA_MODEL_PATHS:-$CONTAINER_DIR/extra_model_paths.yaml}

export AGENT_HOST=${AGENT_HOST:-0.0.0.0}
export AGENT_PORT=${AGENT_PORT:-8000}
export COMFYUI_URL=http://127.0.0.1:$COMFYUI_PORT
# shellcheck disable=SC2016 # run_agent.sh fills it in
export AGENT_COMMAND=${AGENT_COMMAND:-'"$POD_PYTHON" -m agent'}

export MODEL_SYNC=${MODEL_SYNC:-background}
export MODEL_SYNC_ATTEMPTS=${MODEL_SYNC_ATTEMPTS:-5}
export MODEL_SYNC_PAUSE_S=${MODEL_SYNC_PAUSE_S:-30}
# shellcheck disable=SC2016 # run_model_sync.sh fills it in
default_model_sync='"$POD_PYTHON" -m model_sync --base-dir "$MODELS_DIR" --manifest "$MODEL_MANIFEST" --status-file "$MODEL_SYNC_STATUS_FILE"'

if [ "$(id -u)" -eq 0 ]; then default_run_dir=/run/pod; else default_run_dir=${TMPDIR:-/tmp}/pod-$(id -u); fi
export RUN_DIR=${RUN_DIR:-$default_run_dir}

# A volume that outlives the container, or else the container's own disk.
if [ -z "${WORKSPACE:-}" ]; then
    WORKSPACE=/var/lib/comfyui
    for volume in /workspace /runpod-volume; do
        if [ -d "$volume" ]; then
            WORKSPACE=$volume
            break
        fi
    done
fi
export WORKSPACE
export MODELS_DIR=${MODELS_DIR:-$WORKSPACE/models}
# A folder for each pod: several of them write to one network volume, and all of them would count files from 00001.
export DATA_DIR=${DATA_DIR:-$WORKSPACE/comfyui/${RUNPOD_POD_ID:-local}}

# --- checks ----------------------------------------------------------------------------------------------------------
for name in FRONT_DOOR_PORT COMFYUI_PORT AGENT_PORT; do
    value=${!name}
    if ! [[ $value =~ ^[1-9][0-9]{0,4}$ ]] || [ "$value" -gt 65535 ]; then
        fault "$name is '$value'; allowed is a whole number from 1 to 65535"
    fi
done
if [ "$FRONT_DOOR_PORT" = "$COMFYUI_PORT" ] || [ "$FRONT_DOOR_PORT" = "$AGENT_PORT" ] || [ "$COMFYUI_PORT" = "$AGENT_PORT" ]; then
    fault "FRONT_DOOR_PORT, COMFYUI_PORT and AGENT_PORT must differ ($FRONT_DOOR_PORT, $COMFYUI_PORT, $AGENT_PORT)"
fi
for name in MODEL_SYNC_ATTEMPTS MODEL_SYNC_PAUSE_S COMFYUI_MAX_UPLOAD_MB; do
    if ! [[ ${!name} =~ ^[0-9]{1,7}$ ]]; then fault "$name is '${!name}'; allowed is a whole number"; fi
done
case $MODEL_SYNC in
    off | background | first) ;;
    *) fault "MODEL_SYNC is '$MODEL_SYNC'; allowed is off, background or first" ;;
esac
case ${POD_ALLOW_OPEN:-0} in
    0 | 1) ;;
    *) fault "POD_ALLOW_OPEN is '$POD_ALLOW_OPEN'; allowed is 0 or 1" ;;
esac
for name in RUN_DIR WORKSPACE DATA_DIR MODELS_DIR; do
    if [[ ${!name} != /* ]]; then fault "$name is '${!name}'; allowed is an absolute path"; fi
done
for program in "$POD_PYTHON" "$NGINX_COMMAND"; do
    if ! command -v "$program" >/dev/null; then fault "there is no program $program"; fi
done

end_with_faults() {
    if [ "${#faults[@]}" -eq 0 ]; then return; fi
    for line in "${faults[@]}"; do say "$line" >&2; done
    exit 2
}
end_with_faults

# A pod without a token stays shut rather than ending: RunPod starts a container that ended again, for ever and for money.
mode=guarded
if [ -z "${GATEWAY_POD_TOKEN:-}" ]; then
    if [ "${POD_ALLOW_OPEN:-0}" = 1 ]; then
        mode=open
        warn "GATEWAY_POD_TOKEN is not set and POD_ALLOW_OPEN=1:" \
            "everybody who finds port $FRONT_DOOR_PORT can run workflows and read all pictures here."
    else
        mode=closed
        warn "GATEWAY_POD_TOKEN is not set: the front door stays closed (503) for everybody." \
            "The gateway sets it on the pods that it starts. POD_ALLOW_OPEN=1 opens the pod without one."
    fi
fi
if [ -z "${AUTH_TOKEN:-}" ]; then
    if [ "${POD_ALLOW_OPEN:-0}" = 1 ]; then
        warn "AUTH_TOKEN is not set and POD_ALLOW_OPEN=1: the agent answers everybody on port $AGENT_PORT."
    else
        # Nobody knows it. The agent runs all the same, because it ends a pod that nobody needs.
        AUTH_TOKEN=$("$POD_PYTHON" -c 'import secrets; print(secrets.token_hex(32))')
        warn "AUTH_TOKEN is not set: the agent answers nobody. POD_ALLOW_OPEN=1 opens it without one."
    fi
fi
export AUTH_TOKEN

# --- models ----------------------------------------------------------------------------------------------------------
if [ -z "${MODEL_MANIFEST:-}" ] && [ -f "$MODELS_DIR/manifest.json" ]; then MODEL_MANIFEST=$MODELS_DIR/manifest.json; fi
export MODEL_MANIFEST=${MODEL_MANIFEST:-}
if [ "$MODEL_SYNC" != off ] && [ -z "${MODEL_SYNC_COMMAND:-}" ] && [ -z "$MODEL_MANIFEST" ]; then
    say "No models to fetch: neither MODEL_MANIFEST nor $MODELS_DIR/manifest.json."
    MODEL_SYNC=off
fi
export MODEL_SYNC_COMMAND=${MODEL_SYNC_COMMAND:-$default_model_sync}
export MODEL_SYNC_BESIDE=false
if [ "$MODEL_SYNC" = background ]; then MODEL_SYNC_BESIDE=true; fi

# --- users and folders -----------------------------------------------------------------------------------------------
# Two users besides root: `comfy` runs ComfyUI with other people's nodes; `guard` runs what holds secrets, so that those
# nodes can neither read its memory nor its environment. Both have the group comfy, to write each other's pictures.
export USER_OF_COMFYUI='' USER_OF_AGENT='' USER_OF_DOOR=''
if [ "$(id -u)" -eq 0 ] && [ "${POD_AS_ROOT:-0}" != 1 ]; then
    POD_USER=${POD_USER:-comfy}
    POD_GUARD_USER=${POD_GUARD_USER:-guard}
    if id -u "$POD_USER" >/dev/null 2>&1 && id -u "$POD_GUARD_USER" >/dev/null 2>&1; then
        USER_OF_COMFYUI=$POD_USER
        USER_OF_AGENT=$POD_GUARD_USER
        USER_OF_DOOR=$POD_GUARD_USER
    else
        warn "There are no users $POD_USER and $POD_GUARD_USER here: everything runs as root."
    fi
fi

give() {
    local user=$1
    shift
    # Some network volumes refuse it; whether the user can write is seen below.
    if [ -n "$user" ]; then chown "$user:" "$@" 2>/dev/null || true; fi
}

can_write() {
    local user=$1 folder=$2 probe=$2/.written-by-start
    if [ -n "$user" ]; then
        # shellcheck disable=SC2016 # the inner shell expands it
        setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups sh -c ': >"$1" && rm -f "$1"' - "$probe" 2>/dev/null
    else
        (: >"$probe" && rm -f "$probe") 2>/dev/null
    fi
    # The folder is named where it fails.
    local code=$?
    if [ "$code" -ne 0 ]; then say "$folder cannot be written by ${user:-$(id -un)}"; fi
    return "$code"
}

# Makes a folder, or takes over one that root or another image has made; what is inside stays as it is.
take_folder() {
    local folder=$1
    mkdir -p "$folder" 2>/dev/null || return 0
    give "$USER_OF_COMFYUI" "$folder"
    # The group writes too, and what is made inside belongs to the group.
    chmod 2775 "$folder" 2>/dev/null || true
}

kinds=(checkpoints clip clip_vision configs controlnet diffusion_models embeddings gligen hypernetworks loras photomaker
    style_models text_encoders unet upscale_models vae vae_approx)
for folder in "$DATA_DIR" "$DATA_DIR"/{input,output,temp,user} "$MODELS_DIR" "${kinds[@]/#/$MODELS_DIR/}"; do
    take_folder "$folder"
done
must_be_written=("$DATA_DIR"/{input,output,user})
# A volume of models may be read-only where nothing is to be fetched.
if [ "$MODEL_SYNC" != off ]; then must_be_written+=("$MODELS_DIR"); fi

for folder in "${must_be_written[@]}"; do
    if can_write "$USER_OF_COMFYUI" "$folder"; then continue; fi
    if [ -n "$USER_OF_COMFYUI" ]; then
        warn "The volume does not let $USER_OF_COMFYUI write: ComfyUI, model_sync and the agent run as root."
        USER_OF_COMFYUI=''
        USER_OF_AGENT=''
        break
    fi
    fault "$folder cannot be written"
done
end_with_faults

export FRONT_DOOR_DIR=$RUN_DIR/front_door COMFYUI_RUN_DIR=$RUN_DIR/comfyui
export COMFYUI_LOG_FILE=$COMFYUI_RUN_DIR/comfyui.log
export MODEL_SYNC_STATUS_FILE=$COMFYUI_RUN_DIR/model_sync.json MODEL_SYNC_DONE_FILE=$COMFYUI_RUN_DIR/model_sync.done
mkdir -p "$RUN_DIR" "$FRONT_DOOR_DIR" "$COMFYUI_RUN_DIR"
chmod 0755 "$RUN_DIR"
chmod 0700 "$FRONT_DOOR_DIR"
chmod 0750 "$COMFYUI_RUN_DIR"
# What a container that was stopped and started again has left.
rm -f "$MODEL_SYNC_STATUS_FILE" "$MODEL_SYNC_DONE_FILE" "$RUN_DIR"/*.group

export AGENT_COMFYUI_DIR=${AGENT_COMFYUI_DIR:-$COMFYUI_DIR}
export AGENT_OUTPUT_DIR=$DATA_DIR/output AGENT_INPUT_DIR=$DATA_DIR/input AGENT_LOG_FILE=$COMFYUI_LOG_FILE
export AGENT_MODEL_SYNC_STATUS=$MODEL_SYNC_STATUS_FILE

# --- the front door --------------------------------------------------------------------------------------------------
door=(--folder "$FRONT_DOOR_DIR" --mode "$mode" --listen "$FRONT_DOOR_HOST:$FRONT_DOOR_PORT"
    --comfyui "127.0.0.1:$COMFYUI_PORT" --max-body "$FRONT_DOOR_MAX_BODY" --silence "$FRONT_DOOR_SILENCE")
if [ "$(id -u)" -eq 0 ] && [ -z "$USER_OF_DOOR" ]; then door+=(--as-root); fi
# printf is part of the shell: the token is in no process list.
printf '%s' "${GATEWAY_POD_TOKEN:-}" | "$POD_PYTHON" "$CONTAINER_DIR/front_door.py" "${door[@]}" || exit 2
# From here on only nginx's file knows it, as a digest.
unset GATEWAY_POD_TOKEN
give "$USER_OF_DOOR" "$FRONT_DOOR_DIR" "$FRONT_DOOR_DIR/nginx.conf"
give "$USER_OF_COMFYUI" "$COMFYUI_RUN_DIR"
bash "$CONTAINER_DIR/run_logged.sh" front_door "$USER_OF_DOOR" \
    "$NGINX_COMMAND" -t -q -e stderr -p "$FRONT_DOOR_DIR/" -c "$FRONT_DOOR_DIR/nginx.conf" || exit 2

# --- and away --------------------------------------------------------------------------------------------------------
say "front door ($mode) on $FRONT_DOOR_PORT, agent on $AGENT_PORT, ComfyUI on 127.0.0.1:$COMFYUI_PORT;" \
    "data in $DATA_DIR, models in $MODELS_DIR (model sync: $MODEL_SYNC)"
cd "$APP_DIR"
supervisord=("$POD_PYTHON" -m supervisor.supervisord --configuration "$CONTAINER_DIR/supervisord.conf")
if [ "$(id -u)" -eq 0 ]; then supervisord+=(--user root); fi
exec "${supervisord[@]}"
