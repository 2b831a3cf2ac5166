#include "serve/spec_json.h"

facet_spec_method spec_main_method(const facet_spec_stats *s)
{
    int best = FACET_SPEC_NONE;
    for (int i = 1; i < FACET_SPEC_AUTO; i++)
        if (s->method_steps[i] > s->method_steps[best]) best = i;
    return (facet_spec_method)best;
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

static double per(uint64_t a, uint64_t b)
{
    return b ? (double)a / (double)b : 0;
}

/* Steps by accepted drafts, up to the last count that is not 0. */
static json_t *lengths(const facet_spec_stats *s)
{
    json_t *j = json_array();
    int n = FACET_SPEC_DEPTHS + 1;
    while (n > 0 && !s->lengths[n - 1]) n--;
    for (int i = 0; i < n; i++) json_array_append_new(j, json_integer((json_int_t)s->lengths[i]));
    return j;
}

json_t *spec_json(const facet_spec_stats *s)
{
    json_t *acceptance = json_array();
    for (int i = 0; i < FACET_SPEC_DEPTHS && s->reached[i]; i++)
        json_array_append_new(acceptance, json_real(s->acceptance[i]));
    json_t *j =
        json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:o, s:f, s:I, s:o, s:o, s:{s:f, s:f, s:f}}", "method",
                  facet_spec_method_name(spec_main_method(s)), "tree", s->tree_steps > 0, "steps", (json_int_t)s->steps,
                  "drafted", (json_int_t)s->drafted, "accepted", (json_int_t)s->accepted, "committed",
                  (json_int_t)s->committed, "accept_rate", s->accept_rate, "mean_accepted", s->mean_accepted,
                  "plain_steps", (json_int_t)s->plain_steps, "drafting_steps", by_method(s), "mean_asked",
                  per(s->asked, s->steps), "switches", (json_int_t)s->switches, "acceptance", acceptance, "lengths",
                  lengths(s), "ms", "draft", s->draft_ms, "verify", s->verify_ms, "other", s->other_ms);
    if (j && s->tree_steps)
        json_object_set_new(j, "trees",
                            json_pack("{s:I, s:f, s:f, s:I}", "steps", (json_int_t)s->tree_steps, "mean_nodes",
                                      per(s->tree_nodes, s->tree_steps), "mean_depth",
                                      per(s->tree_depth, s->tree_steps), "moves", (json_int_t)s->moves));
    return j;
}
