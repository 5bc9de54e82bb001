#!/usr/bin/env bash
# Tests and times the CUDA road on a machine with an NVIDIA GPU. Nothing is installed or fetched:
# what the Python lacks is done without, and the summary says so.
#
#   bash tools/gpu_check.sh [FOLDER]
#
# FOLDER  for the logs, the benchmark's JSON and summary.txt (default: build/gpu_check)
# PYTHON  an interpreter with a CUDA build of torch, and pytest (default: python3)
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "${1:-$root/build/gpu_check}" || exit 2
output=$(cd "${1:-$root/build/gpu_check}" && pwd)
python=$(command -v "${PYTHON:-python3}") || { echo "gpu_check: there is no ${PYTHON:-python3}" >&2; exit 2; }
cd "$root" || exit 2
export PATH="$(dirname "$python"):$PATH" PYTHONPATH="$root" PYTHONUNBUFFERED=1
failed=()

if ! "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu_check: the torch of $python sees no CUDA GPU; name another interpreter with PYTHON." >&2
    exit 2
fi

# The CPU's kernels are what the rasteriser falls back on without gsplat; they can be built offline.
native() { "$python" -c 'import avatar3d.kernels._native' 2>/dev/null; }
cpu="native kernels"
if ! native; then
    if "$python" -c 'import nanobind' 2>/dev/null && command -v cmake >/dev/null; then
        PYTHON=$python bash tools/build_native.sh >"$output/build.log" 2>&1
    fi
    native || cpu="torch reference: the native kernels could not be built (needs nanobind, cmake, a C++ compiler)"
fi

# The conftest of all tests is left out, as it needs packages that have no part in this.
printf '== tests marked cuda ==\n'
"$python" -m pytest -m cuda tests/kernels --confcutdir=tests/kernels -W default \
    -p no:cacheprovider --junitxml="$output/tests.xml" 2>&1 | tee "$output/tests.log"
((PIPESTATUS[0] == 0)) || failed+=(tests)

printf '\n== benchmarks ==\n'
"$python" tools/bench.py kernels --device cuda --json "$output/bench.json" 2>&1 |
    tee "$output/bench.log"
((PIPESTATUS[0] == 0)) || failed+=(benchmarks)

printf '\n'
CPU=$cpu FAILED="${failed[*]:-}" "$python" - "$output" <<'PY' | tee "$output/summary.txt"
import os, pathlib, sys
from xml.etree import ElementTree

import torch
from avatar3d.kernels import gsplat_backend
from avatar3d.kernels.cuda import report

output, cuda = pathlib.Path(sys.argv[1]), report()
print("== summary ==")
print(f"GPU         {cuda['device']} ({cuda['architecture']}), driver {cuda['driver'] or 'unknown'}")
print(f"torch       {torch.__version__}, CUDA {torch.version.cuda}")
compiled = f"NVRTC {cuda['nvrtc']} through cuda-core {cuda['cuda_core']}"
print(f"kernels     {'torch reference: ' + cuda['unusable'] if cuda['unusable'] else compiled}")
reason = gsplat_backend.unusable()
print(f"rasteriser  {'not gsplat: ' + reason if reason else 'gsplat'}")
print(f"CPU         {os.environ['CPU']}")
try:
    suite = next(ElementTree.parse(output / "tests.xml").iter("testsuite")).attrib
    bad = int(suite["failures"]) + int(suite["errors"])
    good = int(suite["tests"]) - bad - int(suite["skipped"])
    print(f"tests       {good} passed, {bad} failed, {suite['skipped']} skipped: tests.log")
except (OSError, StopIteration, ElementTree.ParseError):
    print("tests       did not run: tests.log")
there = (output / "bench.json").is_file()
print(f"benchmarks  {'bench.json' if there else 'did not finish: bench.log'}")
print(f"FAILED: {os.environ['FAILED']}" if os.environ["FAILED"] else "All is well.", f"({output})")
PY
((${#failed[@]} == 0))
