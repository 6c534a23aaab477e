#!/usr/bin/env bash
# All checks of the project, called by `./run_gateway.sh test` with .venv/bin first on PATH. Needs bash 3.2.
# Every check runs even when an earlier one failed; the last lines say which failed, and the exit code is 1 then.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# The tests start some hundred Python processes, and each of them would compile our modules anew.
unset PYTHONDONTWRITEBYTECODE

# The one place of the thresholds, in per cent of the lines.
COVERAGE_WHOLE=95
COVERAGE_CORE=100
PYTEST_PROCESSES=2

audit=no
only_paths=no
pytest_arguments=()
for argument in "$@"; do
    case $argument in
        --long) export GATEWAY_TEST_LONG=1 ;;
        --audit) audit=yes ;;
        *)
            pytest_arguments+=("$argument")
            # tests/core or tests/core/life/test_session.py::test_name
            if [ -e "${argument%%::*}" ]; then only_paths=yes; fi
            ;;
    esac
done

if [ "$only_paths" = yes ]; then
    exec python -m pytest "${pytest_arguments[@]}"
fi

failed=()
check() {
    local name=$1
    shift
    echo "== $name"
    if ! "$@"; then failed+=("$name"); fi
}

existing() {
    local path
    for path in "$@"; do
        if [ -e "$path" ]; then printf '%s\n' "$path"; fi
    done
}

check ruff ruff check .
check "ruff format" ruff format --check .
# shellcheck disable=SC2046 # these names have no spaces
check mypy mypy $(existing addons simulators agent model_sync container benchmarks scripts tests)
check lint-imports env PYTHONPATH=addons:. lint-imports --no-logo --cache-dir .import_linter_cache
# shellcheck disable=SC2046
check shellcheck shellcheck --external-sources run_gateway.sh scripts/*.sh .ci/run \
    $(find container agent model_sync -name '*.sh' 2>/dev/null)
if [ -f container/Dockerfile ]; then
    check hadolint hadolint container/Dockerfile container/gateway.Dockerfile
fi
if [ "$audit" = yes ]; then
    check pip-audit pip-audit --require-hashes --disable-pip -r requirements.lock
fi

if [ "${GATEWAY_COVERAGE:-on}" = off ]; then
    check pytest python -m pytest -n "$PYTEST_PROCESSES" ${pytest_arguments[@]+"${pytest_arguments[@]}"}
else
    check pytest python -m pytest -n "$PYTEST_PROCESSES" --cov --cov-report= \
        ${pytest_arguments[@]+"${pytest_arguments[@]}"}
    # A selection of tests cannot reach the thresholds.
    if [ "${#pytest_arguments[@]}" -eq 0 ]; then
        check "coverage of core (${COVERAGE_CORE} %)" coverage report --include='addons/comfy_gateway/core/*' \
            --fail-under="$COVERAGE_CORE"
        check "coverage of the whole (${COVERAGE_WHOLE} %)" coverage report --skip-covered --fail-under="$COVERAGE_WHOLE"
    fi
fi

echo
if [ "${#failed[@]}" -ne 0 ]; then
    printf 'FAILED: %s\n' "${failed[@]}"
    exit 1
fi
echo "All checks passed."
