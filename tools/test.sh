#!/usr/bin/env bash
# Everything CI checks: style, types, tests of the installed wheel, and the kernels' tests under
# sanitizers. Arguments go to pytest and leave out the sanitizers, as SKIP_SANITIZE=1 does.
#
#   bash tools/test.sh [-k NAME] [-m "not slow"] ...
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
bash tools/setup.sh || exit 1
bin=${AVATAR3D_VENV:-$root/.venv}/bin

failed=()
skipped=()
check() {
    local name=$1 status=0
    shift
    printf '\n== %s ==\n' "$name"
    "$@" || status=$?
    if ((status == 77)); then
        skipped+=("$name")
    elif ((status)); then
        failed+=("$name")
    fi
}

check "ruff check" "$bin/ruff" check .
check "ruff format" "$bin/ruff" format --check .
check "mypy" "$bin/mypy"
check "pytest" "$bin/pytest" --durations=15 "$@"
if (($#)) || [[ -n ${SKIP_SANITIZE:-} ]]; then
    skipped+=("sanitizers")
else
    check "sanitizers" bash tools/sanitize.sh
fi

printf '\n'
if ((${#skipped[@]})); then printf 'Skipped: %s\n' "$(IFS=,; echo "${skipped[*]}")"; fi
if ((${#failed[@]})); then
    printf 'FAILED after %d s: %s\n' "$SECONDS" "$(IFS=,; echo "${failed[*]}")"
    exit 1
fi
printf 'All checks passed in %d s.\n' "$SECONDS"
