/* needle_report.c: the table and the JSON of facet eval needle. */
#include "cli/needle_report.h"

needle_trial *needle_trial_at(const needle_report *r, int depth, int ctx, int i)
{
    return &r->trials[((size_t)depth * (size_t)r->ctx.n + (size_t)ctx) * (size_t)r->n_per_cell + (size_t)i];
}

int needle_count_right(const needle_report *r, int depth, int ctx, int *total)
{
    int right = 0;
    *total = 0;
    for (int d = 0; d < r->depth.n; d++)
        for (int c = 0; c < r->ctx.n; c++) {
            if ((depth >= 0 && d != depth) || (ctx >= 0 && c != ctx)) continue;
            for (int i = 0; i < r->n_per_cell; i++, ++*total) right += needle_trial_at(r, d, c, i)->is_right;
        }
    return right;
}

static void print_row(FILE *f, const needle_report *r, const char *name, int depth)
{
    fprintf(f, "%-8s", name);
    for (int c = 0; c < r->ctx.n; c++) {
        int total;
        const int right = needle_count_right(r, depth, c, &total);
        fprintf(f, " %6.0f %%", 100.0 * right / total);
    }
    fputc('\n', f);
}

void needle_print_table(FILE *f, const needle_report *r)
{
    int total;
    const int right = needle_count_right(r, -1, -1, &total);
    fprintf(f, "%s on %s, K %s, V %s, seed %llu, %d prompt%s a cell\n\n", r->model, r->device, r->cache[0], r->cache[1],
            (unsigned long long)r->seed, r->n_per_cell, r->n_per_cell == 1 ? "" : "s");
    fputs("depth   ", f);
    for (int c = 0; c < r->ctx.n; c++) fprintf(f, " %8d", r->ctx.v[c]);
    fputc('\n', f);
    for (int d = 0; d < r->depth.n; d++) {
        char name[16];
        snprintf(name, sizeof name, "%3d %%", r->depth.v[d]);
        print_row(f, r, name, d);
    }
    print_row(f, r, "all", -1);
    fprintf(f, "\nright    %d of %d\n", right, total);
}

static json_t *trial_json(const needle_trial *t)
{
    return json_pack("{s:I, s:I, s:s, s:o, s:b}", "prompt_tokens", (json_int_t)t->n_prompt, "needle_at",
                     (json_int_t)t->needle, "key", t->key, "answer", json_string_nocheck(t->answer), "right",
                     t->is_right);
}

static json_t *cell_json(const needle_report *r, int depth, int ctx)
{
    int total;
    const int right = needle_count_right(r, depth, ctx, &total);
    json_t *prompts = json_array();
    for (int i = 0; i < r->n_per_cell; i++)
        json_array_append_new(prompts, trial_json(needle_trial_at(r, depth, ctx, i)));
    return json_pack("{s:i, s:i, s:i, s:i, s:o}", "ctx", (int)r->ctx.v[ctx], "depth", (int)r->depth.v[depth], "right",
                     right, "total", total, "prompts", prompts);
}

json_t *needle_json(const needle_report *r)
{
    int total;
    const int right = needle_count_right(r, -1, -1, &total);
    json_t *cells = json_array();
    for (int d = 0; d < r->depth.n; d++)
        for (int c = 0; c < r->ctx.n; c++) json_array_append_new(cells, cell_json(r, d, c));
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:i, s:i, s:i, s:o}", "model", r->model, "device", r->device,
                     "cache_type_k", r->cache[0], "cache_type_v", r->cache[1], "seed", (json_int_t)r->seed, "n",
                     r->n_per_cell, "right", right, "total", total, "cells", cells);
}
