#include "decode/spec_stats.h"

static double ratio(uint64_t a, uint64_t b)
{
    return b ? (double)a / (double)b : 0;
}

static void take_ratios(facet_spec_stats *s)
{
    s->accept_rate = ratio(s->accepted, s->drafted);
    s->mean_accepted = ratio(s->committed, s->steps);
    for (int i = 0; i < FACET_SPEC_DEPTHS; i++) s->acceptance[i] = ratio(s->held[i], s->reached[i]);
}

static void add_positions(facet_spec_stats *s, const spec_step *step)
{
    const int depth = step->is_tree ? step->max_depth : step->n_drafted;
    for (int i = 0; i < depth && i <= step->n_accepted; i++) {
        const int at = i < FACET_SPEC_DEPTHS ? i : FACET_SPEC_DEPTHS - 1;
        s->reached[at]++;
        s->held[at] += i < step->n_accepted;
    }
    s->lengths[step->n_accepted < FACET_SPEC_DEPTHS ? step->n_accepted : FACET_SPEC_DEPTHS]++;
}

void spec_stats_add(facet_spec_stats *s, const spec_step *step)
{
    s->steps++;
    s->plain_steps += step->n_drafted == 0;
    s->asked += (uint64_t)step->n_asked;
    s->drafted += (uint64_t)step->n_drafted;
    s->accepted += (uint64_t)step->n_accepted;
    s->committed += (uint64_t)step->n_committed;
    if (step->n_drafted > 0) s->method_steps[step->method]++;
    if (step->is_tree) {
        s->tree_steps++;
        s->tree_nodes += (uint64_t)step->n_drafted;
        s->tree_depth += (uint64_t)step->max_depth;
    }
    s->moves += (uint64_t)step->n_moves;
    s->switches += step->is_switched;
    s->draft_ms += step->draft_ms;
    s->verify_ms += step->verify_ms;
    s->other_ms += step->other_ms;
    add_positions(s, step);
    take_ratios(s);
}

void facet_spec_stats_add(facet_spec_stats *sum, const facet_spec_stats *s)
{
    sum->steps += s->steps;
    sum->plain_steps += s->plain_steps;
    sum->asked += s->asked;
    sum->drafted += s->drafted;
    sum->accepted += s->accepted;
    sum->committed += s->committed;
    sum->tree_steps += s->tree_steps;
    sum->tree_nodes += s->tree_nodes;
    sum->tree_depth += s->tree_depth;
    sum->moves += s->moves;
    sum->switches += s->switches;
    sum->draft_ms += s->draft_ms;
    sum->verify_ms += s->verify_ms;
    sum->other_ms += s->other_ms;
    for (int i = 0; i < FACET_SPEC_DEPTHS; i++) {
        sum->reached[i] += s->reached[i];
        sum->held[i] += s->held[i];
    }
    for (int i = 0; i <= FACET_SPEC_DEPTHS; i++) sum->lengths[i] += s->lengths[i];
    for (int i = 0; i < FACET_SPEC_AUTO; i++) sum->method_steps[i] += s->method_steps[i];
    take_ratios(sum);
}
