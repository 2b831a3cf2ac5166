/* Speculative decoding of the bundled model: for every strategy and length the text, and what the session holds
 * afterwards, is that of plain decoding. (All targets, types and prompts: test_spec_matrix. Drafts by decree:
 * test_spec_scripted. Temperatures above 0: test_spec_sampling.) */
#include "spec_world.h"

/* Each prompt in a session of its own, plainly and speculatively. */
typedef struct pair {
    facet_session *plain, *spec;
} pair;

static pair open_pair(spec_world *w)
{
    return (pair){spec_session(w->engine), spec_session(w->engine)};
}

static void close_pair(pair *p)
{
    facet_session_close(p->plain);
    facet_session_close(p->spec);
}

static const char *label(const char *variant, const char *what, int i)
{
    static char text[128];
    snprintf(text, sizeof text, "%s, %s %d", variant, what, i);
    return text;
}

/* ---- every strategy, every length ---- */

static void every_strategy_and_length_gives_the_plain_text(void **state)
{
    (void)state;
    spec_world w = spec_open_bundled(0);
    spec_prompts prompts = spec_bundled_prompts();
    const spec_variants v = spec_all_variants(w.engine);
    const int every = spec_is_full() ? 1 : 17; /* prompts of a variant: this far apart, each variant with others */
    pair p = open_pair(&w);
    spec_said *want = malloc(sizeof *want), *got = malloc(sizeof *got);
    int n = 0, n_drafted = 0;
    for (int i = 0; i < prompts.n; i++) {
        spec_request q = {.prompt = prompts.list[i].ids, .n_prompt = prompts.list[i].n, .n_predict = 48};
        spec_say(p.plain, &q, NULL, NULL, want);
        for (int k = 0; k < v.n; k++) {
            if ((i + k) % every != 0) continue;
            spec_say(p.spec, &q, &v.list[k].how, NULL, got);
            spec_assert_same_said(got, want, label(v.list[k].name, prompts.list[i].name, i));
            if (n++ % 5 == 0) spec_assert_same_state(p.spec, p.plain, label(v.list[k].name, prompts.list[i].name, i));
            n_drafted += got->r.spec.drafted > 0;
        }
    }
    print_message("%d generations by %d variants, %d of them with drafts\n", n, v.n, n_drafted);
    assert_true(n_drafted > n / 2);
    free(want);
    free(got);
    close_pair(&p);
    spec_free_prompts(&prompts);
    spec_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_strategy_and_length_gives_the_plain_text),
    };
    return cmocka_run_group_tests_name("speculate", tests, NULL, NULL);
}
