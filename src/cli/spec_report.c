/* spec_report.c: what speculation did, for people and for programs. */
#include "cli/spec_report.h"

/* The method that drafted most; "none" when nothing was drafted. */
static const char *main_method(const facet_spec_stats *s)
{
    int best = FACET_SPEC_NONE;
    for (int i = 1; i < FACET_SPEC_AUTO; i++)
        if (s->method_steps[i] > s->method_steps[best]) best = i;
    return facet_spec_method_name((facet_spec_method)best);
}

static json_t *by_method(const facet_spec_stats *s)
{
    json_t *j = json_object();
    for (int i = 1; i < FACET_SPEC_AUTO; i++)
        if (s->method_steps[i])
            json_object_set_new(j, facet_spec_method_name((facet_spec_method)i),
                                json_integer((json_int_t)s->method_steps[i]));
    return j;
}

json_t *cli_spec_json(const facet_spec_stats *s)
{
    json_t *acceptance = json_array();
    for (int i = 0; i < FACET_SPEC_DEPTHS && s->reached[i]; i++)
        json_array_append_new(acceptance, json_real(s->acceptance[i]));
    return json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:f, s:I, s:I, s:o, s:o, s:{s:f, s:f, s:f}}", "method",
                     main_method(s), "tree", s->tree_steps > 0, "steps", (json_int_t)s->steps, "drafted",
                     (json_int_t)s->drafted, "accepted", (json_int_t)s->accepted, "committed", (json_int_t)s->committed,
                     "mean_accepted", s->mean_accepted, "plain_steps", (json_int_t)s->plain_steps, "moves",
                     (json_int_t)s->moves, "drafting_steps", by_method(s), "acceptance", acceptance, "ms", "draft",
                     s->draft_ms, "verify", s->verify_ms, "other", s->other_ms);
}

void cli_print_spec(FILE *f, const facet_spec_stats *s)
{
    if (!s->drafted) return;
    fprintf(f,
            "facet: speculation (%s%s): %llu steps, %llu of them plain; %llu of %llu drafts accepted (%.1f %%); %.2f "
            "tokens a step; draft %.0f ms, verify %.0f ms, other %.0f ms; by position",
            main_method(s), s->tree_steps ? ", trees" : "", (unsigned long long)s->steps,
            (unsigned long long)s->plain_steps, (unsigned long long)s->accepted, (unsigned long long)s->drafted,
            100.0 * (double)s->accepted / (double)s->drafted, s->mean_accepted, s->draft_ms, s->verify_ms, s->other_ms);
    for (int i = 0; i < FACET_SPEC_DEPTHS && s->reached[i]; i++) fprintf(f, " %.2f", s->acceptance[i]);
    fputc('\n', f);
}
