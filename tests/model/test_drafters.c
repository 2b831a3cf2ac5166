/* Drafters beside their targets, driven by hand: what they propose is what the target goes on to write. */
#include "draft_reference.h"

#include <jansson.h>

#include "base/buf.h"
#include "base/rng.h"

/* ---- greedy generation with and without drafts ---- */

typedef struct tally {
    int n_prompts, n_right, n_steps, n_drafted, n_accepted, n_committed;
} tally;

static double accepted_part(const tally *t)
{
    return (double)t->n_accepted / t->n_drafted;
}

/* Chains of up to n drafts (0: plain decoding); appends the text to *out. */
static void generate(rig *r, const int32_t *prompt, int n_prompt, int n, pos_mode mode, tally *t, buf *out)
{
    enum { MAX_TOKENS = 400 };
    int32_t ids[RIG_MAX_OUT * RIG_TOP_K], draft[RIG_MAX_OUT], answer[RIG_MAX_OUT];
    float logp[RIG_MAX_OUT * RIG_TOP_K];
    detokenizer text = {0};
    rig_prefill(r, prompt, n_prompt, RIG_MAX_ROWS);
    for (int done = 0, m; done < MAX_TOKENS && !tokenizer_is_end(r->m->tok, r->pending); done += m) {
        if (n) rig_draft(r, n, mode, ids, logp);
        for (int i = 0; i < n; i++) draft[i] = ids[i * RIG_TOP_K];
        const int accepted = rig_verify(r, draft, n, answer);
        int32_t token = r->pending;
        for (m = 0; m <= accepted && !tokenizer_is_end(r->m->tok, token); token = draft[m++])
            detokenizer_push(&text, r->m->tok, token, out);
        rig_commit(r, m, answer);
        t->n_steps++;
        t->n_drafted += n;
        t->n_accepted += accepted;
        t->n_committed += m;
    }
    rig_reset(r);
}

/* The text with drafts, which must be the text without. */
static void generate_text(rig *r, const char *prompt, int n, pos_mode mode, tally *t, buf *out)
{
    facet_error err;
    int32_t *ids = NULL;
    size_t n_ids = 0, cap = 0;
    tally plain = {0};
    buf want = {0};
    assert_ok(tokenizer_encode(r->m->tok, prompt, strlen(prompt), false, SPECIAL_ALL, &ids, &n_ids, &cap, &err), err);
    generate(r, ids, (int)n_ids, n, mode, t, out);
    generate(r, ids, (int)n_ids, 0, mode, &plain, &want);
    assert_int_equal(out->len, want.len);
    assert_memory_equal(out->data, want.data, want.len);
    t->n_prompts++;
    buf_free(&want);
    mem_free(ids);
}

/* ---- acceptance on tasks with known answers ---- */

static void run_task(rig *r, const json_t *line, int n, tally *t)
{
    const char *answer = json_string_value(json_object_get(line, "answer"));
    buf text = {0};
    generate_text(r, json_string_value(json_object_get(line, "prompt")), n, POS_CONST, t, &text);
    const char *got = text.data;
    while (*got == ' ') got++; /* after a prompt of plain text the answers come without it */
    while (*answer == ' ') answer++;
    t->n_right += strncmp(got, answer, strlen(answer)) == 0;
    buf_free(&text);
}

/* Every third task of the reference set. */
static tally run_tasks(rig *r, int n)
{
    tally t = {0};
    json_error_t e;
    FILE *f = fopen(test_shared("models/tasks.jsonl"), "r");
    assert_non_null(f);
    for (int i = 0;; i++) {
        json_t *line = json_loadf(f, JSON_DISABLE_EOF_CHECK, &e);
        if (!line) break;
        if (i % 3 == 0) run_task(r, line, n, &t);
        json_decref(line);
    }
    fclose(f);
    return t;
}

typedef struct pairing {
    const char *target, *drafter;
    int n;
    double acceptance, length; /* at least */
} pairing;

static void measure(const pairing *p)
{
    char target[128], draft[128];
    snprintf(target, sizeof target, "models/%s", p->target);
    snprintf(draft, sizeof draft, "models/%s", p->drafter);
    const char *drafter_path = test_shared(draft);
    rig r = rig_open(test_shared(target), drafter_path, NULL);
    const tally t = run_tasks(&r, p->n);
    const double acceptance = accepted_part(&t), length = 1 + (double)t.n_accepted / t.n_steps;
    print_message("%s + %s, %d drafts: %d of %d answers right; accepted / drafted %.3f, mean length %.2f (%.2f tokens "
                  "per step)\n",
                  p->target, p->drafter, p->n, t.n_right, t.n_prompts, acceptance, length,
                  (double)t.n_committed / t.n_steps);
    assert_true(t.n_right >= t.n_prompts - t.n_prompts / 10);
    assert_true(acceptance > p->acceptance);
    assert_true(length > p->length);
    rig_close(&r);
}

static void test_acceptance(void **state)
{
    (void)state;
    static const pairing pairings[] = {
        {"tiny-31b-F16.gguf", "tiny-31b-mtp-F16.gguf", 4, 0.96, 4.8},
        {"tiny-31b-F16.gguf", "tiny-31b-mtp-Q8_0.gguf", 4, 0.96, 4.8},
        {"tiny-31b-F16.gguf", "tiny-31b-dflash-F16.gguf", 15, 0.70, 11},
        {"tiny-31b-F16.gguf", "tiny-31b-dflash-Q8_0.gguf", 15, 0.70, 11},
        {"tiny-31b-F16.gguf", "tiny-31b-dflash", 15, 0.70, 11},
        {"tiny-31b-F16.gguf", "tiny-31b-dflash-F16.gguf", 7, 0.88, 7},
        {"tiny-26b-a4b-F16.gguf", "tiny-26b-a4b-mtp-F16.gguf", 4, 0.96, 4.8},
        {"tiny-26b-a4b-F16.gguf", "tiny-26b-a4b-dflash-F16.gguf", 7, 0.88, 7},
        {"tiny-e2b-F16.gguf", "tiny-e2b-mtp-F16.gguf", 4, 0.96, 4.8},
    };
    TEST_NEEDS_SHARED("models/tasks.jsonl");
    for (size_t i = 0; i < sizeof pairings / sizeof *pairings; i++) measure(&pairings[i]);
}

/* ---- the bundled models ---- */

#define MODEL(name) FACET_SOURCE_DIR "/models/facet-small-" name ".gguf"
#define TARGET MODEL("Q4_K_M")

#define CHAT(user) "<bos><|turn>user\n" user "<turn|>\n<|turn>model\n<|channel>thought\n<channel|>"
static const char *const prompts[] = {
    CHAT("What is 82 - 61?"),
    CHAT("Tell me the capital of Morocco."),
    CHAT("Which month comes after June?"),
    CHAT("Say this: A frog sat near the valley and ate soup."),
    CHAT("What is the third word in this list: cold, shy, weak, yellow, village, curious, dirty?"),
    CHAT("Write JSON for an item: a orange boat with price 21."),
    CHAT("Tell a lost story about Rosa the frog, the farm, a orange boat and corn."),
    CHAT("Write a Python function first_char(s). It should return the first character of s."),
    "<bos>def count_words(string: str):\n    \"\"\" Return the number of words in string.\n    \"\"\"\n",
};
enum { N_PROMPTS = sizeof prompts / sizeof *prompts };

static double accepted_of(const char *draft, int n, pos_mode mode, const rig_options *o)
{
    rig r = rig_open(TARGET, draft, o);
    tally t = {0};
    for (int i = 0; i < N_PROMPTS; i++) {
        buf text = {0};
        generate_text(&r, prompts[i], n, mode, &t, &text);
        buf_free(&text);
    }
    rig_close(&r);
    return accepted_part(&t);
}

/* A rig with a prompt that is longer than the window of the local layers (128). */
static rig open_prefilled(const char *target, const char *draft, const rig_options *o, int n)
{
    rig r = rig_open(target, draft, o);
    rng random;
    rng_seed(&random, 11);
    int32_t t[RIG_MAX_ROWS] = {2};
    for (int i = 1; i < n; i++) t[i] = 200 + (int32_t)rng_below(&random, 1800);
    rig_prefill(&r, t, n, 60);
    return r;
}

static double worst_difference(const float *a, const double *b, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)a[i] - b[i]));
    return worst;
}

/* ---- against the formulas ---- */

/* Target, drafter and tolerance of logits: of f32 arithmetic, or of int8 activations. */
typedef struct reference_case {
    const char *target, *drafter;
    double tolerance;
} reference_case;

static const char *path_of(const char *name)
{
    return *name == '/' ? name : test_shared(name);
}

static void check_chain(const reference_case *c, const char *device)
{
    enum { STEPS = 4 };
    const rig_options o = {.device = device, .wants_logits = true};
    rig r = open_prefilled(path_of(c->target), path_of(c->drafter), &o, 200);
    const size_t V = r.m->h.n_vocab, H = r.m->h.n_embd;
    float *logits = malloc(V * sizeof *logits), *hidden = malloc(H * sizeof *hidden), logp[STEPS * RIG_TOP_K];
    double *want = malloc(V * sizeof *want), state[REF_MAX], worst = 0;
    int32_t ids[STEPS * RIG_TOP_K], token = r.pending;
    rig_read(&r, r.target_c, r.target->v_hidden, r.hidden_row, 1, hidden);
    for (size_t i = 0; i < H; i++) state[i] = (double)hidden[i];
    for (int n = 1; n <= STEPS; n++) { /* the chain again, one step longer */
        rig_chain(&r, n, POS_CONST, ids, logp);
        rig_read(&r, r.draft_c, r.draft->v_logits, 0, 1, logits);
        rig_read(&r, r.draft_c, r.draft->v_hidden, 0, 1, hidden);
        ref_mtp(&r, token, r.n, state, want);
        worst = fmax(worst, worst_difference(logits, want, V));
        token = ids[(n - 1) * RIG_TOP_K];
    }
    print_message("%s on %s: logits differ by %.2g, hidden by %.2g\n", strrchr(c->drafter, '/') + 1, device, worst,
                  worst_difference(hidden, state, H));
    assert_true(worst < c->tolerance);
    assert_true(worst_difference(hidden, state, H) < c->tolerance);
    free(logits);
    free(hidden);
    free(want);
    rig_close(&r);
}

static void test_mtp_matches_the_formulas(void **state)
{
    (void)state;
    static const reference_case cases[] = {{TARGET, MODEL("mtp-Q8_0"), 0.5},
                                           {"models/tiny-31b-F16.gguf", "models/tiny-31b-mtp-F16.gguf", 2e-3},
                                           {"models/tiny-26b-a4b-F16.gguf", "models/tiny-26b-a4b-mtp-F16.gguf", 2e-3},
                                           {"models/tiny-e2b-F16.gguf", "models/tiny-e2b-mtp-F16.gguf", 2e-3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!path_of(cases[i].target)) continue;
        check_chain(&cases[i], "cpu");
        check_chain(&cases[i], "ref");
    }
}

/* What the mask options mean, said once more. */
static bool wants_causal(block_mask mask, bool is_local)
{
    return mask == BLOCK_MASK_ALL_CAUSAL || (is_local && (mask == BLOCK_MASK_AUTO || mask == BLOCK_MASK_SWA_CAUSAL));
}

static void check_block(rig *r, block_mask mask, double tolerance, double *worst)
{
    enum { MAX = 16 };
    const size_t V = r->m->h.n_vocab;
    bool is_causal[DRAFTER_MAX_LAYERS];
    int32_t ids[MAX * RIG_TOP_K];
    float logp[MAX * RIG_TOP_K], *logits = malloc(MAX * V * sizeof *logits);
    double *want = malloc(MAX * V * sizeof *want);
    for (int l = 0; l < r->d->dflash.n_layers; l++) is_causal[l] = wants_causal(mask, r->d->dflash.layer[l].is_local);
    for (int n = r->d->dflash.block_size; n >= 2; n /= 3) {
        rig_block(r, n - 1, ids, logp);
        rig_read(r, r->draft_c, r->draft->v_logits, 0, n - 1, logits);
        ref_dflash_block(r, n, is_causal, want);
        const double d = worst_difference(logits, want, (size_t)(n - 1) * V);
        if (!(d < tolerance)) fail_msg("mask %d, %d rows: logits differ by %g", (int)mask, n, d);
        *worst = fmax(*worst, d);
    }
    free(logits);
    free(want);
}

/* The drafter's cache of the last n positions, which one target run produced, against the formulas. */
static void check_context(const rig *r, int n, double tolerance)
{
    const dflash_hparams *p = &r->d->dflash;
    const size_t H = p->n_embd;
    float k[REF_MAX], v[REF_MAX], got[REF_MAX], *f = malloc(H * (size_t)p->n_taps * sizeof *f);
    double g[REF_MAX];
    for (int i = 0; i < n; i++) {
        for (int t = 0; t < p->n_taps; t++)
            rig_read((rig *)(uintptr_t)r, r->target_c, r->target->v_capture[t], i, 1, f + (size_t)t * H);
        ref_dflash_context(r, f, g);
        for (int l = 0; l < p->n_layers; l++) {
            ref_dflash_kv(r, l, g, r->n - n + i, k, v);
            for (int h = 0; h < p->layer[l].n_kv_heads; h++)
                for (int is_v = 0; is_v < 2; is_v++) {
                    ref_cached(r, r->d->first_kv_layer + l, r->n - n + i, h, is_v, got);
                    const float *want = (is_v ? v : k) + h * p->head_dim;
                    for (int j = 0; j < p->head_dim; j++)
                        if (!(fabsf(got[j] - want[j]) <= tolerance * (1 + fabs((double)want[j]))))
                            fail_msg("layer %d, row %d, %s[%d]: %g, wanted %g", l, i, is_v ? "V" : "K", j,
                                     (double)got[j], (double)want[j]);
                }
        }
    }
    free(f);
}

static void check_dflash(const reference_case *c, const char *device, block_mask mask)
{
    double worst = 0;
    const rig_options o = {.device = device, .mask = mask, .wants_logits = true};
    rig r = open_prefilled(path_of(c->target), path_of(c->drafter), &o, 400); /* past every window */
    check_context(&r, 40, c->tolerance);
    check_block(&r, mask, c->tolerance, &worst);
    print_message("%s on %s, mask %d: logits differ by %.2g\n", strrchr(c->drafter, '/') + 1, device, (int)mask, worst);
    rig_close(&r);
}

static void test_dflash_matches_the_formulas(void **state)
{
    (void)state;
    static const reference_case cases[] = {
        {TARGET, MODEL("dflash-Q8_0"), 0.5},
        {"models/tiny-31b-F16.gguf", "models/tiny-31b-dflash-F16.gguf", 2e-3},
        {"models/tiny-26b-a4b-F16.gguf", "models/tiny-26b-a4b-dflash-F16.gguf", 2e-3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!path_of(cases[i].target)) continue;
        for (int mask = BLOCK_MASK_AUTO; mask <= BLOCK_MASK_ALL_CAUSAL; mask++)
            check_dflash(&cases[i], "cpu", (block_mask)mask);
        check_dflash(&cases[i], "ref", BLOCK_MASK_AUTO);
    }
}

/* ---- pitfalls: each spoilt drafter proposes less ---- */

static int moved; /* how far the taps are moved */

static void move_taps(drafter *d)
{
    for (int i = 0; i < d->dflash.n_taps; i++) d->dflash.tap[i] += moved;
}

static void test_pitfall_10_taps_are_counted_right(void **state)
{
    (void)state;
    double accepted[3];
    for (moved = -1; moved <= 1; moved++)
        accepted[moved + 1] =
            accepted_of(MODEL("dflash-Q8_0"), 7, POS_CONST, &(rig_options){.spoil_drafter = move_taps});
    print_message("taps one layer lower, right, higher: %.3f %.3f %.3f\n", accepted[0], accepted[1], accepted[2]);
    assert_true(accepted[1] > accepted[0] + 0.1);
    assert_true(accepted[1] > accepted[2] + 0.1);
}

static int32_t wrong_mask;

static void change_mask(drafter *d)
{
    d->dflash.mask_token = wrong_mask;
}

static void test_pitfall_11_mask_token(void **state)
{
    (void)state;
    const double right = accepted_of(MODEL("dflash-Q8_0"), 7, POS_CONST, NULL);
    /* <eos>, <bos>, <turn|>. (Tokens that the small target hardly ever saw do as well as the mask.) */
    static const int32_t others[] = {1, 2, 106};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        wrong_mask = others[i];
        const double wrong =
            accepted_of(MODEL("dflash-Q8_0"), 7, POS_CONST, &(rig_options){.spoil_drafter = change_mask});
        print_message("mask token %d: %.3f, the file's: %.3f\n", wrong_mask, wrong, right);
        assert_true(wrong < right - 0.3);
    }
}

/* Random keys (of sigma_k) and values in slots that are held. */
static void random_cache(const rig *r, int kv_layer, int32_t begin, int32_t end, float sigma_k, uint64_t seed)
{
    const attn_layer *l = &((cpu_backend *)r->be)->kv_layers[kv_layer];
    float x[512];
    rng random;
    rng_seed(&random, seed);
    for (int32_t i = begin; i < end; i++)
        for (int h = 0; h < 2 * l->desc.n_kv_heads; h++) {
            const int32_t page = r->seq.table[l->desc.group][i / KV_PAGE_LEN];
            for (int j = 0; j < l->desc.head_dim; j++) x[j] = (float)rng_normal(&random) * (h % 2 ? 1.0f : sigma_k);
            (h % 2 ? attn_put_v : attn_put_k)(l, page, i % KV_PAGE_LEN, h / 2, x);
        }
}

/* Holds slots [begin, end), in local groups those in the window of end. */
static void reserve(rig *r, int32_t begin, int32_t end)
{
    facet_error err;
    kv_copy copies[KV_MAX_GROUPS * 4];
    for (int32_t at = begin; at < end; at += KV_PAGE_LEN) {
        const int32_t stop = at + KV_PAGE_LEN < end ? at + KV_PAGE_LEN : end;
        int n = 0;
        assert_ok(kv_seq_reserve(r->pool, &r->seq, at, stop, copies, &n, &err), err);
        kv_seq_release_window(r->pool, &r->seq, stop - 1);
    }
}

/* Positions far out: the frequencies are the file's, for heads of 128, 256 and 512 dims. */
static void test_pitfall_12_rotation_at_5000_dflash(void **state)
{
    (void)state;
    enum { C = 5000, DRAFT_CTX = 2000 };
    const rig_options o = {.draft_ctx = DRAFT_CTX, .wants_logits = true};
    rig r = rig_open(TARGET, MODEL("dflash-Q8_0"), &o);
    double worst = 0;
    assert_true(r.d->dflash.rope_base == 1e6 && r.d->dflash.head_dim == 128);
    for (int i = 0; i < r.draft->n_ops; i++) { /* all 64 pairs turn, by 1e6^(-2i/128) */
        const plan_op *op = &r.draft->ops[i];
        if (op->kind != OP_ROPE_Q && op->kind != OP_KV_WRITE) continue;
        assert_int_equal(op->n_rot, 64);
        for (int j = 0; j < 64; j++) assert_true(fabs(op->inv_freq[j] / pow(1e6, -2.0 * j / 128) - 1) < 1e-12);
    }
    reserve(&r, C - DRAFT_CTX - 64, C);
    for (int l = 0; l < r.d->dflash.n_layers; l++)
        random_cache(&r, r.d->first_kv_layer + l, C - DRAFT_CTX, C, 1, 5 + (uint64_t)l);
    r.n = C;
    r.pending = 300;
    check_block(&r, BLOCK_MASK_AUTO, 0.5, &worst);
    rig_close(&r);
}

static void test_pitfall_16_rotation_at_5000_mtp(void **state)
{
    (void)state;
    enum { C = 5000 };
    const rig_options o = {.wants_logits = true};
    rig r = open_prefilled(TARGET, MODEL("mtp-Q8_0"), &o, 5);
    const size_t V = r.m->h.n_vocab, H = r.m->h.n_embd;
    reserve(&r, 5, C);
    for (int l = 0; l < r.m->h.n_layers; l++)
        random_cache(&r, l, r.m->h.layers[l].is_local ? C - 128 : 0, C, 0.1f, 50 + (uint64_t)l);
    r.n = C;
    for (pos_mode mode = POS_CONST; mode <= POS_CONST_BEFORE; mode++) {
        float *logits = malloc(V * sizeof *logits), *hidden = malloc(H * sizeof *hidden), logp[RIG_TOP_K];
        double *want = malloc(V * sizeof *want), h[REF_MAX];
        int32_t ids[RIG_TOP_K];
        rig_read(&r, r.target_c, r.target->v_hidden, 0, 1, hidden);
        for (size_t i = 0; i < H; i++) h[i] = (double)hidden[i];
        rig_chain(&r, 1, mode, ids, logp);
        rig_read(&r, r.draft_c, r.draft->v_logits, 0, 1, logits);
        ref_mtp(&r, r.pending, mode == POS_CONST ? C : C - 1, h, want);
        assert_true(worst_difference(logits, want, V) < 0.5);
        free(logits);
        free(hidden);
        free(want);
    }
    for (int i = 0; i < r.draft->n_ops; i++) { /* proportional: of 256 pairs the first 64 turn, by 1e6^(-2i/512) */
        const plan_op *op = &r.draft->ops[i];
        if (op->kind != OP_ROPE_Q || op->head_dim != 512) continue;
        assert_int_equal(op->n_rot, 64);
        for (int j = 0; j < 64; j++) assert_true(fabs(op->inv_freq[j] / pow(1e6, -2.0 * j / 512) - 1) < 1e-12);
    }
    rig_close(&r);
}

static void test_pitfall_16_position_of_a_chain(void **state)
{
    (void)state;
    double accepted[3];
    for (pos_mode mode = POS_CONST; mode <= POS_INCR; mode++)
        accepted[mode] = accepted_of(MODEL("mtp-Q8_0"), 4, mode, NULL);
    print_message("position C, C - 1, C + step: %.3f %.3f %.3f\n", accepted[0], accepted[1], accepted[2]);
    assert_true(accepted[POS_CONST] >= accepted[POS_CONST_BEFORE] && accepted[POS_CONST] >= accepted[POS_INCR]);
}

static float embd_factor;

static void scale_embd(plan *p)
{
    int n = 0;
    for (int i = 0; i < p->n_ops; i++) {
        if (p->ops[i].kind != OP_EMBED) continue;
        assert_true(fabsf(p->ops[i].scale - 16) < 1e-5f); /* sqrt(256) */
        p->ops[i].scale *= embd_factor;
        n++;
    }
    assert_int_equal(n, 1);
}

static void test_pitfall_13_embedding_scale(void **state)
{
    (void)state;
    static const char *const drafters[] = {MODEL("mtp-Q8_0"), MODEL("dflash-Q8_0")};
    for (int i = 0; i < 2; i++) {
        const int n = i ? 7 : 4;
        const double right = accepted_of(drafters[i], n, POS_CONST, NULL);
        for (embd_factor = 1.0f / 16; embd_factor <= 16; embd_factor *= 256) {
            const double wrong = accepted_of(drafters[i], n, POS_CONST, &(rig_options){.spoil_plan = scale_embd});
            print_message("embedding times %g: %.3f instead of %.3f\n", (double)embd_factor, wrong, right);
            assert_true(wrong < right - 0.1);
        }
    }
}

/* The hidden that the target hands over is the one its own head reads, in every row of a verification. */
static void test_pitfall_14_hidden_of_every_row(void **state)
{
    (void)state;
    enum { N = 17 };
    rig r = open_prefilled(TARGET, MODEL("mtp-Q8_0"), NULL, 150);
    const size_t V = r.m->h.n_vocab, H = r.m->h.n_embd;
    int32_t draft[N - 1], answer[N];
    float *hidden = malloc(N * H * sizeof *hidden);
    double *logits = malloc(V * sizeof *logits), h[REF_MAX];
    for (int i = 0; i < N - 1; i++) draft[i] = 250 + 13 * i;
    rig_verify(&r, draft, N - 1, answer);
    rig_read(&r, r.target_c, r.target->v_hidden, 0, N, hidden);
    for (int i = 0; i < N; i++) {
        for (size_t j = 0; j < H; j++) h[j] = (double)hidden[(size_t)i * H + j];
        ref_logits(&r.m->w, r.m->w.output, h, 30, logits);
        size_t best = 0;
        for (size_t j = 1; j < V; j++)
            if (logits[j] > logits[best]) best = j;
        assert_true((int32_t)best == answer[i] || logits[best] - logits[answer[i]] < 0.1); /* int8 activations */
    }
    free(hidden);
    free(logits);
    rig_close(&r);
}

static void swap_concat(plan *p)
{
    for (int i = 0; i < p->n_ops; i++) {
        plan_op *op = &p->ops[i];
        if (op->kind != OP_CONCAT) continue;
        assert_int_equal(op->i1, p->v_in_hidden);
        op->i1 = op->i0;
        op->i0 = p->v_in_hidden;
    }
}

static void test_pitfall_15_embedding_stands_first(void **state)
{
    (void)state;
    const double right = accepted_of(MODEL("mtp-Q8_0"), 4, POS_CONST, NULL),
                 wrong = accepted_of(MODEL("mtp-Q8_0"), 4, POS_CONST, &(rig_options){.spoil_plan = swap_concat});
    print_message("hidden first: %.3f instead of %.3f\n", wrong, right);
    assert_true(wrong < 0.2 && right > 0.9);
}

/* ---- pitfalls: donors ---- */

typedef struct donor_case {
    const char *target, *drafter;
    int donors[4];
} donor_case;

static void test_pitfall_17_each_layer_has_its_donor(void **state)
{
    (void)state;
    static const donor_case cases[] = {
        {TARGET, MODEL("mtp-Q8_0"), {4, 4, 4, 5}},
        {"models/tiny-26b-a4b-F16.gguf", "models/tiny-26b-a4b-mtp-F16.gguf", {3, 3, 3, 4}},
        {"models/tiny-e2b-F16.gguf", "models/tiny-e2b-mtp-F16.gguf", {1, 1, 1, 2}}, /* the owners, not the sharers */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!path_of(cases[i].target)) continue;
        rig r = rig_open(path_of(cases[i].target), path_of(cases[i].drafter), NULL);
        for (int l = 0, at = 0; l < 4; l++) {
            assert_int_equal(r.d->mtp.layer[l].donor, cases[i].donors[l]);
            while (r.draft->ops[at].kind != OP_ATTN) at++;
            const plan_op *op = &r.draft->ops[at++];
            assert_int_equal(op->kv_layer, cases[i].donors[l]);
            assert_int_equal(r.kv.layers[op->kv_layer].group, l < 3 ? KV_GROUP_LOCAL : KV_GROUP_GLOBAL);
            assert_int_equal(op->window, l < 3 ? 128 : 0);
            assert_int_equal(op->sight, SIGHT_COMMITTED);
        }
        rig_close(&r);
    }
}

/* What lies at C and behind is nobody's business, and what lies before the window is not that of the local layers. */
static void test_pitfall_17_only_committed_keys_count(void **state)
{
    (void)state;
    enum { C = 200, STEPS = 3 };
    rig r = open_prefilled(TARGET, MODEL("mtp-Q8_0"), NULL, C);
    int32_t ids[2][STEPS * RIG_TOP_K];
    float logp[3][STEPS * RIG_TOP_K];
    rig_chain(&r, STEPS, POS_INCR, ids[0], logp[0]);
    reserve(&r, C, C + 40);
    for (int l = 0; l < r.m->h.n_layers; l++) random_cache(&r, l, C, C + 40, 1, 9);
    random_cache(&r, 4, C / KV_PAGE_LEN * KV_PAGE_LEN - 128, C - 128 + 1, 1, 9); /* C - p >= 128 */
    rig_chain(&r, STEPS, POS_INCR, ids[1], logp[1]);
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    assert_memory_equal(logp[0], logp[1], sizeof logp[0]);
    random_cache(&r, 4, C - 127, C - 126, 1, 9); /* the oldest key that counts */
    rig_chain(&r, STEPS, POS_INCR, ids[1], logp[2]);
    assert_memory_not_equal(logp[0], logp[2], sizeof logp[0]);
    random_cache(&r, 5, 0, 1, 1, 9); /* the first key of the global donor */
    rig_chain(&r, STEPS, POS_INCR, ids[1], logp[1]);
    assert_memory_not_equal(logp[1], logp[2], sizeof logp[1]);
    rig_close(&r);
}

/* Rows of two sequences with different lengths, several of each, against every row alone: the same bits. */
static void test_pitfall_17_sequences_in_one_batch(void **state)
{
    (void)state;
    enum { N = 9, SHORT = 37 };
    for (int n_threads = 1; n_threads <= 3; n_threads += 2) {
        const rig_options o = {.n_threads = n_threads};
        rig r = open_prefilled(TARGET, MODEL("mtp-Q8_0"), &o, 200);
        facet_error err;
        const uint32_t H = r.m->h.n_embd;
        float *hidden = malloc(N * H * sizeof *hidden), *out[2];
        int32_t ids[2][N * RIG_TOP_K], tokens[N], pos[N], seq[N];
        float logp[2][N * RIG_TOP_K];
        batch_seq views[2] = {{.base = r.n}, {.base = r.n - SHORT}};
        rng random;
        rng_seed(&random, 4);
        for (int g = 0; g < 2; g++) views[0].table[g] = views[1].table[g] = r.seq.table[g];
        for (int i = 0; i < N; i++) {
            seq[i] = i % 3 == 1;
            pos[i] = views[seq[i]].base;
            tokens[i] = 210 + 31 * i;
        }
        for (size_t i = 0; i < N * H; i++) hidden[i] = (float)rng_normal(&random);
        for (int pass = 0; pass < 2; pass++) { /* together; then each alone */
            out[pass] = malloc(N * H * sizeof *hidden);
            const int rows = pass ? 1 : N;
            for (int at = 0; at < N; at += rows) {
                const batch b = {.n_rows = rows,
                                 .token = tokens,
                                 .pos = pos + at,
                                 .slot = pos + at,
                                 .seq = seq + at,
                                 .n_seqs = 2,
                                 .seqs = views};
                const backend_ops *be = r.be->ops;
                assert_ok(be->write(r.be, r.draft_c, r.draft->v_in_token, 0, rows, tokens + at, &err), err);
                assert_ok(be->write(r.be, r.draft_c, r.draft->v_in_hidden, 0, rows, hidden + (size_t)at * H, &err),
                          err);
                assert_ok(be->run(r.be, r.draft_c, &b, &err), err);
                rig_read(&r, r.draft_c, r.draft->v_top_ids, 0, rows, ids[pass] + at * RIG_TOP_K);
                rig_read(&r, r.draft_c, r.draft->v_top_logp, 0, rows, logp[pass] + at * RIG_TOP_K);
                rig_read(&r, r.draft_c, r.draft->v_hidden, 0, rows, out[pass] + (size_t)at * H);
            }
        }
        assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
        assert_memory_equal(logp[0], logp[1], sizeof logp[0]);
        assert_memory_equal(out[0], out[1], N * H * sizeof *hidden);
        free(hidden);
        free(out[0]);
        free(out[1]);
        rig_close(&r);
    }
}

static void test_pitfall_18_cache_types(void **state)
{
    (void)state;
    static const char *const drafters[] = {MODEL("mtp-Q8_0"), MODEL("dflash-Q8_0")};
    for (int i = 0; i < 2; i++) {
        double accepted[KV_TYPE_COUNT];
        for (int t = 0; t < KV_TYPE_COUNT; t++) {
            accepted[t] = accepted_of(drafters[i], i ? 7 : 4, POS_CONST, &(rig_options){.cache = (kv_type)t});
            print_message("cache %s: %.3f\n", kv_type_get((kv_type)t)->name, accepted[t]);
            assert_true(fabs(accepted[t] - accepted[KV_F16]) < 0.03);
        }
    }
}

/* ---- pitfalls: the context of DFlash ---- */

/* K and V of a drafter layer's slots [begin, end): bits. */
static float *read_context(const rig *r, int l, int32_t begin, int32_t end, bool is_v)
{
    const dflash_hparams *p = &r->d->dflash;
    const size_t width = (size_t)(p->layer[l].n_kv_heads * p->head_dim);
    float *x = malloc((size_t)(end - begin) * width * sizeof *x), *at = x;
    for (int32_t i = begin; i < end; i++)
        for (int h = 0; h < p->layer[l].n_kv_heads; h++, at += p->head_dim)
            ref_cached(r, r->d->first_kv_layer + l, i, h, is_v, at);
    return x;
}

static size_t context_bytes(const rig *r, int l, int32_t n)
{
    return (size_t)n * (size_t)(r->d->dflash.layer[l].n_kv_heads * r->d->dflash.head_dim) * sizeof(float);
}

static void test_pitfall_19_values_do_not_turn(void **state)
{
    (void)state;
    enum { N = 3, NEAR = 128, FAR = 3072 };
    const rig_options o = {.draft_ctx = 64};
    rig r = open_prefilled(TARGET, MODEL("dflash-Q8_0"), &o, 60);
    static const int32_t none[N];
    rig_run(&r, r.inject_c, none, NEAR, N, N, false); /* the same features at two places */
    rig_run(&r, r.inject_c, none, FAR, N, N, false);
    for (int l = 0; l < r.d->dflash.n_layers; l++)
        for (int is_v = 0; is_v < 2; is_v++) {
            float *a = read_context(&r, l, NEAR, NEAR + N, is_v), *b = read_context(&r, l, FAR, FAR + N, is_v);
            const int differ = memcmp(a, b, context_bytes(&r, l, N)) != 0;
            assert_int_equal(differ, !is_v);
            free(a);
            free(b);
        }
    rig_close(&r);
}

static void test_pitfall_21_one_norm_before_the_shared_head(void **state)
{
    (void)state;
    rig r = rig_open(TARGET, MODEL("dflash-Q8_0"), NULL);
    const plan *p = r.draft;
    const plan_op *head = NULL, *norm = NULL;
    for (int i = 0; i < p->n_ops; i++) {
        assert_true(p->ops[i].w0 != r.m->w.output_norm);
        if (p->ops[i].epilogue == EPI_LOGITS) head = &p->ops[i];
    }
    assert_non_null(head);
    assert_int_equal(head->w0, r.m->w.output);
    for (int i = 0; i < p->n_ops; i++)
        if (p->ops[i].o == head->i0) norm = &p->ops[i];
    assert_int_equal(norm->kind, OP_NORM);
    assert_int_equal(norm->w0, r.d->first_weight + r.d->w.output_norm);
    for (int i = 0; i < p->n_ops; i++)
        if (p->ops[i].o == norm->i0) assert_int_equal(p->ops[i].kind, OP_GATHER);
    rig_close(&r);
}

/* Steps with every number of wrong drafts, blocks run between: afterwards the context holds what a fresh injection of
 * the committed tokens gives, bit for bit. */
static void test_pitfall_22_23_context_is_that_of_the_committed_tokens(void **state)
{
    (void)state;
    enum { PROMPT = 100, STEPS = 20 };
    rig r = open_prefilled(TARGET, MODEL("dflash-Q8_0"), NULL, PROMPT), fresh;
    int32_t tokens[RIG_MAX_ROWS] = {2}, ids[7 * RIG_TOP_K], draft[7], answer[8];
    float logp[7 * RIG_TOP_K];
    rng random;
    rng_seed(&random, 11);
    for (int i = 1; i < PROMPT; i++) tokens[i] = 200 + (int32_t)rng_below(&random, 1800); /* as open_prefilled */
    for (int step = 0; step < STEPS; step++) {
        rig_block(&r, 7, ids, logp);
        for (int i = 0; i < 7; i++) draft[i] = ids[i * RIG_TOP_K] + (i == step % 8); /* one wrong, or none */
        const int m = 1 + rig_verify(&r, draft, 7, answer);
        tokens[r.n] = r.pending;
        for (int i = 1; i < m; i++) tokens[r.n + i] = draft[i - 1];
        rig_commit(&r, m, answer);
    }
    rig_block(&r, 7, ids, logp);
    fresh = rig_open(TARGET, MODEL("dflash-Q8_0"), NULL);
    rig_prefill(&fresh, tokens, r.n, RIG_MAX_ROWS);
    assert_int_equal(fresh.n, r.n);
    assert_int_equal(fresh.pending, r.pending);
    for (int l = 0; l < r.d->dflash.n_layers; l++)
        for (int is_v = 0; is_v < 2; is_v++) {
            float *a = read_context(&r, l, 0, r.n, is_v), *b = read_context(&fresh, l, 0, r.n, is_v);
            assert_memory_equal(a, b, context_bytes(&r, l, r.n));
            free(a);
            free(b);
        }
    rig_close(&r);
    rig_close(&fresh);
}

/* A prompt of several draft contexts, in small pieces and in one: pages stay bounded, and the draft is the same. */
static void test_pitfall_24_25_prompt_longer_than_the_draft_context(void **state)
{
    (void)state;
    enum { DRAFT_CTX = 100, N = 450 };
    const rig_options o = {.draft_ctx = DRAFT_CTX, .wants_logits = true};
    float *logits[2], logp[15 * RIG_TOP_K];
    int32_t ids[15 * RIG_TOP_K], tokens[N] = {2};
    size_t bytes = 0;
    for (int i = 1; i < N; i++) tokens[i] = 200 + 7 * i % 1800;
    for (int pass = 0; pass < 2; pass++) {
        rig r = rig_open(TARGET, MODEL("dflash-Q8_0"), &o);
        rig_prefill(&r, tokens, N, pass ? N : 33);
        const int32_t held = r.kv.groups[KV_GROUP_DRAFT].n_pages - kv_pool_free_pages(r.pool, KV_GROUP_DRAFT);
        assert_true(held <= DRAFT_CTX / KV_PAGE_LEN + 2);
        double worst = 0;
        check_block(&r, BLOCK_MASK_AUTO, 0.5, &worst);
        rig_block(&r, 15, ids, logp);
        bytes = 15 * (size_t)r.m->h.n_vocab * sizeof(float);
        logits[pass] = malloc(bytes);
        rig_read(&r, r.draft_c, r.draft->v_logits, 0, 15, logits[pass]);
        rig_close(&r);
    }
    assert_memory_equal(logits[0], logits[1], bytes);
    free(logits[0]);
    free(logits[1]);
}

/* ---- bits ---- */

/* With a causal mask a row of the block does not depend on the rows behind it; without, it does. */
static void test_block_rows_and_width(void **state)
{
    (void)state;
    for (int n_threads = 1; n_threads <= 3; n_threads += 2)
        for (int is_causal = 0; is_causal < 2; is_causal++) {
            const rig_options o = {.n_threads = n_threads,
                                   .mask = is_causal ? BLOCK_MASK_ALL_CAUSAL : BLOCK_MASK_ALL_BIDIR,
                                   .wants_logits = true};
            rig r = open_prefilled(TARGET, MODEL("dflash-Q8_0"), &o, 150);
            const size_t V = r.m->h.n_vocab;
            float *wide = malloc(15 * V * sizeof *wide), *narrow = malloc(15 * V * sizeof *narrow),
                  logp[15 * RIG_TOP_K];
            int32_t ids[15 * RIG_TOP_K];
            rig_block(&r, 15, ids, logp);
            rig_read(&r, r.draft_c, r.draft->v_logits, 0, 15, wide);
            for (int n = 1; n < 15; n++) {
                rig_block(&r, n, ids, logp);
                rig_read(&r, r.draft_c, r.draft->v_logits, 0, n, narrow);
                assert_int_equal(memcmp(wide, narrow, (size_t)n * V * sizeof *wide) == 0, is_causal);
            }
            free(wide);
            free(narrow);
            rig_close(&r);
        }
}

/* The chain that stays on the device, and one whose every result passes through the host. */
static void test_chain_by_way_of_the_host(void **state)
{
    (void)state;
    enum { STEPS = 6 };
    rig r = open_prefilled(TARGET, MODEL("mtp-Q8_0"), NULL, 200);
    facet_error err;
    int32_t ids[STEPS * RIG_TOP_K], one[RIG_TOP_K], token = r.pending;
    float logp[STEPS * RIG_TOP_K], one_logp[RIG_TOP_K], *hidden = malloc(r.m->h.n_embd * sizeof *hidden);
    rig_chain(&r, STEPS, POS_CONST, ids, logp);
    rig_read(&r, r.target_c, r.target->v_hidden, r.hidden_row, 1, hidden);
    for (int i = 0; i < STEPS; i++) {
        const int32_t seq = 0;
        batch_seq view = {.base = r.n};
        for (int g = 0; g < r.kv.n_groups; g++) view.table[g] = r.seq.table[g];
        const batch b = {
            .n_rows = 1, .token = &token, .pos = &r.n, .slot = &r.n, .seq = &seq, .n_seqs = 1, .seqs = &view};
        assert_ok(r.be->ops->write(r.be, r.draft_c, r.draft->v_in_token, 0, 1, &token, &err), err);
        assert_ok(r.be->ops->write(r.be, r.draft_c, r.draft->v_in_hidden, 0, 1, hidden, &err), err);
        assert_ok(r.be->ops->run(r.be, r.draft_c, &b, &err), err);
        rig_read(&r, r.draft_c, r.draft->v_top_ids, 0, 1, one);
        rig_read(&r, r.draft_c, r.draft->v_top_logp, 0, 1, one_logp);
        rig_read(&r, r.draft_c, r.draft->v_hidden, 0, 1, hidden);
        assert_memory_equal(one, ids + i * RIG_TOP_K, sizeof one);
        assert_memory_equal(one_logp, logp + i * RIG_TOP_K, sizeof one_logp);
        token = one[0];
    }
    free(hidden);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mtp_matches_the_formulas),
        cmocka_unit_test(test_dflash_matches_the_formulas),
        cmocka_unit_test(test_pitfall_10_taps_are_counted_right),
        cmocka_unit_test(test_pitfall_11_mask_token),
        cmocka_unit_test(test_pitfall_12_rotation_at_5000_dflash),
        cmocka_unit_test(test_pitfall_13_embedding_scale),
        cmocka_unit_test(test_pitfall_14_hidden_of_every_row),
        cmocka_unit_test(test_pitfall_15_embedding_stands_first),
        cmocka_unit_test(test_pitfall_16_rotation_at_5000_mtp),
        cmocka_unit_test(test_pitfall_16_position_of_a_chain),
        cmocka_unit_test(test_pitfall_17_each_layer_has_its_donor),
        cmocka_unit_test(test_pitfall_17_only_committed_keys_count),
        cmocka_unit_test(test_pitfall_17_sequences_in_one_batch),
        cmocka_unit_test(test_pitfall_18_cache_types),
        cmocka_unit_test(test_pitfall_19_values_do_not_turn),
        cmocka_unit_test(test_pitfall_21_one_norm_before_the_shared_head),
        cmocka_unit_test(test_pitfall_22_23_context_is_that_of_the_committed_tokens),
        cmocka_unit_test(test_pitfall_24_25_prompt_longer_than_the_draft_context),
        cmocka_unit_test(test_block_rows_and_width),
        cmocka_unit_test(test_chain_by_way_of_the_host),
        cmocka_unit_test(test_acceptance),
    };
    return cmocka_run_group_tests_name("drafters", tests, NULL, NULL);
}
