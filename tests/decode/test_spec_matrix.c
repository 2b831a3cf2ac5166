/* Token identity of speculative and plain decoding on the reference set: every target, weight type, cache type and
 * drafter there is, on tasks and goldens, at every draft length and tree budget. The default takes a part of each that
 * turns from case to case; FACET_TEST_FULL=1 takes everything (an hour of one core), and with FACET_TEST_PART=I/N the
 * I-th of N parts of it (I from 0, N up to 96). */
#include "spec_world.h"

typedef struct matrix_case {
    const char *target, *mtp, *dflash, *k, *v;
} matrix_case;

static const matrix_case cases[] = {
    {"tiny-31b-F16", "tiny-31b-mtp-F16", "tiny-31b-dflash-F16", "f16", "f16"},
    {"tiny-31b-F16", "tiny-31b-mtp-Q8_0", "tiny-31b-dflash-Q8_0", "q8_0", "q8_0"},
    {"tiny-31b-Q8_0", "tiny-31b-mtp-F16", "tiny-31b-dflash-Q8_0", "f16", "f16"},
    {"tiny-31b-Q8_0", "tiny-31b-mtp-Q8_0", "tiny-31b-dflash-F16", "q8_0", "q8_0"},
    {"tiny-31b-Q4_K_M", "tiny-31b-mtp-F16", "tiny-31b-dflash-F16", "f16", "f16"},
    {"tiny-31b-Q4_K_M", "tiny-31b-mtp-Q8_0", "tiny-31b-dflash-Q8_0", "q8_0", "q8_0"},
    {"tiny-26b-a4b-F16", "tiny-26b-a4b-mtp-F16", "tiny-26b-a4b-dflash-F16", "f16", "f16"},
    {"tiny-26b-a4b-F16", "tiny-26b-a4b-mtp-F16", "tiny-26b-a4b-dflash-F16", "q8_0", "q8_0"},
    {"tiny-26b-a4b-Q8_0", "tiny-26b-a4b-mtp-F16", "tiny-26b-a4b-dflash-F16", "f16", "f16"},
    {"tiny-26b-a4b-Q8_0", "tiny-26b-a4b-mtp-F16", "tiny-26b-a4b-dflash-F16", "q8_0", "q8_0"},
    {"tiny-26b-a4b-Q4_K_M", "tiny-26b-a4b-mtp-F16", "tiny-26b-a4b-dflash-F16", "f16", "f16"},
    {"tiny-26b-a4b-Q4_K_M", "tiny-26b-a4b-mtp-F16", "tiny-26b-a4b-dflash-F16", "q8_0", "q8_0"},
    {"tiny-e2b-F16", "tiny-e2b-mtp-F16", NULL, "f16", "f16"},
    {"tiny-e2b-F16", "tiny-e2b-mtp-F16", NULL, "q8_0", "q8_0"},
    {"tiny-e2b-Q8_0", "tiny-e2b-mtp-F16", NULL, "f16", "f16"},
    {"tiny-e2b-Q8_0", "tiny-e2b-mtp-F16", NULL, "q8_0", "q8_0"},
    {"tiny-e2b-Q4_K_M", "tiny-e2b-mtp-F16", NULL, "f16", "f16"},
    {"tiny-e2b-Q4_K_M", "tiny-e2b-mtp-F16", NULL, "q8_0", "q8_0"},
    {"tiny-31b-F16", "tiny-31b-mtp-F16", "tiny-31b-dflash-F16", "q4_0", "tq3_0"},
    {"tiny-31b-Q8_0", "tiny-31b-mtp-Q8_0", "tiny-31b-dflash-Q8_0", "tq3_0", "tq3_0"},
    {"tiny-26b-a4b-F16", "tiny-26b-a4b-mtp-F16", "tiny-26b-a4b-dflash-F16", "tq3_0", "q4_0"},
    {"tiny-26b-a4b-Q4_K_M", "tiny-26b-a4b-mtp-F16", "tiny-26b-a4b-dflash-F16", "rot_q4_0", "rot_q4_0"},
    {"tiny-e2b-F16", "tiny-e2b-mtp-F16", NULL, "q8_0", "tq3_0"},
    {"tiny-e2b-Q8_0", "tiny-e2b-mtp-F16", NULL, "rot_q8_0", "q4_0"},
    {"tiny-31b-F16", "tiny-31b-mtp-F16", "tiny-31b-dflash-F16", "f16", "f16"},
    {"tiny-31b-Q8_0", "tiny-31b-mtp-Q8_0", "tiny-31b-dflash-Q8_0", "q8_0", "q4_0"},
    {"tiny-31b-Q4_K_M", "tiny-31b-mtp-F16", "tiny-31b-dflash-F16", "tq3_0", "tq3_0"},
    {"tiny-26b-a4b-F16", "tiny-26b-a4b-mtp-F16", "tiny-26b-a4b-dflash-F16", "f16", "f16"},
    {"tiny-26b-a4b-Q8_0", "tiny-26b-a4b-mtp-F16", "tiny-26b-a4b-dflash-F16", "q8_0", "q8_0"},
    {"tiny-26b-a4b-Q4_K_M", "tiny-26b-a4b-mtp-F16", "tiny-26b-a4b-dflash-F16", "rot_q4_0", "rot_q4_0"},
};
enum { N_CASES = sizeof cases / sizeof *cases, N_REBUILT = 6, N_TASKS = 112 };

/* The last cases keep V alone in global layers. */
static bool rebuilds_keys(const matrix_case *c)
{
    return c >= &cases[N_CASES - N_REBUILT];
}

/* NAME.gguf of the reference models; kept by the caller's array. */
static const char *model_path(const char *name, char *out, size_t size)
{
    char relative[128];
    if (!name) return NULL;
    snprintf(relative, sizeof relative, "models/%s.gguf", name);
    snprintf(out, size, "%s", test_shared(relative));
    return out;
}

static spec_world open_case(const matrix_case *c, int32_t n_ctx)
{
    static char paths[3][1024];
    return spec_open(&(spec_setup){.target = model_path(c->target, paths[0], sizeof paths[0]),
                                   .mtp = model_path(c->mtp, paths[1], sizeof paths[1]),
                                   .dflash = model_path(c->dflash, paths[2], sizeof paths[2]),
                                   .k = c->k,
                                   .v = c->v,
                                   .n_ctx = n_ctx,
                                   .n_sessions = 3,
                                   .rebuild_keys = rebuilds_keys(c)});
}

/* The tasks, then the prompts of the target's goldens ("long2k" among them). */
static spec_prompts prompts_for(const spec_world *w, const char *target)
{
    spec_prompts p = {0};
    char name[128], family[64];
    json_error_t e;
    size_t i;
    json_t *entry;
    spec_load_prompts(&p, test_shared("models/tasks.jsonl"), w->model);
    snprintf(family, sizeof family, "%s", target);
    *strrchr(family, '-') = 0; /* the weight type */
    snprintf(name, sizeof name, "goldens/%s.json", family);
    json_t *j = json_load_file(test_shared(name), 0, &e);
    if (!j) fail_msg("%s: %s", name, e.text);
    json_t *entries = json_is_array(j) ? j : json_object_get(j, "prompts");
    json_array_foreach(entries, i, entry) spec_take_ids(
        spec_add_prompt(&p, json_string_value(json_object_get(entry, "name"))), json_object_get(entry, "ids"));
    assert_int_equal(p.n, N_TASKS + 7);
    json_decref(j);
    return p;
}

typedef struct counts {
    int n_engines, n_prompts, n_generations, n_drafting, n_states;
    uint64_t n_tokens, n_drafted, n_accepted;
} counts;

/* Which part of the work: number % n == index. */
typedef struct part {
    int index, n;
} part;

static part part_wanted(void)
{
    const char *v = getenv("FACET_TEST_PART");
    part p = {0, 1};
    if (v && *v && (sscanf(v, "%d/%d", &p.index, &p.n) != 2 || p.index < 0 || p.n < 1 || p.index >= p.n))
        fail_msg("FACET_TEST_PART: '%s' is not I/N", v);
    return p;
}

enum { QUARTERS = 4 }; /* of the prompts of a case */

static bool wants_quarter(part p, int number, int quarter)
{
    return (QUARTERS * number + quarter) % p.n == p.index;
}

static bool wants_case(part p, int number)
{
    bool wants = false;
    for (int i = 0; i < QUARTERS; i++) wants = wants || wants_quarter(p, number, i);
    return wants;
}

/* The default: a few tasks of each case and one golden, each by every sixth variant. */
static bool wants_prompt(part p, int number, int i)
{
    if (!wants_quarter(p, number, i % QUARTERS)) return false;
    return spec_is_full() || (i < N_TASKS ? (i + 5 * number) % 37 == 0 : i - N_TASKS == number % 7);
}

static void run_case(const matrix_case *c, part turn, int number, counts *sum)
{
    const int every = spec_is_full() ? 1 : 6, state_every = 7;
    spec_world w = open_case(c, 4096);
    spec_prompts prompts = prompts_for(&w, c->target);
    const spec_variants v = spec_all_variants(w.engine);
    facet_session *plain = spec_session(w.engine), *spec = spec_session(w.engine);
    spec_said *want = malloc(sizeof *want), *got = malloc(sizeof *got);
    for (int i = 0; i < prompts.n; i++) {
        const spec_prompt *p = &prompts.list[i];
        if (!wants_prompt(turn, number, i)) continue;
        /* goldens go on after end tokens: off the text that the drafters were trained on */
        const spec_request q = {
            .prompt = p->ids, .n_prompt = p->n, .n_predict = i < N_TASKS ? 64 : 48, .ignore_eos = i >= N_TASKS};
        spec_state held = {0};
        spec_say(plain, &q, NULL, NULL, want);
        sum->n_prompts++;
        for (int k = 0; k < v.n; k++) {
            char what[160];
            if ((i + k + number) % every != 0) continue;
            snprintf(what, sizeof what, "%s, cache %s and %s%s, %s, prompt %d (%s)", c->target, c->k, c->v,
                     rebuilds_keys(c) ? ", keys rebuilt" : "", v.list[k].name, i, p->name);
            spec_say(spec, &q, &v.list[k].how, NULL, got);
            spec_assert_same_said(got, want, what);
            if ((i + k) % state_every == 0) {
                if (!held.tokens) held = spec_look(plain);
                spec_assert_holds(spec, &held, what);
                sum->n_states++;
            }
            sum->n_generations++;
            sum->n_drafting += got->r.spec.drafted > 0;
            sum->n_tokens += (uint64_t)got->n;
            sum->n_drafted += got->r.spec.drafted;
            sum->n_accepted += got->r.spec.accepted;
        }
        spec_free_state(&held);
    }
    sum->n_engines++;
    free(want);
    free(got);
    facet_session_close(plain);
    facet_session_close(spec);
    spec_free_prompts(&prompts);
    spec_close(&w);
}

static void every_target_type_and_drafter(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/tasks.jsonl");
    counts sum = {0};
    const part p = part_wanted();
    for (int i = 0; i < N_CASES; i++)
        if (wants_case(p, i)) run_case(&cases[i], p, i, &sum);
    print_message(
        "%d engines, %d plain texts, %d generations of %llu tokens, %d with drafts: %llu of %llu accepted; %d "
        "sessions compared\n",
        sum.n_engines, sum.n_prompts, sum.n_generations, (unsigned long long)sum.n_tokens, sum.n_drafting,
        (unsigned long long)sum.n_accepted, (unsigned long long)sum.n_drafted, sum.n_states);
    assert_true(sum.n_drafting > sum.n_generations / 2);
}

/* The drafter as it is published: a folder of safetensors. It says what the GGUF file of the same weights says. */
static void a_folder_of_safetensors(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/tiny-31b-dflash/config.json");
    char target[1024], folder[1024], gguf[1024];
    snprintf(target, sizeof target, "%s", test_shared("models/tiny-31b-F16.gguf"));
    snprintf(folder, sizeof folder, "%s", test_shared("models/tiny-31b-dflash"));
    snprintf(gguf, sizeof gguf, "%s", test_shared("models/tiny-31b-dflash-F16.gguf"));
    spec_said *said[2];
    for (int i = 0; i < 2; i++) {
        spec_world w = spec_open(&(spec_setup){.target = target, .dflash = i ? gguf : folder});
        spec_prompts p = prompts_for(&w, "tiny-31b-F16");
        facet_session *s = spec_session(w.engine);
        const facet_speculation how = {.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF, .tree_budget = 22};
        const spec_prompt *story = spec_prompt_named(&p, "story");
        const spec_request q = {.prompt = story->ids, .n_prompt = story->n, .n_predict = 60};
        said[i] = malloc(sizeof *said[i]);
        spec_say(s, &q, &how, NULL, said[i]);
        facet_session_close(s);
        spec_free_prompts(&p);
        spec_close(&w);
    }
    spec_assert_same_said(said[0], said[1], "folder");
    assert_int_equal(said[0]->r.spec.drafted, said[1]->r.spec.drafted);
    assert_int_equal(said[0]->r.spec.accepted, said[1]->r.spec.accepted);
    assert_true(said[0]->r.spec.accepted > 10);
    free(said[0]);
    free(said[1]);
}

enum { N_PASSKEYS = 16 };

/* Prompts 4 i to 4 i + 3 are longer than those before. The default: the first of them. */
static bool wants_passkey(part p, int number, int i)
{
    return (N_PASSKEYS * number + i) % p.n == p.index && (spec_is_full() || i == 0);
}

static void run_passkeys(const matrix_case *c, part turn, int number, int *n_run)
{
    spec_world w = open_case(c, 16384);
    spec_prompts p = {0};
    const spec_variants v = spec_few_variants(w.engine);
    facet_session *plain = spec_session(w.engine), *spec = spec_session(w.engine);
    spec_said *want = malloc(sizeof *want), *got = malloc(sizeof *got);
    spec_load_prompts(&p, test_shared("models/passkey.jsonl"), w.model);
    assert_int_equal(p.n, N_PASSKEYS);
    for (int i = 0; i < p.n; i++) {
        if (!wants_passkey(turn, number, i)) continue;
        const spec_request q = {.prompt = p.list[i].ids, .n_prompt = p.list[i].n, .n_predict = 32};
        spec_say(plain, &q, NULL, NULL, want);
        spec_state held = spec_look(plain);
        for (int k = 0; k < v.n; k++) {
            spec_say(spec, &q, &v.list[k].how, NULL, got);
            spec_assert_same_said(got, want, v.list[k].name);
            if (k % 2 == 0) spec_assert_holds(spec, &held, v.list[k].name);
        }
        spec_free_state(&held);
        (*n_run)++;
    }
    free(want);
    free(got);
    facet_session_close(plain);
    facet_session_close(spec);
    spec_free_prompts(&p);
    spec_close(&w);
}

/* Two to sixteen thousand tokens, of which the answer quotes a few: far beyond every window. */
static void passkeys_of_long_prompts(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/passkey.jsonl");
    const part p = part_wanted();
    int n_run = 0;
    for (int number = 0; number < N_CASES / 6; number++) { /* F16 of each family, also with rebuilt keys */
        bool wants = false;
        for (int i = 0; i < N_PASSKEYS; i++) wants = wants || wants_passkey(p, number, i);
        if (wants) run_passkeys(&cases[6 * number], p, number, &n_run);
    }
    print_message("%d prompts\n", n_run);
    assert_true(n_run > 0 || p.n > 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_target_type_and_drafter),
        cmocka_unit_test(a_folder_of_safetensors),
        cmocka_unit_test(passkeys_of_long_prompts),
    };
    return cmocka_run_group_tests_name("spec_matrix", tests, NULL, NULL);
}
