/* needle_report.h: what `facet eval needle` found, as a table, as JSON and as a heat map. */
#ifndef FACET_CLI_NEEDLE_REPORT_H
#define FACET_CLI_NEEDLE_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "base/buf.h"
#include "decode/needle.h"

enum { NEEDLE_MAX_LIST = 32 };

typedef struct needle_list {
    int32_t v[NEEDLE_MAX_LIST];
    int n;
} needle_list;

typedef struct needle_trial {
    size_t n_prompt, needle; /* tokens of the prompt, and before the number */
    char key[NEEDLE_KEY_DIGITS + 1];
    char *answer; /* owned */
    bool is_right;
} needle_trial;

typedef struct needle_report {
    const char *model, *device, *cache[2]; /* cache: types of K and V; all borrowed */
    uint64_t seed;
    needle_list ctx, depth;
    int n_per_cell;
    needle_trial *trials; /* [depth.n, ctx.n, n_per_cell] */
} needle_report;

needle_trial *needle_trial_at(const needle_report *r, int depth, int ctx, int i);
/* Right answers of a cell; of a column or row where an index is -1, and how many there are in *total. */
int needle_count_right(const needle_report *r, int depth, int ctx, int *total);

void needle_print_table(FILE *f, const needle_report *r);
/* NULL when memory is short. */
json_t *needle_json(const needle_report *r);
/* A picture for light and dark pages: contexts from left to right, depths from top to bottom, the share of right
 * answers as colour and as text. False when memory is short. */
bool needle_svg(const needle_report *r, buf *out);

#endif
