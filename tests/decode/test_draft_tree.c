/* Draft trees: the worked example of the method, brute force on small inputs, and what the layout promises. */
#include "testing.h"

#include <math.h>

#include "base/rng.h"
#include "compute/batch.h"
#include "decode/draft_tree.h"

_Static_assert((int)DRAFT_TREE_MAX_ROWS == (int)BATCH_MAX_TREE, "a tree's path rows are a batch's");

/* ---- the worked example: L = 3, K = 3; d1: a .60 b .30 c .10; d2: d .55 e .35 f .10; d3: g .80 h .15 i .05 ---- */

enum { CUR = 'r' };
static const int32_t example_token[] = {'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i'};
static const double example_p[] = {.60, .30, .10, .55, .35, .10, .80, .15, .05};

static void grow_example(int budget, bool is_seeded, draft_tree *t)
{
    float logp[9];
    facet_error err;
    for (int i = 0; i < 9; i++) logp[i] = (float)log(example_p[i]);
    const draft_marginals m = {.n_depths = 3, .n_ranks = 3, .token = example_token, .logp = logp};
    assert_ok(draft_tree_build(&m, CUR, budget, (draft_tree_rule){3, is_seeded}, t, &err), err);
}

/* Expected committed tokens by the drafter's account. */
static double expected(const draft_tree *t)
{
    double sum = 0;
    for (int i = 0; i < t->n_rows; i++) sum += (double)t->weight[i];
    return sum;
}

static void assert_nodes(const draft_tree *t, const char *tokens, const int *parents, const int *depths)
{
    assert_int_equal(t->n_rows, (int)strlen(tokens));
    for (int i = 0; i < t->n_rows; i++) {
        assert_int_equal(t->token[i], tokens[i]);
        assert_int_equal(t->parent[i], parents[i]);
        assert_int_equal(t->depth[i], depths[i]);
    }
}

/* "1101": the row sees slots 0, 1 and 3. */
static void assert_visible(const draft_tree *t, const char *const *rows)
{
    for (int i = 0; i < t->n_rows; i++)
        for (int j = 0; j < t->n_rows; j++) assert_int_equal((t->ancestors[i] >> j) & 1, rows[i][j] == '1');
}

static void worked_example_best_first(void **state)
{
    (void)state;
    draft_tree t;
    grow_example(6, false, &t);
    assert_nodes(&t, "radbgeg", (int[]){-1, 0, 1, 0, 2, 1, 5}, (int[]){0, 1, 2, 1, 3, 2, 3});
    const double weights[] = {1, .6, .33, .3, .264, .21, .168};
    for (int i = 0; i < 7; i++) assert_float_equal(t.weight[i], weights[i], 1e-6);
    assert_visible(&t, (const char *[]){"1000000", "1100000", "1110000", "1001000", "1110100", "1100010", "1100011"});
    assert_float_equal(expected(&t), 2.8720, 1e-6);
    int32_t token[7], pos[7], slot[7];
    uint8_t path[7][BATCH_MAX_TREE];
    draft_tree_rows(&t, 100, 7, DRAFT_PAD_ZERO, token, pos, slot, path);
    const int32_t want_pos[] = {100, 101, 102, 101, 103, 102, 103};
    assert_memory_equal(pos, want_pos, sizeof pos);
}

static void worked_example_chain_seeded(void **state)
{
    (void)state;
    draft_tree t;
    grow_example(6, true, &t);
    assert_nodes(&t, "radgbeg", (int[]){-1, 0, 1, 2, 0, 1, 5}, (int[]){0, 1, 2, 3, 1, 2, 3});
    assert_visible(&t, (const char *[]){"1000000", "1100000", "1110000", "1111000", "1000100", "1100010", "1100011"});
    assert_float_equal(expected(&t), 2.8720, 1e-6);
}

/* The sums also fix the order of what stays in the heap after six nodes: (b,d) .165, then (b,d,g), (b,e), c. */
static void worked_example_sums_of_budgets_1_to_10(void **state)
{
    (void)state;
    const double want[] = {1.6000, 1.9300, 2.2300, 2.4940, 2.7040, 2.8720, 3.0370, 3.1690, 3.2740, 3.3740};
    draft_tree t;
    for (int budget = 1; budget <= 10; budget++) {
        grow_example(budget, false, &t);
        assert_int_equal(t.n_rows, budget + 1);
        assert_float_equal(expected(&t), want[budget - 1], 1e-6);
    }
    assert_int_equal(t.token[7], 'd');
    assert_int_equal(t.parent[7], 3);
    assert_int_equal(t.token[10], 'c');
}

/* ---- random inputs ---- */

typedef struct world {
    int n_depths, n_ranks;
    int32_t token[64 * 8];
    float logp[64 * 8];
    draft_marginals m;
} world;

/* Sorted probabilities; tokens distinct in a row. With `ties`, few distinct values. */
static void make_world(world *w, rng *r, int n_depths, int n_ranks, bool has_ties)
{
    w->n_depths = n_depths;
    w->n_ranks = n_ranks;
    for (int d = 0; d < n_depths; d++) {
        float *row = w->logp + d * n_ranks;
        for (int k = 0; k < n_ranks; k++) {
            const double x = -4 * rng_uniform(r);
            int i = k;
            for (; i > 0 && (double)row[i - 1] < (has_ties ? floor(x) : x); i--) row[i] = row[i - 1];
            row[i] = (float)(has_ties ? floor(x) : x);
        }
        const int32_t first = (int32_t)rng_below(r, 50);
        for (int k = 0; k < n_ranks; k++) w->token[d * n_ranks + k] = first + 7 * k % 101;
    }
    w->m = (draft_marginals){n_depths, n_ranks, w->token, w->logp};
}

static draft_tree build(const world *w, int budget, draft_tree_rule rule)
{
    draft_tree t;
    facet_error err;
    assert_ok(draft_tree_build(&w->m, 1, budget, rule, &t, &err), err);
    return t;
}

static void assert_is_tree(const draft_tree *t)
{
    assert_int_equal(t->ancestors[0], 1);
    for (int i = 1; i < t->n_rows; i++) {
        const int p = t->parent[i];
        assert_in_range(p, 0, i - 1);
        assert_int_equal(t->depth[i], t->depth[p] + 1);
        assert_true(t->ancestors[i] == (t->ancestors[p] | UINT64_C(1) << i));
        assert_true(t->weight[i] <= t->weight[p]);
        assert_int_equal(t->path[i][t->depth[i]], i);
        assert_memory_equal(t->path[i], t->path[p], (size_t)t->depth[p] + 1);
        for (int j = 1; j < i; j++)
            if (t->parent[j] == p) assert_int_not_equal(t->token[j], t->token[i]);
        assert_int_equal(draft_tree_child(t, p, t->token[i]), i);
        assert_int_equal(draft_tree_child(t, i, 1000), -1);
    }
}

/* Sum of weights of the best subtree of exactly n nodes: every set of nodes that is closed under "parent". */
static double best_subtree(const world *w, int n)
{
    int parent[14], n_nodes = 0;
    double weight[14];
    for (int begin = -1, end = 0, d = 1; d <= w->n_depths; d++) {
        const int next = n_nodes;
        for (int p = begin; p < end; p++)
            for (int k = 0; k < w->n_ranks; k++) {
                parent[n_nodes] = p;
                weight[n_nodes] = (p < 0 ? 1 : weight[p]) * exp((double)w->logp[(d - 1) * w->n_ranks + k]);
                n_nodes++;
            }
        begin = next;
        end = n_nodes;
        if (d == w->n_depths) break;
    }
    double best = 0;
    for (uint32_t set = 0; set < 1u << n_nodes; set++) {
        if (__builtin_popcount(set) != n) continue;
        double sum = 0;
        bool is_closed = true;
        for (int i = 0; i < n_nodes && is_closed; i++) {
            if (!(set >> i & 1)) continue;
            is_closed = parent[i] < 0 || (set >> parent[i] & 1);
            sum += weight[i];
        }
        if (is_closed && sum > best) best = sum;
    }
    return best;
}

static void best_first_equals_the_best_subtree(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 11);
    const struct {
        int n_depths, n_ranks, n_nodes;
    } sizes[] = {{3, 2, 14}, {2, 3, 12}, {1, 5, 5}, {5, 1, 5}};
    for (int trial = 0; trial < 40; trial++) {
        const int s = trial % 4;
        world w;
        make_world(&w, &r, sizes[s].n_depths, sizes[s].n_ranks, trial % 3 == 0);
        const int budget = 1 + (int)rng_below(&r, (uint32_t)sizes[s].n_nodes);
        const draft_tree t = build(&w, budget, draft_tree_rule_default());
        assert_int_equal(t.n_rows, budget + 1);
        assert_float_equal(expected(&t) - 1, best_subtree(&w, budget), 1e-5);
    }
}

static void every_tree_is_well_formed(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 12);
    for (int trial = 0; trial < 2000; trial++) {
        world w;
        make_world(&w, &r, 1 + (int)rng_below(&r, 16), 1 + (int)rng_below(&r, 8), trial % 2);
        const int budget = (int)rng_below(&r, DRAFT_TREE_MAX_NODES + 1);
        const bool is_seeded = rng_below(&r, 2);
        const draft_tree t = build(&w, budget, (draft_tree_rule){1 + (int)rng_below(&r, 8), is_seeded});
        assert_is_tree(&t);
        assert_in_range(t.n_rows, 1, budget + 1);
        for (int i = 1; i < t.n_rows && !is_seeded; i++) assert_true(t.weight[i] <= t.weight[i - 1]);
        for (int i = 1; i < t.n_rows && is_seeded && i <= w.n_depths; i++) assert_int_equal(t.parent[i], i - 1);
    }
}

static void a_budget_is_a_prefix_of_every_larger_one(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 13);
    for (int trial = 0; trial < 200; trial++) {
        world w;
        make_world(&w, &r, 8, 8, trial % 2);
        draft_tree all = build(&w, DRAFT_TREE_MAX_NODES, draft_tree_rule_default());
        const int budget = 1 + (int)rng_below(&r, DRAFT_TREE_MAX_NODES);
        const draft_tree t = build(&w, budget, draft_tree_rule_default());
        draft_tree_shrink(&all, budget + 1);
        assert_int_equal(all.n_rows, t.n_rows);
        assert_memory_equal(all.token, t.token, (size_t)t.n_rows * sizeof *t.token);
        assert_memory_equal(all.parent, t.parent, (size_t)t.n_rows);
        assert_memory_equal(all.ancestors, t.ancestors, (size_t)t.n_rows * sizeof *t.ancestors);
    }
}

static void one_rank_gives_a_chain(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 14);
    for (int trial = 0; trial < 200; trial++) {
        world w;
        const int depths = 1 + (int)rng_below(&r, 15), budget = 1 + (int)rng_below(&r, (uint32_t)depths);
        make_world(&w, &r, depths, 8, trial % 2);
        const draft_tree t = build(&w, budget, (draft_tree_rule){1, trial % 3 == 0});
        assert_int_equal(t.n_rows, budget + 1);
        for (int i = 1; i < t.n_rows; i++) {
            assert_int_equal(t.parent[i], i - 1);
            assert_int_equal(t.token[i], w.token[(i - 1) * 8]);
        }
    }
}

static void default_rule_branches_at_small_budgets(void **state)
{
    (void)state;
    world w;
    rng r;
    rng_seed(&r, 15);
    make_world(&w, &r, 15, 8, false);
    for (int d = 0; d < 15; d++)
        for (int k = 0; k < 8; k++) w.logp[d * 8 + k] = -0.5f * (float)(k + 1);
    const draft_tree t = build(&w, 4, draft_tree_rule_default()); /* -.5, then -1 (sibling, then child), -1.5 */
    assert_int_equal(t.parent[1], 0);
    assert_int_equal(t.parent[2], 0);
    assert_int_equal(t.parent[3], 1);
}

/* All paths of a length weigh the same: candidates leave in the order in which they came. */
static void ties_go_to_the_earliest_candidate(void **state)
{
    (void)state;
    const int32_t token[] = {10, 11, 20, 21};
    const float logp[] = {-1, -1, -1, -1};
    const world w = {.m = {2, 2, token, logp}};
    const draft_tree t = build(&w, 6, draft_tree_rule_default());
    const int32_t want_token[] = {1, 10, 11, 20, 20, 21, 21};
    const int8_t want_parent[] = {-1, 0, 0, 1, 2, 1, 2};
    assert_int_equal(t.n_rows, 7);
    assert_memory_equal(t.token, want_token, sizeof want_token);
    assert_memory_equal(t.parent, want_parent, sizeof want_parent);
}

static void paths_without_probability_are_left_out(void **state)
{
    (void)state;
    const int32_t token[] = {10, 11, 20, 21, 30, 31};
    const float logp[] = {-1, -INFINITY, -1, NAN, -INFINITY, -INFINITY};
    const world w = {.m = {3, 2, token, logp}};
    for (int seeded = 0; seeded < 2; seeded++) {
        const draft_tree t = build(&w, 20, (draft_tree_rule){8, seeded});
        assert_int_equal(t.n_rows, 3);
        assert_int_equal(t.token[1], 10);
        assert_int_equal(t.token[2], 20);
    }
}

static void the_root_alone_and_the_limits(void **state)
{
    (void)state;
    world w;
    rng r;
    draft_tree t;
    facet_error err;
    rng_seed(&r, 16);
    make_world(&w, &r, 15, 8, false);
    t = build(&w, 0, draft_tree_rule_default());
    assert_int_equal(t.n_rows, 1);
    assert_int_equal(t.token[0], 1);
    t = build(&w, -3, draft_tree_rule_default());
    assert_int_equal(t.n_rows, 1);
    t = build(&(world){.m = {0, 8, w.token, w.logp}}, 5, draft_tree_rule_default());
    assert_int_equal(t.n_rows, 1);
    assert_float_equal(expected(&t), 1, 0);
    t = build(&w, 63, draft_tree_rule_default());
    assert_int_equal(t.n_rows, 64);
    assert_is_tree(&t);
    assert_in_range(draft_tree_max_depth(&t), 1, 15);
    assert_int_equal(draft_tree_build(&w.m, 1, 64, draft_tree_rule_default(), &t, &err), FACET_ERR_LIMIT);
    assert_string_equal(err.message, "draft tree budget 64: wanted at most 63 nodes");
    assert_int_equal(draft_tree_build(&w.m, 1, 4, (draft_tree_rule){0, false}, &t, &err), FACET_ERR_ARG);
    assert_non_null(strstr(err.message, "0 ranks of 8"));
    make_world(&w, &r, 63, 1, false); /* as deep as it gets */
    t = build(&w, 63, draft_tree_rule_default());
    assert_int_equal(draft_tree_max_depth(&t), 63);
    assert_int_equal(t.path[63][62], 62);
}

/* ---- rows of a batch ---- */

static void pitfall_07_siblings_share_a_position(void **state)
{
    (void)state;
    draft_tree t;
    int32_t token[8], pos[8], slot[8];
    uint8_t path[8][BATCH_MAX_TREE];
    grow_example(6, false, &t);
    draft_tree_rows(&t, 40, 7, DRAFT_PAD_ZERO, token, pos, slot, path);
    assert_int_equal(pos[1], pos[3]); /* a, b */
    assert_int_equal(pos[2], pos[5]); /* (a,d), (a,e) */
    for (int i = 0; i < 7; i++) {
        assert_int_equal(slot[i], 40 + i);
        assert_int_equal(pos[i], 40 + t.depth[i]);
        assert_int_equal(token[i], t.token[i]);
    }
}

static void pitfall_08_a_row_sees_its_ancestors_alone(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 17);
    for (int trial = 0; trial < 200; trial++) {
        world w;
        int32_t token[64], pos[64], slot[64];
        uint8_t path[64][BATCH_MAX_TREE];
        make_world(&w, &r, 15, 8, false);
        const draft_tree t = build(&w, (int)rng_below(&r, 60), draft_tree_rule_default());
        draft_tree_rows(&t, 1000, 64, DRAFT_PAD_ZERO, token, pos, slot, path);
        for (int i = 0; i < 64; i++) {
            uint64_t seen = 0;
            for (int d = 0; d <= pos[i] - 1000; d++) seen |= UINT64_C(1) << path[i][d];
            assert_true(seen == (i < t.n_rows ? t.ancestors[i] : UINT64_C(1) << i));
        }
    }
}

static void pitfall_09_padding_rows_see_themselves(void **state)
{
    (void)state;
    draft_tree t;
    int32_t token[32], pos[32], slot[32];
    uint8_t path[32][BATCH_MAX_TREE];
    grow_example(6, false, &t);
    for (int padding = 0; padding < 2; padding++) {
        draft_tree_rows(&t, 40, 32, padding ? DRAFT_PAD_ROOT : DRAFT_PAD_ZERO, token, pos, slot, path);
        for (int i = 7; i < 32; i++) {
            assert_int_equal(token[i], padding ? CUR : 0);
            assert_int_equal(pos[i], 40);
            assert_int_equal(slot[i], 40 + i);
            assert_int_equal(path[i][0], i);
        }
        for (int i = 0; i < 7; i++)
            for (int d = 0; d <= pos[i] - 40; d++) assert_in_range(path[i][d], 0, 6);
    }
}

/* ---- compaction ---- */

/* Slots hold the node that was written there; after the moves, slot base + i holds node path[i]. */
static void moves_in_order_bring_the_path_together(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 18);
    int n_moved = 0;
    for (int trial = 0; trial < 500; trial++) {
        world w;
        int slots[64];
        draft_move moves[64];
        make_world(&w, &r, 15, 8, false);
        const draft_tree t = build(&w, 63, draft_tree_rule_default());
        const int leaf = (int)rng_below(&r, (uint32_t)t.n_rows), n = t.depth[leaf] + 1;
        const uint8_t *path = t.path[leaf];
        for (int i = 0; i < 64; i++) slots[i] = i;
        const int m = 1 + (int)rng_below(&r, (uint32_t)n), n_moves = draft_tree_moves(path, m, 0, moves);
        for (int i = 0; i < n_moves; i++) {
            assert_true(moves[i].src > moves[i].dst);
            slots[moves[i].dst] = slots[moves[i].src];
        }
        for (int i = 0; i < m; i++) assert_int_equal(slots[i], path[i]);
        n_moved += n_moves;
    }
    assert_true(n_moved > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worked_example_best_first),
        cmocka_unit_test(worked_example_chain_seeded),
        cmocka_unit_test(worked_example_sums_of_budgets_1_to_10),
        cmocka_unit_test(best_first_equals_the_best_subtree),
        cmocka_unit_test(every_tree_is_well_formed),
        cmocka_unit_test(a_budget_is_a_prefix_of_every_larger_one),
        cmocka_unit_test(one_rank_gives_a_chain),
        cmocka_unit_test(default_rule_branches_at_small_budgets),
        cmocka_unit_test(ties_go_to_the_earliest_candidate),
        cmocka_unit_test(paths_without_probability_are_left_out),
        cmocka_unit_test(the_root_alone_and_the_limits),
        cmocka_unit_test(pitfall_07_siblings_share_a_position),
        cmocka_unit_test(pitfall_08_a_row_sees_its_ancestors_alone),
        cmocka_unit_test(pitfall_09_padding_rows_see_themselves),
        cmocka_unit_test(moves_in_order_bring_the_path_together),
    };
    return cmocka_run_group_tests_name("draft_tree", tests, NULL, NULL);
}
