#!/usr/bin/env bash
# Builds the native kernels in place, for running from a checkout: bash tools/build_native.sh
# PYTHON chooses the interpreter; it needs nanobind.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
generator=()
if command -v ninja >/dev/null; then generator=(-G Ninja); fi
cmake -S cuda -B build/native "${generator[@]}" -DCMAKE_BUILD_TYPE=Release \
  -DPython_EXECUTABLE="$(command -v "$python")"
cmake --build build/native --parallel
for module in build/native/_native*.so build/native/_native*.pyd; do
  [ -e "$module" ] || continue
  # Replaced, not overwritten: a running process keeps the file it has mapped.
  cp "$module" "avatar3d/kernels/.${module##*/}.new"
  mv -f "avatar3d/kernels/.${module##*/}.new" "avatar3d/kernels/${module##*/}"
  echo "avatar3d/kernels/${module##*/}"
done
