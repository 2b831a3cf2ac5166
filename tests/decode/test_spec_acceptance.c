/* How much of what the drafters say is accepted, on whole tasks, greedily: not less than another engine accepts of the
 * same files (models/README.md of the reference set: 40 other prompts of the same kinds), and trees not less than
 * chains of the same number of rows. */
#include "spec_world.h"

enum { N_TASKS = 112 };

#define RATE_TOLERANCE 0.03 /* other prompts of the same kinds */
#define LENGTH_TOLERANCE 0.15

typedef struct accepted {
    uint64_t drafted, accepted, steps, committed;
} accepted;

static double rate(const accepted *a)
{
    return (double)a->accepted / (double)a->drafted;
}

/* Mean length of an accepted draft, the target's own token counted. */
static double mean_length(const accepted *a)
{
    return 1 + (double)a->accepted / (double)a->steps;
}

/* The request by one way to draft, added to the sum. */
static void add(facet_session *s, const spec_request *q, const facet_speculation *how, spec_said *said, accepted *sum)
{
    spec_say(s, q, how, NULL, said);
    sum->drafted += said->r.spec.drafted;
    sum->accepted += said->r.spec.accepted;
    sum->steps += said->r.spec.steps;
    sum->committed += said->r.spec.committed;
}

/* Every `every`-th task to its end; texts of which n tokens are unlike anything that the drafters were trained on. */
static accepted measure(spec_world *w, const spec_prompts *p, const facet_speculation *how, int every, int n_other)
{
    accepted sum = {0};
    facet_session *s = spec_session(w->engine);
    spec_said *said = malloc(sizeof *said);
    for (int i = 0; i < N_TASKS; i += every) {
        const spec_request q = {.prompt = p->list[i].ids, .n_prompt = p->list[i].n, .n_predict = 200};
        add(s, &q, how, said, &sum);
    }
    for (int i = N_TASKS; i < p->n && n_other; i++) {
        const spec_request q = {
            .prompt = p->list[i].ids, .n_prompt = p->list[i].n, .n_predict = n_other, .ignore_eos = true};
        add(s, &q, how, said, &sum);
    }
    free(said);
    facet_session_close(s);
    return sum;
}

static facet_speculation mtp_of(int gamma)
{
    return (facet_speculation){.method = FACET_SPEC_MTP, .adapt = FACET_ADAPT_OFF, .mtp_gamma = gamma};
}

static facet_speculation chain_of(int k)
{
    return (facet_speculation){.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF, .draft_max = k};
}

static facet_speculation tree_of(int nodes)
{
    return (facet_speculation){.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF, .tree_budget = nodes};
}

/* ---- the reference set ---- */

typedef struct reported {
    const char *target, *drafter;
    int longest; /* draft */
    double rate, mean_length;
    bool is_like_next; /* the next row's weights in another type: only in the full run */
} reported;

static const reported rows[] = {
    {"tiny-31b-F16", "tiny-31b-mtp-F16", 4, 0.990, 4.95, true},
    {"tiny-31b-F16", "tiny-31b-mtp-Q8_0", 4, 0.990, 4.95, false},
    {"tiny-31b-F16", "tiny-31b-dflash-F16", 15, 0.740, 11.08, true},
    {"tiny-31b-F16", "tiny-31b-dflash-Q8_0", 15, 0.744, 11.10, false},
    {"tiny-31b-F16", "tiny-31b-dflash-F16", 7, 0.887, 6.91, false},
    {"tiny-26b-a4b-F16", "tiny-26b-a4b-mtp-F16", 4, 0.993, 4.96, false},
    {"tiny-26b-a4b-F16", "tiny-26b-a4b-dflash-F16", 7, 0.909, 7.11, false},
    {"tiny-e2b-F16", "tiny-e2b-mtp-F16", 4, 0.986, 4.92, false},
};

static void as_much_as_is_reported(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/tasks.jsonl");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const reported *r = &rows[i];
        if (r->is_like_next && !spec_is_full()) continue;
        char name[128], target[1024], path[1024];
        snprintf(name, sizeof name, "models/%s.gguf", r->target);
        snprintf(target, sizeof target, "%s", test_shared(name));
        snprintf(name, sizeof name, "models/%s.gguf", r->drafter);
        snprintf(path, sizeof path, "%s", test_shared(name));
        const bool is_mtp = strstr(r->drafter, "mtp") != NULL;
        spec_world w =
            spec_open(&(spec_setup){.target = target, .mtp = is_mtp ? path : NULL, .dflash = is_mtp ? NULL : path});
        spec_prompts p = {0};
        spec_load_prompts(&p, test_shared("models/tasks.jsonl"), w.model);
        const facet_speculation how = is_mtp ? mtp_of(r->longest) : chain_of(r->longest);
        const accepted a = measure(&w, &p, &how, 1, 0);
        print_message("%s, %d: %.3f of %d drafts, mean length %.2f (reported %.3f, %.2f)\n", r->drafter, r->longest,
                      rate(&a), (int)a.drafted, mean_length(&a), r->rate, r->mean_length);
        assert_true(rate(&a) >= r->rate - RATE_TOLERANCE);
        assert_true(mean_length(&a) >= r->mean_length - LENGTH_TOLERANCE);
        spec_free_prompts(&p);
        spec_close(&w);
    }
}

/* ---- the bundled model ---- */

static void the_bundled_drafters(void **state)
{
    (void)state;
    spec_world w = spec_open_bundled(0);
    spec_prompts p = spec_bundled_prompts();
    const facet_speculation mtp = mtp_of(4), chain = chain_of(15), seven = chain_of(7);
    const accepted a = measure(&w, &p, &mtp, 1, 0), b = measure(&w, &p, &chain, 1, 0),
                   c = measure(&w, &p, &seven, 1, 0);
    print_message("mtp %.3f, %.2f; dflash 15 %.3f, %.2f; dflash 7 %.3f, %.2f\n", rate(&a), mean_length(&a), rate(&b),
                  mean_length(&b), rate(&c), mean_length(&c));
    assert_true(rate(&a) >= 0.990 - RATE_TOLERANCE);
    assert_true(mean_length(&a) >= 4.95 - LENGTH_TOLERANCE);
    assert_true(rate(&b) >= 0.744 - RATE_TOLERANCE);
    assert_true(mean_length(&b) >= 11.1 - LENGTH_TOLERANCE);
    assert_true(rate(&c) >= 0.887 - RATE_TOLERANCE);
    assert_true(mean_length(&c) >= 6.91 - LENGTH_TOLERANCE);
    spec_free_prompts(&p);
    spec_close(&w);
}

/* The same number of rows in every step: the tree accepts more, and needs no more steps for the same tokens. */
static void trees_accept_at_least_what_chains_do(void **state)
{
    (void)state;
    spec_world w = spec_open_bundled(0);
    spec_prompts p = spec_bundled_prompts();
    accepted chains = {0}, trees = {0};
    for (int k = 3; k <= 15; k += 4) {
        const facet_speculation chain = chain_of(k), tree = tree_of(k);
        const accepted a = measure(&w, &p, &chain, 4, 100), b = measure(&w, &p, &tree, 4, 100);
        print_message("%d drafts: chains %d accepted, %d steps; trees %d accepted, %d steps\n", k, (int)a.accepted,
                      (int)a.steps, (int)b.accepted, (int)b.steps);
        assert_int_equal(a.committed, b.committed);
        assert_true(b.steps <= a.steps + a.steps / 50);
        chains.accepted += a.accepted;
        chains.steps += a.steps;
        trees.accepted += b.accepted;
        trees.steps += b.steps;
    }
    assert_true(trees.accepted >= chains.accepted);
    assert_true(trees.steps <= chains.steps);
    spec_free_prompts(&p);
    spec_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_much_as_is_reported),
        cmocka_unit_test(the_bundled_drafters),
        cmocka_unit_test(trees_accept_at_least_what_chains_do),
    };
    return cmocka_run_group_tests_name("spec_acceptance", tests, NULL, NULL);
}
