#!/usr/bin/env bash
# The whole work of a set of tasks with speculation against plain decoding, in turns: processor time (user and system) of
# one thread from the prompts to the last token, and the ratios of the pairs. The tasks are run ROUNDS times over in one
# process (default 4); what a process takes to load its models, measured on one short task, does not count.
#
#   bench/spec_tasks.sh PAIRS TASKS.jsonl MODEL OPTIONS...
#   bench/spec_tasks.sh 7 ../shared/models/tasks.jsonl models/facet-small-Q4_K_M.gguf -md models/facet-small-mtp-Q8_0.gguf
#
# FACET=build/facet names the program.
set -eu
[ $# -ge 4 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
facet=${FACET:-build/facet} pairs=$1 tasks=$2 model=$3
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for _ in $(seq "${ROUNDS:-4}"); do cat "$tasks"; done >"$work/tasks"
echo '{"task":"load","prompt":"<bos>a","answer":"a","max_tokens":1}' >"$work/load"

# seconds FILE OPTIONS...: processor time of one run; what it printed lies in $work/out.
seconds() {
    local TIMEFORMAT='%U %S' file=$1
    shift
    { time "$facet" eval tasks "$file" -m "$model" --device cpu -t 1 --json "$@" >"$work/out" 2>/dev/null; } 2>&1 |
        awk '{ print $1 + $2 }'
}

# loading OPTIONS...: the middle of five.
loading() {
    for _ in 1 2 3 4 5; do seconds "$work/load" "$@"; done | sort -n | sed -n 3p
}

plain_load=$(loading --spec none) load=$(loading "$@")
for _ in $(seq "$pairs"); do
    plain=$(seconds "$work/tasks" --spec none)
    awk -v a="$plain" -v b="$(seconds "$work/tasks" "$@")" -v la="$plain_load" -v lb="$load" \
        'BEGIN { printf "%.3f\n", (b - lb) / (a - la) }'
done | sort -n >"$work/ratios"
printf 'median %s of %s\n' "$(sed -n "$(((pairs + 1) / 2))p" "$work/ratios")" "$(tr '\n' ' ' <"$work/ratios")"
grep -o '"speculation".*' "$work/out"
