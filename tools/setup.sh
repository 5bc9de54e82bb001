#!/usr/bin/env bash
# Makes the environment of the project, or brings it up to date; quick when nothing has changed.
#
#   bash tools/setup.sh
#
# AVATAR3D_VENV    where the environment goes (default: .venv beside this folder)
# AVATAR3D_PYTHON  the Python to make it with (default: the first suitable one found)
#
# The package is installed as a wheel, not linked to this tree, so that what is run and tested is
# what a user gets.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${AVATAR3D_VENV:-$root/.venv}
python=$venv/bin/python
cd "$root"

fail() {
    printf 'setup: %s\n' "$1" >&2
    exit 1
}

# suitable PYTHON FIRST LAST: is it a Python 3.FIRST to 3.LAST that runs?
suitable() {
    "$1" -c "import sys; sys.exit(not ((3, $2) <= sys.version_info[:2] <= (3, $3)))" >/dev/null 2>&1
}

# What this Python lacks for making environments and compiling modules, as Debian packages.
lacking() {
    "$1" - <<'PY'
import importlib.util, pathlib, sys, sysconfig

name = f"python3.{sys.version_info.minor}"
if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
    print(f"{name}-venv")
if not pathlib.Path(sysconfig.get_path("include"), "Python.h").is_file():
    print(f"{name}-dev")
PY
    command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || echo g++
}

# 3.11 and 3.12 come first: the capture models ship inside a wheel that ends there. A complete
# Python is taken before one that lacks something.
find_python() {
    local first candidate incomplete=
    local candidates=(python3 python3.12 python3.11 python3.14 python3.13
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[1-4]*/bin/python3)
    [[ -z ${AVATAR3D_PYTHON:-} ]] || candidates=("$AVATAR3D_PYTHON")
    for first in 11 13; do
        for candidate in "${candidates[@]}"; do
            suitable "$candidate" "$first" $((first + 1)) || continue
            if [[ -z $(lacking "$candidate") ]]; then
                printf '%s\n' "$candidate"
                return
            fi
            incomplete=${incomplete:-$candidate}
        done
    done
    [[ -n $incomplete ]] || fail "no Python 3.11 to 3.14 found; install one, or name it with \
AVATAR3D_PYTHON=/path/to/python3."
    complete "$incomplete"
    printf '%s\n' "$incomplete"
}

# Install what a Python lacks where we may, otherwise say how.
complete() {
    local packages
    mapfile -t packages < <(lacking "$1")
    local command="apt-get install --yes --no-install-recommends ${packages[*]}"
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        fail "$1 cannot build avatar3d without ${packages[*]}; on Debian and Ubuntu: sudo $command"
    fi
    printf 'setup: %s\n' "$command" >&2
    { apt-get update && DEBIAN_FRONTEND=noninteractive $command; } </dev/null >/dev/null ||
        fail "apt-get could not install ${packages[*]}; its words are above."
}

# A hash over the names and contents of the given files and folders.
digest() {
    "$python" - "$@" <<'PY'
import hashlib, pathlib, sys

digest = hashlib.sha256(sys.version.encode())
for argument in sys.argv[1:]:
    path = pathlib.Path(argument)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".so":
            digest.update(f"{file}\0".encode() + file.read_bytes() + b"\0")
print(digest.hexdigest())
PY
}

# Run quietly; show the end of what was said if it fails.
quietly() {
    local log=$venv/setup.log
    "$@" >"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "failed: $* (all of it: $log)"; }
}

pip() {
    quietly "$python" -m pip --disable-pip-version-check --no-input "$@"
}

# The build tools come from the environment too, and objects are kept for the next build.
build=(--no-build-isolation --config-settings=build-dir="$venv/build")

if ! "$python" -c 'import pip' >/dev/null 2>&1; then
    found=$(find_python)
    printf 'setup: making %s with %s\n' "$venv" "$("$found" --version)" >&2
    rm -rf "$venv"
    "$found" -m venv "$venv" || fail "could not make $venv; is there space and permission?"
fi

wanted=$(digest pyproject.toml tools/constraints.txt)
if [[ $(cat "$venv/dependencies.stamp" 2>/dev/null) != "$wanted" ]]; then
    printf 'setup: installing dependencies (a few minutes the first time)\n' >&2
    rm -f "$venv"/*.stamp
    pip install -c tools/constraints.txt nanobind scikit-build-core cmake ninja setuptools
    pip install -c tools/constraints.txt "${build[@]}" ".[all]"
    printf '%s\n' "$wanted" >"$venv/dependencies.stamp"
fi

# mediapipe asks for the OpenCV build that needs libGL and glib; bare machines have neither, and
# the headless build of the same version brings the same module.
if ! "$python" -c 'import cv2' >/dev/null 2>&1; then
    version=$("$python" -m pip list --format=freeze |
        awk -F== '/^opencv-contrib-python/ { found = $2 } END { print found }')
    printf 'setup: no libGL here, taking the headless OpenCV %s\n' "$version" >&2
    pip uninstall --yes opencv-contrib-python
    pip install --no-deps --force-reinstall "opencv-contrib-python-headless==$version"
    "$python" -c 'import cv2' || fail "OpenCV does not load; the error above says why."
fi

wanted=$wanted-$(digest avatar3d conf cuda README.md LICENSE)
if [[ $(cat "$venv/package.stamp" 2>/dev/null) != "$wanted" ]]; then
    printf 'setup: building and installing avatar3d\n' >&2
    pip install --no-deps --force-reinstall "${build[@]}" .
    printf '%s\n' "$wanted" >"$venv/package.stamp"
fi
