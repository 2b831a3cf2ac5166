#include "cli/spec_report.h"

#include "serve/spec_json.h"

static double per(uint64_t a, uint64_t b)
{
    return b ? (double)a / (double)b : 0;
}

void cli_print_spec(FILE *f, const char *label, facet_spec_method asked, const facet_spec_stats *s)
{
    if (asked == FACET_SPEC_NONE) return;
    if (!s->drafted) {
        fprintf(f, "%snone: nothing was drafted in %llu steps\n", label, (unsigned long long)s->steps);
        return;
    }
    fprintf(f, "%s%s: %llu steps, %llu of them plain; %llu of %llu drafts accepted (%.1f %%); %.2f tokens a step",
            label, facet_spec_method_name(spec_main_method(s)), (unsigned long long)s->steps,
            (unsigned long long)s->plain_steps, (unsigned long long)s->accepted, (unsigned long long)s->drafted,
            100 * s->accept_rate, s->mean_accepted);
    if (s->tree_steps)
        fprintf(f, "; trees of %.1f nodes, depth %.1f", per(s->tree_nodes, s->tree_steps),
                per(s->tree_depth, s->tree_steps));
    fprintf(f, "; draft %.0f ms, verify %.0f ms, other %.0f ms; by position", s->draft_ms, s->verify_ms, s->other_ms);
    for (int i = 0; i < FACET_SPEC_DEPTHS && s->reached[i]; i++) fprintf(f, " %.2f", s->acceptance[i]);
    fputc('\n', f);
}
