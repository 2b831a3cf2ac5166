/* Quantised files against another engine (goldens/peer_greedy.jsonl) and against the right answers: equal tokens on
 * every task; on prompts unlike the training text, where margins are small, equal tokens up to a first difference that
 * the rounding of activations explains; as many right answers as the other engine gets. */
#include "../model/golden.h"

#include "decode/logits.h"
#include "decode/session.h"

/* Right answers of 112 that the other engine gets (models/README.md of the reference set; Q4_0: ours). */
static const struct model_file {
    const char *name;
    int n_right;
} files[] = {
    {"tiny-31b-F16", 112},     {"tiny-31b-Q8_0", 112},     {"tiny-31b-Q4_K_M", 112},     {"tiny-31b-Q4_0", 112},
    {"tiny-26b-a4b-F16", 111}, {"tiny-26b-a4b-Q8_0", 111}, {"tiny-26b-a4b-Q4_K_M", 110}, {"tiny-e2b-F16", 112},
    {"tiny-e2b-Q8_0", 112},    {"tiny-e2b-Q4_K_M", 112},
};
enum { N_FILES = sizeof files / sizeof *files, N_TASKS = 112, N_OFFTASK = 12, N_PASSKEYS = 16, MAX_PEER = 64 };

typedef struct lines {
    json_t *line[256];
    size_t n;
} lines;

static lines peer, tasks, passkeys;

static void read_lines(const char *name, lines *out)
{
    char *data, *save = NULL;
    size_t size;
    facet_error err;
    if (!test_shared(name)) return;
    assert_ok(file_read_all(test_shared(name), 1u << 28, &data, &size, &err), err);
    for (char *line = strtok_r(data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        assert_true(out->n < 256);
        out->line[out->n++] = json_loads(line, 0, NULL);
    }
    mem_free(data);
}

static void free_lines(lines *l)
{
    for (size_t i = 0; i < l->n; i++) json_decref(l->line[i]);
}

static int load(void **state)
{
    (void)state;
    read_lines("goldens/peer_greedy.jsonl", &peer);
    read_lines("models/tasks.jsonl", &tasks);
    read_lines("models/passkey.jsonl", &passkeys);
    return 0;
}

static int unload(void **state)
{
    (void)state;
    free_lines(&peer);
    free_lines(&tasks);
    free_lines(&passkeys);
    return 0;
}

static const char *text_field(const json_t *line, const char *name)
{
    const char *s = json_string_value(json_object_get(line, name));
    assert_non_null(s);
    return s;
}

static bool is_offtask(const json_t *line)
{
    return strcmp(text_field(line, "task"), "offtask") == 0;
}

static const char *answer_of(const char *prompt)
{
    for (size_t i = 0; i < tasks.n; i++)
        if (strcmp(text_field(tasks.line[i], "prompt"), prompt) == 0) return text_field(tasks.line[i], "answer");
    fail_msg("no task with the prompt '%.60s'", prompt);
    return NULL;
}

typedef struct fixture {
    const char *name;
    facet_model *model;
    facet_engine *engine;
    facet_session *session;
} fixture;

static fixture open_file(const char *name)
{
    fixture f = {.name = name};
    char path[128];
    facet_error err;
    snprintf(path, sizeof path, "models/%s.gguf", name);
    assert_ok(facet_model_open(test_shared(path), &f.model, &err), err);
    facet_engine_params p = facet_engine_params_default();
    const char *device = getenv("FACET_TEST_DEVICE");
    p.device = device && *device ? device : "cpu";
    p.n_ctx = 8192;
    assert_ok(facet_engine_open(f.model, &p, &f.engine, &err), err);
    assert_ok(facet_session_open(f.engine, &f.session, &err), err);
    return f;
}

static void close_file(fixture *f)
{
    facet_session_close(f->session);
    facet_engine_close(f->engine);
    facet_model_close(f->model);
}

typedef struct generated {
    int32_t ids[128];
    size_t n;
    buf text;
    facet_stop stop;
} generated;

static bool collect(void *ud, int32_t token, const char *text, size_t n)
{
    generated *g = ud;
    if (token >= 0 && g->n < 128) g->ids[g->n++] = token;
    return buf_append(&g->text, text, n);
}

/* Greedy, up to an end token or 128 tokens. The text is freed with buf_free. */
static generated generate(const fixture *f, const int32_t *ids, size_t n)
{
    generated out = {0};
    facet_error err;
    facet_generate_params g = facet_generate_params_default();
    facet_generate_result r;
    const facet_sampling greedy = facet_sampling_default();
    g.n_predict = 128;
    g.on_token = collect;
    g.ud = &out;
    assert_ok(facet_generate(f->session, ids, n, &greedy, &g, &r, &err), err);
    assert_true(buf_putc(&out.text, 0));
    out.stop = r.stop;
    return out;
}

/* The golden tokens end with the end token, or after MAX_PEER. */
static bool is_equal(const fixture *f, const generated *g, const json_t *want)
{
    size_t n;
    int32_t *ids = golden_ids(want, &n);
    const bool is_ended = tokenizer_is_end(f->model->tok, ids[n - 1]);
    assert_true(is_ended || n == MAX_PEER);
    if (is_ended) n--;
    bool equal = g->n >= n && memcmp(g->ids, ids, n * sizeof *ids) == 0;
    if (is_ended) equal = equal && g->n == n && g->stop == FACET_STOP_EOS;
    free(ids);
    return equal;
}

static void check_tasks(const fixture *f, int n_right_wanted)
{
    int n_tasks = 0, n_equal = 0, n_right = 0;
    for (size_t i = 0; i < peer.n; i++) {
        if (is_offtask(peer.line[i])) continue;
        size_t n;
        int32_t *ids = golden_ids(json_object_get(peer.line[i], "ids"), &n);
        generated g = generate(f, ids, n);
        n_tasks++;
        n_equal += is_equal(f, &g, json_object_get(json_object_get(peer.line[i], "greedy"), f->name));
        n_right += golden_is_right(g.text.data, answer_of(text_field(peer.line[i], "prompt")));
        buf_free(&g.text);
        free(ids);
    }
    assert_int_equal(n_tasks, N_TASKS);
    if (n_equal != n_tasks) fail_msg("%s: %d of %d tasks equal the other engine's tokens", f->name, n_equal, n_tasks);
    if (n_right < n_right_wanted) fail_msg("%s: %d right answers, wanted %d", f->name, n_right, n_right_wanted);
}

/* Where our greedy tokens leave the other engine's. */
typedef struct first_difference {
    bool exists;
    size_t step;
    int32_t ours, theirs;
    float margin; /* our logit of our token minus our logit of theirs */
} first_difference;

/* Our choice after every prefix of the other engine's tokens, until one differs. Up to there this is what greedy
 * generation gives: a row's bits do not depend on the rows beside it. */
static first_difference find_difference(const fixture *f, const json_t *line)
{
    size_t n, n_want, n_rows, step = 0;
    int32_t *ids = golden_ids(json_object_get(line, "ids"), &n),
            *want = golden_ids(json_object_get(json_object_get(line, "greedy"), f->name), &n_want);
    const size_t n_vocab = f->model->h.n_vocab, n_all = n + n_want - 1;
    int32_t *all = malloc(n_all * sizeof *all);
    memcpy(all, ids, n * sizeof *all);
    memcpy(all + n, want, (n_want - 1) * sizeof *all);
    first_difference d = {0};
    logits_reader r = {0};
    const float *rows;
    facet_error err;
    assert_ok(logits_open(f->engine, &r, &err), err);
    assert_ok(logits_start(&r, all, n_all, n - 1, &err), err);
    do {
        assert_ok(logits_next(&r, &rows, &n_rows, &err), err);
        for (size_t i = 0; i < n_rows && !d.exists; i++, step++) {
            const float *row = rows + i * n_vocab;
            const int32_t ours = golden_argmax(row, n_vocab), theirs = want[step];
            if (ours == theirs) continue;
            d = (first_difference){true, step, ours, theirs, row[ours] - row[theirs]};
        }
    } while (n_rows && !d.exists);
    if (!d.exists) assert_int_equal(step, n_want);
    logits_close(&r);
    free(all);
    free(ids);
    free(want);
    return d;
}

/* True when the other engine itself, on the F16 file and after the same tokens, chooses as we do: then its own rounding
 * made the difference (in the MoE model by another expert, which moves logits by whole units). */
static bool agrees_with_their_f16(const fixture *f, const json_t *line, const first_difference *d)
{
    char name[64];
    const char *type = strstr(f->name, "-Q");
    assert_non_null(type);
    snprintf(name, sizeof name, "%.*s-F16", (int)(type - f->name), f->name);
    const json_t *f16 = json_object_get(json_object_get(line, "greedy"), name),
                 *own = json_object_get(json_object_get(line, "greedy"), f->name);
    for (size_t i = 0; i < d->step; i++)
        if (json_integer_value(json_array_get(f16, i)) != json_integer_value(json_array_get(own, i))) return false;
    return json_integer_value(json_array_get(f16, d->step)) == d->ours;
}

/* Both engines round activations to 8 bits, and every value that falls on the other side of a half moves all that
 * follows. Measured on these prompts (docs/status.md), the margin of the two best tokens, where it is below 0.5,
 * differs between the engines by 0.02 to 0.07 rms, and by 0.07 to 0.29 (MoE 0.23 to 0.39) in one case of a hundred. F16
 * products round nothing: 0.003 to 0.008. */
static float margin_bound(const char *file)
{
    return strstr(file, "-F16") ? 0.02f : 0.25f;
}

static void check_offtask(const fixture *f)
{
    int n = 0, n_different = 0, n_wide = 0;
    for (size_t i = 0; i < peer.n; i++) {
        if (!is_offtask(peer.line[i])) continue;
        const first_difference d = find_difference(f, peer.line[i]);
        n++;
        if (!d.exists) continue;
        n_different++;
        n_wide += d.margin >= 0.1f;
        print_message("%s, off-task prompt %d, step %zu: %d, other engine %d, margin %.4f\n", f->name, n - 1, d.step,
                      d.ours, d.theirs, (double)d.margin);
        if (d.margin >= margin_bound(f->name) && !agrees_with_their_f16(f, peer.line[i], &d))
            fail_msg("%s, off-task prompt %d, step %zu: margin %g", f->name, n - 1, d.step, (double)d.margin);
    }
    assert_int_equal(n, N_OFFTASK);
    if (n_wide > N_OFFTASK / 4)
        fail_msg("%s: %d of %d first differences have a margin of 0.1 or more", f->name, n_wide, n_different);
}

/* The first prompt of 2000 and of 4000 tokens (all lengths up to 16000: facet eval tasks passkey.jsonl). */
static void check_passkeys(const fixture *f)
{
    assert_int_equal(passkeys.n, N_PASSKEYS);
    for (size_t i = 0; i < 5; i += 4) {
        const char *prompt = text_field(passkeys.line[i], "prompt");
        int32_t *ids;
        size_t n;
        facet_error err;
        assert_ok(facet_tokenize(f->model, prompt, strlen(prompt), true, true, &ids, &n, &err), err);
        generated g = generate(f, ids, n);
        if (!golden_is_right(g.text.data, text_field(passkeys.line[i], "answer")))
            fail_msg("%s: passkey %zu (%zu tokens): '%s'", f->name, i, n, g.text.data);
        buf_free(&g.text);
        facet_free(ids);
    }
}

static void file_equals_the_other_engine(void **state)
{
    const struct model_file *file = *state;
    char path[128];
    snprintf(path, sizeof path, "models/%s.gguf", file->name);
    TEST_NEEDS_SHARED("goldens/peer_greedy.jsonl");
    TEST_NEEDS_SHARED("models/tasks.jsonl");
    TEST_NEEDS_SHARED("models/passkey.jsonl");
    TEST_NEEDS_SHARED(path);
    fixture f = open_file(file->name);
    check_tasks(&f, file->n_right);
    check_offtask(&f);
    check_passkeys(&f);
    close_file(&f);
}

int main(void)
{
    struct CMUnitTest tests[N_FILES];
    for (size_t i = 0; i < N_FILES; i++)
        tests[i] = (struct CMUnitTest){.name = files[i].name,
                                       .test_func = file_equals_the_other_engine,
                                       .initial_state = (void *)(uintptr_t)&files[i]};
    return cmocka_run_group_tests_name("peer", tests, load, unload);
}
