#include "cli/sparse_report.h"

void cli_print_sparse(FILE *f, const char *label, const facet_sparse_stats *s)
{
    if (!s->choices) return;
    fprintf(f,
            "%s%.1f %% of the blocks of %llu choices read, %llu of these dense, %llu rescued; dropped at most %.2g "
            "(certified), %.2g (estimated)",
            label, 100 * s->share, (unsigned long long)s->choices, (unsigned long long)s->dense,
            (unsigned long long)s->rescued, s->certified_max, s->estimated_max);
    if (s->measured_max > 0) fprintf(f, ", %.2g (measured; %.2g on average)", s->measured_max, s->measured_mean);
    fputc('\n', f);
}

json_t *cli_sparse_json(const facet_sparse_stats *s)
{
    if (!s->choices) return json_null();
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "choices",
                     (json_int_t)s->choices, "dense", (json_int_t)s->dense, "rescued", (json_int_t)s->rescued, "blocks",
                     (json_int_t)s->blocks, "selected", (json_int_t)s->selected, "probed", (json_int_t)s->probed,
                     "share", s->share, "certified_mean", s->certified_mean, "certified_max", s->certified_max,
                     "estimated_max", s->estimated_max, "measured_mean", s->measured_mean, "measured_max",
                     s->measured_max, "error_max", s->error_max);
}
