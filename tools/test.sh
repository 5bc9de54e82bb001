#!/usr/bin/env bash
# Everything CI checks: style, types, tests of the installed wheel, and the kernels' tests under
# sanitizers. Arguments go to pytest and leave out the sanitizers, as SKIP_SANITIZE=1 does. As root
# it installs Chromium for the tests of the viewer where there is none, unless SKIP_BROWSER=1.
#
#   bash tools/test.sh [-k NAME] [-m "not slow"] ...
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
bash tools/setup.sh || exit 1
bin=${AVATAR3D_VENV:-$root/.venv}/bin

# The viewer's tests need a browser, and skip without one: where we may, there is one.
browser() {
    command -v chromium chromium-browser google-chrome chrome >/dev/null && return
    [[ $(id -u) == 0 && -z ${SKIP_BROWSER:-} ]] && command -v apt-get >/dev/null || return 0
    local command="apt-get install --yes --no-install-recommends chromium"
    printf 'test: %s (SKIP_BROWSER=1 leaves it out)\n' "$command"
    {
        timeout 120 apt-get update &&
            DEBIAN_FRONTEND=noninteractive timeout 600 $command
    } </dev/null >/dev/null 2>&1 || printf 'test: it failed; tests in a browser will be skipped\n'
}
browser

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
