# shellcheck shell=bash
# Finds a Python >= 3.12 that really runs and can make an environment. Sourced by run_gateway.sh; needs bash 3.2.

# Sets PYTHON_VERSION to "3.12.1" when $1 runs and is >= 3.12. A pyenv shim may exist and fail; macOS's own python3 is too
# old for us and asks to install the developer tools when it is called, so it is not.
python_runs() {
    case "$(uname -s):$1" in
        Darwin:/usr/bin/python3) return 1 ;;
    esac
    PYTHON_VERSION=$("$1" -c 'import sys
if sys.version_info < (3, 12): sys.exit(1)
print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null </dev/null) || return 1
    [ -n "$PYTHON_VERSION" ]
}

# Debian's python3 comes without ensurepip until python3-venv is installed.
python_makes_environments() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1 </dev/null
}

# Takes $1 into PYTHON when it is good; "tested" as $2 wants 3.12 or 3.13. Remembers one that only lacks venv.
try_python() {
    local candidate=$1
    python_runs "$candidate" || return 1
    if [ "${2:-}" = tested ]; then
        case $PYTHON_VERSION in
            3.12.* | 3.13.*) ;;
            *) return 1 ;;
        esac
    fi
    if python_makes_environments "$candidate"; then
        PYTHON=$candidate
        return 0
    fi
    [ -n "$PYTHON_WITHOUT_VENV" ] || PYTHON_WITHOUT_VENV=$candidate
    return 1
}

# Sets PYTHON to the path of a Python >= 3.12 with venv, or to "" where there is none; then PYTHON_WITHOUT_VENV is one
# that lacks only venv, or "". Versions 3.13 and 3.12 are the tested ones; a newer one is taken only where $1 is "newer".
find_python() {
    local name candidate
    # shellcheck disable=SC2034 # environment.sh reads it
    PYTHON=
    PYTHON_WITHOUT_VENV=
    if [ "${1:-}" = newer ]; then
        for name in python3 python3.14; do
            if candidate=$(command -v "$name") && try_python "$candidate"; then return 0; fi
        done
        return 1
    fi
    for name in python3.13 python3.12 python3; do
        if candidate=$(command -v "$name") && try_python "$candidate" tested; then return 0; fi
    done
    for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python; do
        if [ -x "$candidate" ] && try_python "$candidate" tested; then return 0; fi
    done
    return 1
}
