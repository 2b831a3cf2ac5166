#!/usr/bin/env bash
# Builds Facet with its CUDA backend on a machine with an NVIDIA card and runs what needs one: the op tests, then the
# goldens with --device cuda. Prints one line per test; exits non-zero when one fails or was skipped.
#
#   bench/gpu.sh [RESULTS]             RESULTS: a file for the same table; full logs stand beside it as RESULTS.log
#
# Needs nvcc, cmake and gcc; no network. Environment:
#   FACET_BUILD=build-gpu              build folder
#   FACET_DEPS=FOLDER                  where libjansson, libcmocka and libedit are not installed: a folder that holds the
#                                      unpacked Debian packages (usr/include, usr/lib/x86_64-linux-gnu). To make one:
#       apt-get download libjansson-dev libjansson4 libcmocka-dev libcmocka0 libedit-dev libedit2 libbsd0 libmd0
#       for deb in *.deb; do dpkg -x "$deb" FOLDER; done
#   FACET_SHARED=FOLDER                the reference set of the goldens
#   FACET_SANITIZER="memcheck ..."     tools of compute-sanitizer to run the op tests under as well (slow)
set -u
cd "$(dirname "$0")/.." || exit 2
build=${FACET_BUILD:-build-gpu}
results=${1:-}
table=$(mktemp) log=$(mktemp) out=$(mktemp)
trap 'rm -f "$table" "$log" "$out"' EXIT
failed=0

say() { printf '%s\n' "$*" | tee -a "$table"; }

finish() {
    if [ -n "$results" ]; then
        cp "$table" "$results" && cp "$log" "$results.log"
    fi
    exit "$failed"
}

# step NAME COMMAND...: runs it, logs it, adds a line; a skipped test counts as a failure here.
step() {
    local name=$1 begin=$SECONDS verdict=ok
    shift
    "$@" >"$out" 2>&1 || verdict=FAILED
    if grep -q 'SKIPPED' "$out"; then verdict=SKIPPED; fi
    { echo "==== $name"; cat "$out"; } >>"$log"
    say "$(printf '%-28s %-8s %5d s' "$name" "$verdict" $((SECONDS - begin)))"
    [ "$verdict" = ok ] && return 0
    failed=1
    grep -E 'ERROR|FAILED|error|skipped:' "$out" | head -n 20
    return 1
}

# shellcheck disable=SC2317 # called through step
configure() {
    local arch args=(-DFACET_CUDA=ON -DFACET_WERROR=OFF)
    arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ')
    args+=("-DFACET_CUDA_ARCHS=${arch:+$arch-real}")
    [ -n "$arch" ] || args+=(-DFACET_CUDA_ARCHS=native)
    if [ -n "${FACET_DEPS:-}" ]; then
        local deps
        deps=$(cd "$FACET_DEPS" && pwd) || return 1
        export LD_LIBRARY_PATH="$deps/usr/lib/x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
        args+=(-DCMAKE_DISABLE_FIND_PACKAGE_PkgConfig=ON "-DCMAKE_PREFIX_PATH=$deps/usr"
            "-DCMAKE_LIBRARY_PATH=$deps/usr/lib/x86_64-linux-gnu")
    fi
    cmake -S . -B "$build" "${args[@]}"
}

[ -x /usr/local/cuda/bin/nvcc ] && PATH=$PATH:/usr/local/cuda/bin
say "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1)" \
    "nvcc $(nvcc --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p')" \
    "$(git rev-parse --short HEAD 2>/dev/null)"
step configure configure || finish
step build cmake --build "$build" -j "$(nproc)" || finish
say "$("$build/facet" --version)"
for test in "$build"/tests/test_cuda_* "$build"/tests/test_pages; do
    step "$(basename "$test")" timeout 300 "$test"
    for tool in ${FACET_SANITIZER:-}; do
        quiet=()
        [ "$tool" = memcheck ] && quiet=(--report-api-errors no) # allocations that a test wants refused
        step "$(basename "$test"), $tool" compute-sanitizer --tool "$tool" "${quiet[@]}" --error-exitcode 1 "$test"
    done
done
for test in test_engine test_goldens test_peer test_scheduler test_speculate test_spec_scripted test_spec_sampling \
    test_snapshot test_snapshot_file test_snapshot_property test_prefix test_park; do
    [ -x "$build/tests/$test" ] || continue
    step "$test, cuda" env FACET_TEST_DEVICE=cuda timeout 300 "$build/tests/$test"
done
step "facet run" "$build/facet" run --device cuda --chat "What is 82 - 61?" --json && tail -n 5 "$out"
finish
