#!/usr/bin/env bash
# Everything CI checks: style, types, tests of the installed wheel. Arguments go to pytest.
#
#   bash tools/test.sh [-k NAME] [-m "not slow"] ...
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
bash tools/setup.sh || exit 1
bin=${AVATAR3D_VENV:-$root/.venv}/bin

failed=()
check() {
    local name=$1
    shift
    printf '\n== %s ==\n' "$name"
    "$@" || failed+=("$name")
}

check "ruff check" "$bin/ruff" check .
check "ruff format" "$bin/ruff" format --check .
check "mypy" "$bin/mypy"
check "pytest" "$bin/pytest" --durations=15 "$@"

printf '\n'
if ((${#failed[@]})); then
    printf 'FAILED after %d s: %s\n' "$SECONDS" "$(IFS=,; echo "${failed[*]}")"
    exit 1
fi
printf 'All checks passed in %d s.\n' "$SECONDS"
