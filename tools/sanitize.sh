#!/usr/bin/env bash
# The kernel tests under the address and undefined-behaviour sanitizers, the thread pool under the
# thread sanitizer, and all native code compiled without a warning, for ARM too where that is
# possible. Arguments go to pytest.
#
#   bash tools/sanitize.sh [-k NAME] ...
#
# AVATAR3D_VENV   the environment that tools/setup.sh made (default: .venv beside this folder)
# CXX             the compiler (default: g++, otherwise c++)
#
# Ends with 77 where nothing could be checked because the compiler has no sanitizers.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
bin=$(cd "${AVATAR3D_VENV:-$root/.venv}/bin" && pwd)
build=$root/build/sanitize
cxx=${CXX:-$(command -v g++ || command -v c++ || true)}
mkdir -p "$build"

skip() {
    printf 'sanitize: SKIPPED, %s\n' "$1"
}

# has FLAG...: can the compiler build a program that runs with these flags?
has() {
    echo 'int main() { return 0; }' >"$build/probe.cpp"
    "$cxx" "$@" "$build/probe.cpp" -o "$build/probe" >/dev/null 2>&1 && "$build/probe"
}

# The thread sanitizer of older compilers cannot start where addresses are very random.
fixed_addresses=()
if setarch -R true 2>/dev/null; then fixed_addresses=(setarch -R); fi

check_pool() {
    local program=$build/thread_pool_stress
    "$cxx" -std=c++17 -O1 -g -fsanitize=thread -Wall -Wextra -Werror -pthread -Icuda/cpu -Icuda/include \
        tests/kernels/thread_pool_stress.cpp cuda/cpu/thread_pool.cpp -o "$program" 2>"$program.log" ||
        {
            if grep -q tsan "$program.log"; then
                skip "$cxx has no thread sanitizer"
                return 0
            fi
            cat "$program.log"
            return 1
        }
    if ! "${fixed_addresses[@]}" "$program" >"$program.log" 2>&1; then
        if grep -q 'unexpected memory mapping' "$program.log"; then
            skip "the thread sanitizer does not run on this kernel"
            return 0
        fi
        cat "$program.log"
        return 1
    fi
    printf 'sanitize: the thread pool is free of data races\n'
}

# The plain build is what ARM gets.
check_arm() {
    local cross
    cross=$(command -v aarch64-linux-gnu-g++ || true)
    if [[ -z $cross ]]; then
        skip "no aarch64-linux-gnu-g++, so the ARM build was not compiled"
        return 0
    fi
    "$cross" -std=c++17 -O2 -Wall -Wextra -Werror -DA3D_SIMD=0 -Icuda/cpu -Icuda/include \
        -c cuda/cpu/kernels.cpp -o "$build/kernels_arm.o" &&
        printf 'sanitize: the plain kernels compile for ARM\n'
}

# A copy of the package with the instrumented module in place of the other.
make_package() {
    local flags="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
    flags+=" -O1 -g1 -Werror -DA3D_ADDRESS_SANITIZER"
    PATH=$bin:$PATH cmake -S cuda -B "$build/native" -G Ninja -DCMAKE_BUILD_TYPE=None \
        -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_CXX_FLAGS="$flags" \
        -DPython_EXECUTABLE="$bin/python" >"$build/native.log" 2>&1 &&
        PATH=$bin:$PATH cmake --build "$build/native" >>"$build/native.log" 2>&1 ||
        {
            tail -n 40 "$build/native.log"
            return 1
        }
    rm -rf "$build/package"
    mkdir -p "$build/package"
    cp -r avatar3d "$build/package/"
    cp -r conf "$build/package/avatar3d/"
    rm -f "$build"/package/avatar3d/kernels/_native*
    cp "$build"/native/_native*.so "$build/package/avatar3d/kernels/"
}

# Left out are tests that run no native kernel: of the CUDA sources and of torch's compiler.
check_memory() {
    local name library libraries=
    for name in libasan.so libstdc++.so; do
        library=$("$cxx" -print-file-name=$name)
        if [[ ! -e $library ]]; then
            skip "$cxx has no shared $name that Python could load"
            return 77
        fi
        libraries+=$(realpath "$library"):
    done
    make_package || return 1
    rm -f "$build"/report*
    # Python itself keeps memory until the end, so leaks are not looked for; see test_memory.py.
    env LD_PRELOAD="$libraries" PYTHONPATH="$build/package" PYTHONSAFEPATH=1 OMP_NUM_THREADS=2 \
        ASAN_OPTIONS=detect_leaks=0:log_path="$build/report" AVATAR3D_SANITIZED=1 \
        UBSAN_OPTIONS=print_stacktrace=1:log_path="$build/report" \
        "$bin/python" -X faulthandler -m pytest -q -p no:cacheprovider tests/kernels \
        --ignore-glob='*test_cuda*' --ignore-glob='*test_operators*' --durations=5 "$@" && return 0
    for report in "$build"/report*; do [[ ! -e $report ]] || head -n 60 "$report"; done
    return 1
}

failed=()
check_arm || failed+=("ARM build")
if [[ -z $cxx ]] || ! has -fsanitize=address,undefined; then
    skip "no compiler with -fsanitize=address,undefined (Debian: apt-get install g++)"
    exit 77
fi
check_pool || failed+=("thread pool")
status=0
check_memory "$@" || status=$?
if ((status && status != 77)); then failed+=("kernel tests"); fi
if ((${#failed[@]})); then
    printf 'sanitize: FAILED after %d s: %s\n' "$SECONDS" "$(IFS=,; echo "${failed[*]}")"
    exit 1
fi
((status == 0)) || exit 77
printf 'sanitize: clean in %d s\n' "$SECONDS"
