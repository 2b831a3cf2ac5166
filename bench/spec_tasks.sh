#!/usr/bin/env bash
# The whole work of facet eval tasks with speculation against plain decoding, in turns: processor time (user and system,
# loading and prompts included) of one thread, and the ratios of the pairs.
#
#   bench/spec_tasks.sh PAIRS TASKS.jsonl MODEL OPTIONS...
#   bench/spec_tasks.sh 5 ../shared/models/tasks.jsonl models/facet-small-Q4_K_M.gguf -md models/facet-small-mtp-Q8_0.gguf
#
# FACET=build/facet names the program.
set -eu
[ $# -ge 4 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
facet=${FACET:-build/facet} pairs=$1 tasks=$2 model=$3
shift 3
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# seconds OPTIONS...: processor time of one run; what it printed lies in $out.
seconds() {
    local TIMEFORMAT='%U %S'
    { time "$facet" eval tasks "$tasks" -m "$model" --device cpu -t 1 --json "$@" >"$out" 2>/dev/null; } 2>&1 |
        awk '{ print $1 + $2 }'
}

ratios=()
for _ in $(seq "$pairs"); do
    plain=$(seconds --spec none)
    ratios+=("$(awk -v a="$plain" -v b="$(seconds "$@")" 'BEGIN { printf "%.3f", b / a }')")
done
sorted=$(printf '%s\n' "${ratios[@]}" | sort -n | tr '\n' ' ')
awk -v n="$pairs" '{ printf "median %s of %s\n", $(int((n + 1) / 2)), $0 }' <<<"$sorted"
grep -o '"speculation".*' "$out"
