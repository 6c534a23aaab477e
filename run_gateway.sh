#!/usr/bin/env bash
# The one door to the project: makes or refreshes .venv, then runs a command in it. See ./run_gateway.sh --help.
# Written for bash 3.2, which is what macOS has: no associative arrays, no mapfile, no ${x,,}.
set -euo pipefail

# The folder of this file, also when it is called through a link (readlink -f is missing on older macOS).
door=${BASH_SOURCE[0]}
while [ -L "$door" ]; do
    target=$(readlink "$door")
    case $target in
        /*) door=$target ;;
        *) door=$(dirname "$door")/$target ;;
    esac
done
ROOT=$(cd "$(dirname "$door")" && pwd -P)
cd "$ROOT"

# shellcheck source=scripts/find_python.sh
. scripts/find_python.sh
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

help() {
    case $1 in
        serve) cat <<'TEXT' ;;
usage: ./run_gateway.sh [serve] [--reload] [arguments for mitmdump]

Runs the gateway in the foreground until Ctrl-C or SIGTERM (10 s at most). Settings come from the environment, .env
and config/gateway.yaml; DUTY_POD_URL is the one that has no default. Wrong settings: one line each, exit code 2.

  --reload   start again whenever addons/, config/ or .env changes (must come first)
TEXT
        web) cat <<'TEXT' ;;
usage: ./run_gateway.sh web [arguments for mitmweb]

The gateway with mitmweb: every flow can be looked at in a browser. mitmweb prints its address (port 8081).
TEXT
        demo) cat <<'TEXT' ;;
usage: ./run_gateway.sh demo [--script] [--port PORT] [--api sdk|v2]

The gateway with a simulated ComfyUI and a simulated RunPod. Nothing to configure, nothing is bought. It prints three
lines to copy, which take a user through burst, move and reaping in under a minute, and tells what happens.

  --script   do the three steps by itself, then end: exit code 0 when they worked
  --port     where the gateway listens; PORT says it too, otherwise 8000
  --api      how the simulated RunPod is spoken to: sdk, or v2 for its REST API
TEXT
        doctor) cat <<'TEXT' ;;
usage: ./run_gateway.sh doctor [--json] [--launch [--yes]]

Looks at Python, dependencies, settings, the shared ComfyUI and RunPod: one line each. Exit code 1 when something is wrong.

  --json     the same as one JSON object a line
  --launch   then buy one pod on your account, look at it and end it, also after Ctrl-C. It says the price and asks first
  --yes      with --launch: do not ask
TEXT
        user) cat <<'TEXT' ;;
usage: ./run_gateway.sh user add NAME [--operator]
       ./run_gateway.sh user list
       ./run_gateway.sh user remove NAME

The people who may sign in with AUTH_MODE=tokens, kept in config/users.yaml (AUTH_USERS_FILE). A running gateway notices
within seconds. docs/signin.md tells the rest.

  add        add somebody and print the token, once; it is kept nowhere
  --operator may see the operator's pages below /gateway/
TEXT
        costs) cat <<'TEXT' ;;
usage: ./run_gateway.sh costs [--since DAY] [--by user|day|pod] [--csv]

What private pods have cost, failed starts included, as far as RunPod has told their prices. Days are those of UTC.

  --since    from this day on, such as 2026-11-01; 30 days ago when not given
  --by       one line for each user (the default), day or pod
  --csv      comma separated, for a spreadsheet
TEXT
        test) cat <<'TEXT' ;;
usage: ./run_gateway.sh test [--long] [--audit] [paths] [arguments for pytest]

Runs ruff, mypy, import-linter, shellcheck, hadolint and the quick tests, and checks the coverage.

  --long     the long tests as well
  --audit    ask pip-audit for known holes in the locked packages as well (needs the network)
  paths      run only pytest, on these paths: ./run_gateway.sh test tests/core

GATEWAY_COVERAGE=off runs the tests without measuring coverage. GATEWAY_REQUIRE_ALL=1 fails a test where it would be
skipped because a program (Chromium, PostgreSQL, nginx, Caddy) is not installed.
TEXT
        bench) cat <<'TEXT' ;;
usage: ./run_gateway.sh bench [--quick] [--page URL] [--report FILE]

Measures the gateway on this machine beside bare mitmdump, a FastAPI proxy, nginx and, where it is installed,
configurable-http-proxy. Needs wrk and nginx.

  --quick    2 rounds of 3 s instead of 5 of 6 s: about 5 minutes instead of 20
  --page     page loads of the ComfyUI at that address, in Chromium, instead of the rest
  --report   write the tables there as well, as Markdown
TEXT
        *) cat <<'TEXT' ;;
usage: ./run_gateway.sh [command] [arguments]

New here?
  ./run_gateway.sh demo      see it work: everything is simulated, nothing to configure
  ./run_gateway.sh doctor    see what is missing before the first serve

Commands (the first run makes .venv):
  serve    run the gateway (the default); --reload starts it again on changes
  web      run the gateway with mitmweb, to look at the traffic
  demo     run the gateway with a simulated ComfyUI and a simulated RunPod
  doctor   check Python, dependencies, settings and connections
  user     add, list and remove people who sign in by a token
  costs    what private pods have cost, by user, day or pod
  test     run the linters and the quick tests; --long runs all tests
  bench    measure the gateway

./run_gateway.sh COMMAND --help tells more. Paths are relative to the project's folder.
TEXT
    esac
}

# The addon sets listen address, lazy connections and the rest itself. The placeholder is dead on purpose: only the
# router names a destination, so a request that it did not route goes nowhere.
mitmproxy_arguments=(--mode reverse:http://127.0.0.1:9 -s addons/gateway.py)

# Faults end the command here. The addon itself would move the listener to this address, but only after mitmproxy had
# opened its own default.
listen_where_settings_say() {
    local listen host port
    listen=$(PYTHONPATH=addons "$VENV_PYTHON" -m comfy_gateway.settings --listen) || exit $?
    { read -r host && read -r port; } <<<"$listen"
    mitmproxy_arguments+=(--listen-host "$host" --listen-port "$port")
}

serve() {
    prepare_environment runtime
    listen_where_settings_say
    if [ "${1:-}" = --reload ]; then
        shift
        exec "$VENV_PYTHON" scripts/serve_with_reload.py "$VENV_BIN/mitmdump" "${mitmproxy_arguments[@]}" \
            --set flow_detail=0 --set termlog_verbosity=info "$@"
    fi
    exec "$VENV_BIN/mitmdump" "${mitmproxy_arguments[@]}" --set flow_detail=0 --set termlog_verbosity=info "$@"
}

web() {
    prepare_environment runtime
    listen_where_settings_say
    exec "$VENV_BIN/mitmweb" "${mitmproxy_arguments[@]}" --set web_open_browser=false "$@"
}

demo() {
    prepare_environment demo
    PYTHONPATH="$ROOT/addons:$ROOT" exec "$VENV_PYTHON" -m simulators.demo "$@"
}

doctor() {
    prepare_environment runtime
    PYTHONPATH="$ROOT/addons:$ROOT" exec "$VENV_PYTHON" -m comfy_gateway.doctor "$@"
}

user() {
    prepare_environment runtime
    PYTHONPATH="$ROOT/addons:$ROOT" exec "$VENV_PYTHON" -m comfy_gateway.accounts "$@"
}

costs() {
    prepare_environment runtime
    PYTHONPATH="$ROOT/addons:$ROOT" exec "$VENV_PYTHON" -m comfy_gateway.costs "$@"
}

run_tests() {
    prepare_environment dev
    PATH="$ROOT/$VENV_BIN:$PATH" exec bash scripts/check.sh "$@"
}

bench() {
    if [ ! -d benchmarks ]; then
        echo "run_gateway.sh: there are no benchmarks in this checkout (no folder benchmarks/)" >&2
        exit 1
    fi
    prepare_environment dev
    PYTHONPATH="$ROOT/addons:$ROOT" exec "$VENV_PYTHON" -m benchmarks "$@"
}

command=serve
case ${1:-} in
    '' | --reload) ;;
    -h | --help | help)
        help overview
        exit 0
        ;;
    -*) ;; # options alone are meant for serve
    *)
        command=$1
        shift
        ;;
esac

case $command in
    serve | web | demo | doctor | user | costs | test | bench) ;;
    *)
        echo "run_gateway.sh: unknown command '$command'; ./run_gateway.sh --help lists the commands" >&2
        exit 2
        ;;
esac

case ${1:-} in
    -h | --help)
        help "$command"
        exit 0
        ;;
esac

case $command in
    test) run_tests "$@" ;;
    *) "$command" "$@" ;;
esac
