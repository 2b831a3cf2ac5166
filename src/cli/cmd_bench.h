/* cmd_bench.h: the parts of facet bench: what is measured (bench_measure.c), and how it is printed (bench_print.c). */
#ifndef FACET_CLI_CMD_BENCH_H
#define FACET_CLI_CMD_BENCH_H

#include "base/rng.h"
#include "cli/cli.h"
#include "compute/backend.h"
#include "compute/plan_cost.h"
#include "decode/speculate.h"

enum { BENCH_MAX_LIST = 32, BENCH_MAX_REPEATS = 100 };

typedef enum bench_format { BENCH_MD, BENCH_JSON, BENCH_CSV } bench_format;

typedef struct bench_list {
    int n;
    int32_t v[BENCH_MAX_LIST];
} bench_list;

typedef struct bench_options {
    cli_options common;
    bench_list prompts, depths, widths; /* -p, -d, -w; depths ascend */
    int32_t n_decode;
    int n_repeats;
    bool wants_ops, has_blank_depth;
    made_up accept; /* --synth-accept; n = 0: real verdicts */
    bench_format format;
} bench_options;

typedef enum bench_kind { BENCH_PREFILL, BENCH_DECODE, BENCH_STEP, BENCH_SPEC } bench_kind;

/* One measured line. A step is one run of the target's plan: the whole prompt, one token, or `n` rows. */
typedef struct bench_result {
    bench_kind kind;
    int32_t n, depth; /* prompt tokens, generated tokens, or rows; tokens in the cache before */
    int n_samples;
    double median_ms, best_ms; /* of one prompt, one token, or one step */
    double bytes, ops;         /* that it must move and compute */
    facet_spec_stats spec;     /* BENCH_SPEC: median_ms is the mean per token there */
} bench_result;

typedef struct bench_op_time {
    double median_ms;
    op_cost cost;
} bench_op_time;

typedef struct bench_run {
    const bench_options *o;
    facet_model *model;
    facet_engine *engine;
    facet_session *base; /* filled to the depth */
    backend_ceilings ceilings;
    rng rng;
} bench_run;

/* Longest context that the options need. */
int64_t bench_context(const bench_options *o);
/* Brings run->base to a depth (depths ascend). */
facet_status bench_fill(bench_run *run, int32_t depth, facet_error *err);
facet_status bench_prefill(bench_run *run, int32_t n, bench_result *out, facet_error *err);
facet_status bench_decode(bench_run *run, int32_t n, bench_result *out, facet_error *err);
facet_status bench_step(bench_run *run, int32_t rows, bench_result *out, facet_error *err);
/* n tokens with the speculation of the options. */
facet_status bench_spec(bench_run *run, int32_t n, bench_result *out, facet_error *err);
/* 0 of an empty list. */
int32_t bench_list_max(const bench_list *l);
/* Op by op, for a step of `rows` rows at the depth, all wanted or, of more than can be wanted, the last; out has one
 * entry per op of the plan. */
facet_status bench_ops(bench_run *run, int32_t rows, bench_op_time *out, facet_error *err);

void bench_print_begin(const bench_run *run);
void bench_print(const bench_run *run, const bench_result *r);
void bench_print_ops(const bench_run *run, int32_t rows, int32_t depth, const bench_op_time *ops);
void bench_print_end(const bench_run *run);

#endif
