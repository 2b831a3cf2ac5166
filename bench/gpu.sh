#!/usr/bin/env bash
# Builds Facet with its CUDA backend on a machine with a GPU, runs the GPU tests there, and prints a short table.
#   bench/gpu.sh [RESULTS_FILE]
# FACET_DEPS=folder: unpacked Debian packages (libjansson-dev, libcmocka-dev, libedit-dev and their libraries) where they are not installed.
# FACET_SHARED=folder: the reference set. Exits non-zero when a test fails.
set -u
cd "$(dirname "$0")/.." || exit 2
results=${1:-/dev/null}
if [ -n "${FACET_DEPS:-}" ]; then
    deps=$(cd "$FACET_DEPS" && pwd)
    export PKG_CONFIG_PATH=$deps/usr/lib/x86_64-linux-gnu/pkgconfig PKG_CONFIG_SYSROOT_DIR=$deps
    export LD_LIBRARY_PATH=$deps/usr/lib/x86_64-linux-gnu:$deps/lib/x86_64-linux-gnu:${LD_LIBRARY_PATH:-}
    export LIBRARY_PATH=$deps/usr/lib/x86_64-linux-gnu:$deps/lib/x86_64-linux-gnu:${LIBRARY_PATH:-} CPATH=$deps/usr/include
fi
arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
cmake -S . -B build-gpu -DFACET_CUDA=ON -DFACET_CUDA_ARCHS="$arch-real" >build-gpu.log 2>&1 || { tail -20 build-gpu.log; exit 1; }
cmake --build build-gpu -j "$(nproc)" >>build-gpu.log 2>&1 || { grep -E 'error|undefined' build-gpu.log | head -20; exit 1; }
failed=0
{
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    build-gpu/facet --version
    for test in test_cuda_ops test_goldens test_peer; do
        [ -x "build-gpu/tests/$test" ] || continue
        start=$(date +%s)
        if FACET_TEST_DEVICE=cuda timeout 300 "build-gpu/tests/$test" >"$test.log" 2>&1; then verdict=passed; else verdict=FAILED; failed=1; grep -iE 'error|fail|not ' "$test.log" | head -30; fi
        printf '%-16s %s, %s s\n' "$test" "$verdict" $(($(date +%s) - start))
    done
    build-gpu/facet run --device cuda --chat "What is 82 - 61?" --json
} 2>&1 | tee "$results"
exit "$failed"
