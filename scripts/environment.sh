# shellcheck shell=bash
# Makes .venv and keeps it as the locks say. Sourced by run_gateway.sh in the project's root; needs bash 3.2 and find_python.sh.
#
# .venv/.gateway-stamp tells what is done, one fact a line:
#   python 3.12.1 /path/of/the/project     the environment was made whole, by this Python, at this place
#   runtime 123456 789                     all of this lock is installed (its checksum and size)
# A line that is missing or says something else is work to do. Scripts in .venv name its absolute path, hence the place.

VENV_BIN=.venv/bin
VENV_PYTHON=$VENV_BIN/python
STAMP=.venv/.gateway-stamp
LOCK_FOLDER=.venv.lock
LOCK_WAIT_S=900

# The locks whose packages are all in the given one.
locks_within() {
    case $1 in
        runtime) echo "runtime" ;;
        demo) echo "runtime demo" ;;
        dev) echo "runtime demo dev" ;;
    esac
}

lock_file() {
    case $1 in
        runtime) echo requirements.lock ;;
        *) echo "requirements-$1.lock" ;;
    esac
}

lock_line() {
    echo "$1 $(cksum <"$(lock_file "$1")")"
}

stamp_says() {
    [ -f "$STAMP" ] && grep -qxF -e "$1" "$STAMP"
}

environment_is_whole() {
    python_runs "$VENV_PYTHON" && stamp_says "python $PYTHON_VERSION $PWD"
}

lock_is_installed() {
    stamp_says "$(lock_line "$1")"
}

environment_is_ready() {
    environment_is_whole && lock_is_installed "$1"
}

fail() {
    echo "run_gateway.sh: $*" >&2
    exit 1
}

# Runs a command that stays silent unless it fails.
run_quietly() {
    local said
    if ! said=$("$@" 2>&1 </dev/null); then
        printf '%s\n' "$said" >&2
        return 1
    fi
}

make_with_uv() {
    rm -rf .venv
    run_quietly uv venv --quiet --no-project --seed --python "$1" .venv
}

make_with_python() {
    echo "Making .venv with Python $PYTHON_VERSION ($PYTHON) ..." >&2
    run_quietly "$PYTHON" -m venv --clear .venv || fail "$PYTHON could not make .venv (its words are above)"
}

make_environment() {
    # Without its stamp a half-made environment is made again by whoever comes next.
    rm -f "$STAMP"
    if find_python; then
        make_with_python
    elif command -v uv >/dev/null; then
        local wanted=${PYTHON_WITHOUT_VENV:-3.12}
        echo "Making .venv with uv (Python $wanted) ..." >&2
        if ! make_with_uv "$wanted"; then
            find_python newer || fail "uv could not make .venv (its words are above)"
            make_with_python
        fi
    elif find_python newer; then
        make_with_python
    elif [ -n "$PYTHON_WITHOUT_VENV" ]; then
        fail "$PYTHON_WITHOUT_VENV has no venv module: apt install python3-venv (or install uv), then run this again"
    else
        fail "no Python >= 3.12 found (looked for python3.13, python3.12, python3, pyenv and uv): install Python 3.12 or uv"
    fi
    python_runs "$VENV_PYTHON" || fail "the Python in .venv does not run"
    echo "python $PYTHON_VERSION $PWD" >"$STAMP"
}

install_lock() {
    local wanted=$1 profile
    # The claims about locks go before the first package moves: an install that is cut short is done again.
    echo "python $PYTHON_VERSION $PWD" >"$STAMP"
    # The lock is complete, so pip need not resolve anything; pip before 24 also stumbles over extras with hashes.
    run_quietly "$VENV_PYTHON" -m pip install --quiet --disable-pip-version-check --no-input --no-deps \
        --require-hashes -r "$(lock_file "$wanted")" \
        || fail "could not install $(lock_file "$wanted") into .venv (pip's words are above)"
    for profile in $(locks_within "$wanted"); do
        lock_line "$profile" >>"$STAMP"
    done
}

# mkdir makes the folder for exactly one of several runs at once (flock is missing on macOS). A folder whose owner
# died, or did not write its number within a minute, is taken over; that happens under a second folder, so that two
# runs cannot take over one after the other and remove each other's lock.
lock_environment() {
    local waited_s=0
    until mkdir "$LOCK_FOLDER" 2>/dev/null; do
        [ -d "$LOCK_FOLDER" ] || [ -w . ] || fail "cannot write in $PWD"
        if lock_is_stale && mkdir "$LOCK_FOLDER.takeover" 2>/dev/null; then
            if lock_is_stale; then rm -rf "$LOCK_FOLDER"; fi
            rmdir "$LOCK_FOLDER.takeover"
            continue
        fi
        [ "$waited_s" -ne 0 ] || echo "Another run is preparing .venv, waiting for it ..." >&2
        [ "$waited_s" -lt "$LOCK_WAIT_S" ] || fail "waited $LOCK_WAIT_S s for another run to finish .venv; remove $LOCK_FOLDER if there is none"
        sleep 1
        waited_s=$((waited_s + 1))
    done
    trap unlock_environment EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    echo "$$" >"$LOCK_FOLDER/pid"
}

lock_is_stale() {
    local owner
    # A takeover that was itself cut short would stop all later ones.
    find "$LOCK_FOLDER.takeover" -prune -type d -mmin +1 -exec rmdir {} \; 2>/dev/null || true
    if owner=$(cat "$LOCK_FOLDER/pid" 2>/dev/null) && [ -n "$owner" ]; then
        ! kill -0 "$owner" 2>/dev/null
    else
        [ -n "$(find "$LOCK_FOLDER" -prune -type d -mmin +1 2>/dev/null)" ]
    fi
}

unlock_environment() {
    rm -rf "$LOCK_FOLDER"
}

# Leaves a .venv that holds all of the given lock (runtime, demo or dev), or ends the script with one clear line.
prepare_environment() {
    local wanted=$1
    if environment_is_ready "$wanted"; then return; fi
    lock_environment
    # Whoever held the lock before may have done the work.
    if ! environment_is_ready "$wanted"; then
        if environment_is_whole; then
            echo "Installing dependencies into .venv ..." >&2
        else
            make_environment
            echo "Installing dependencies into .venv (first run, about a minute) ..." >&2
        fi
        install_lock "$wanted"
    fi
    unlock_environment
    trap - EXIT INT TERM
}
