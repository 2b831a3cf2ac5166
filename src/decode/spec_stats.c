#include "decode/spec_stats.h"

#include <stdio.h>

void spec_stats_reset(spec_stats *s)
{
    *s = (spec_stats){0};
}

static int clamp_depth(int n, int max)
{
    return n < 0 ? 0 : n < max ? n : max;
}

void spec_stats_add(spec_stats *s, const spec_step *step)
{
    const int accepted = clamp_depth(step->n_accepted, SPEC_STATS_DEPTHS - 1);
    const int depth = clamp_depth(step->is_tree ? step->max_depth : step->n_drafted, SPEC_STATS_DEPTHS);
    s->n_steps++;
    s->n_drafting += step->n_drafted > 0;
    s->n_drafted += (uint64_t)step->n_drafted;
    s->n_accepted += (uint64_t)step->n_accepted;
    s->n_committed += (uint64_t)step->n_committed;
    s->n_fallback += step->is_fallback;
    for (int i = 0; i < depth; i++) {
        s->verified[i]++;
        s->reached[i] += i <= accepted;
        s->accepted[i] += i < accepted;
    }
    s->histogram[accepted]++;
    if (step->is_tree) {
        s->n_tree_steps++;
        s->n_tree_nodes += (uint64_t)step->n_drafted;
        s->sum_tree_depth += (uint64_t)depth;
        s->n_moves += (uint64_t)step->n_moves;
    }
    s->sum_planned_k += (uint64_t)step->planned_k;
    s->n_switches += step->is_switched;
    s->draft_ms += step->draft_ms;
    s->verify_ms += step->verify_ms;
    s->other_ms += step->other_ms;
}

void spec_stats_merge(spec_stats *into, const spec_stats *from)
{
    into->n_steps += from->n_steps;
    into->n_drafting += from->n_drafting;
    into->n_drafted += from->n_drafted;
    into->n_accepted += from->n_accepted;
    into->n_committed += from->n_committed;
    into->n_fallback += from->n_fallback;
    for (int i = 0; i < SPEC_STATS_DEPTHS; i++) {
        into->verified[i] += from->verified[i];
        into->reached[i] += from->reached[i];
        into->accepted[i] += from->accepted[i];
        into->histogram[i] += from->histogram[i];
    }
    into->n_tree_steps += from->n_tree_steps;
    into->n_tree_nodes += from->n_tree_nodes;
    into->sum_tree_depth += from->sum_tree_depth;
    into->n_moves += from->n_moves;
    into->sum_planned_k += from->sum_planned_k;
    into->n_switches += from->n_switches;
    into->draft_ms += from->draft_ms;
    into->verify_ms += from->verify_ms;
    into->other_ms += from->other_ms;
}

static double ratio(uint64_t a, uint64_t b)
{
    return b ? (double)a / (double)b : 0;
}

double spec_stats_accept_rate(const spec_stats *s)
{
    return ratio(s->n_accepted, s->n_drafted);
}

double spec_stats_tokens_per_step(const spec_stats *s)
{
    return ratio(s->n_committed, s->n_steps);
}

double spec_stats_accepted_length(const spec_stats *s)
{
    return s->n_steps ? 1 + ratio(s->n_accepted, s->n_steps) : 0;
}

static bool is_position(int position)
{
    return position >= 1 && position <= SPEC_STATS_DEPTHS;
}

double spec_stats_at(const spec_stats *s, int position)
{
    return is_position(position) ? ratio(s->accepted[position - 1], s->verified[position - 1]) : 0;
}

double spec_stats_given(const spec_stats *s, int position)
{
    return is_position(position) ? ratio(s->accepted[position - 1], s->reached[position - 1]) : 0;
}

double spec_stats_mean_k(const spec_stats *s)
{
    return ratio(s->sum_planned_k, s->n_steps);
}

enum { SHOWN_POSITIONS = 8 };

/* " (0.90 0.84 ...)": acceptance by position, given that the ones before it were accepted. */
static void format_positions(const spec_stats *s, char out[8 * SHOWN_POSITIONS])
{
    char *p = out;
    *p = '\0';
    for (int j = 1; j <= SHOWN_POSITIONS && s->reached[j - 1]; j++)
        p += sprintf(p, "%s%.2f", j == 1 ? " (" : " ", spec_stats_given(s, j));
    if (p != out) sprintf(p, ")");
}

int spec_stats_format(const spec_stats *s, char *line, size_t size)
{
    char positions[8 * SHOWN_POSITIONS], tree[96] = "";
    format_positions(s, positions);
    if (s->n_tree_steps)
        snprintf(tree, sizeof tree, ", trees of %.1f nodes, depth %.1f, %llu rows moved",
                 ratio(s->n_tree_nodes, s->n_tree_steps), ratio(s->sum_tree_depth, s->n_tree_steps),
                 (unsigned long long)s->n_moves);
    return snprintf(line, size,
                    "%llu steps (%llu plain), %.2f tokens per step, accepted %llu of %llu drafts%s%s; draft %.1f ms, "
                    "verify %.1f ms, other %.1f ms",
                    (unsigned long long)s->n_steps, (unsigned long long)(s->n_steps - s->n_drafting),
                    spec_stats_tokens_per_step(s), (unsigned long long)s->n_accepted, (unsigned long long)s->n_drafted,
                    positions, tree, s->draft_ms, s->verify_ms, s->other_ms);
}
