/* bench_kv_types: which way to keep K and V in 3 to 5 bits loses least, at equal bytes.
 *
 *     bench_kv_types [VECTORS]
 *     bench_kv_types MODEL.gguf TEXT CTX [BITS]
 *
 * First form: error of attention on made-up vectors, and on those of a folder (attn_q.f32, attn_k.f32, attn_v.f32).
 * Second form: divergence of the model's next token over the first 2 CTX tokens of TEXT (-: the text of `facet eval
 * needle`): means and channels are learnt from CTX tokens, of the next CTX the second half is scored. BITS: only the
 * ways that take so many bits per value.
 *
 * The ways need no kernel: the engine keeps a cache of f32, and what is written into it has gone through the codes of
 * kv_codes.h (the linker puts this program's functions before attn_put_k and attn_put_v). Markdown on standard output.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/file_map.h"
#include "base/mem.h"
#include "compute/cpu/attn.h"
#include "decode/needle.h"
#include "decode/score.h"
#include "kv_codes.h"
#include "model/model.h"

static const scheme schemes[] = {
    {.name = "q8_0", .code = CODE_Q8_0},
    {.name = "q4_0", .code = CODE_Q4_0},
    {.name = "rot_q4_0", .turn = TURN_128, .code = CODE_Q4_0},
    {.name = "rot_q4_0, codes by search", .turn = TURN_128, .code = CODE_Q4_0_FIT},
    {.name = "q4_0 rotated over the head", .turn = TURN_HEAD, .code = CODE_Q4_0},
    {.name = "rotated iq4_nl", .turn = TURN_128, .code = CODE_IQ4_NL},
    {.name = "iq4_nl rotated over the head", .turn = TURN_HEAD, .code = CODE_IQ4_NL},
    {.name = "rotated, 4-bit levels", .turn = TURN_128, .code = CODE_LM4_32},
    {.name = ".. K by squares, too", .turn = TURN_128, .code = CODE_LM4_32S},
    {.name = ".. rotated over the head", .turn = TURN_HEAD, .code = CODE_LM4_32},
    {.name = ".. means kept apart", .turn = TURN_128, .code = CODE_LM4_32, .takes_mean = true},
    {.name = ".. scales by channel", .turn = TURN_128, .code = CODE_LM4_32, .takes_channels = true},
    {.name = ".. last 128 exact", .turn = TURN_128, .code = CODE_LM4_32, .n_recent = 128},
    {.name = ".. one scale for 128", .turn = TURN_128, .code = CODE_LM4_128},
    {.name = "tq3_0", .code = CODE_TQ3_0},
    {.name = "rotated, 3-bit levels", .turn = TURN_128, .code = CODE_LM3_32},
    {.name = ".. K by squares, too", .turn = TURN_128, .code = CODE_LM3_32S},
    {.name = ".. rotated over the head", .turn = TURN_HEAD, .code = CODE_LM3_32},
    {.name = ".. means kept apart", .turn = TURN_128, .code = CODE_LM3_32, .takes_mean = true},
    {.name = ".. scales by channel", .turn = TURN_128, .code = CODE_LM3_32, .takes_channels = true},
    {.name = ".. last 128 exact", .turn = TURN_128, .code = CODE_LM3_32, .n_recent = 128},
    {.name = ".. one scale for 128", .turn = TURN_128, .code = CODE_LM3_128},
    {.name = ".. RoPE's pairs in q4_0", .turn = TURN_128, .code = CODE_LM3_32, .apart = CODE_Q4_0},
    {.name = ".. RoPE's pairs in q8_0", .turn = TURN_128, .code = CODE_LM3_32, .apart = CODE_Q8_0},
};
enum { N_SCHEMES = sizeof schemes / sizeof *schemes };

static void die(const facet_error *err)
{
    fprintf(stderr, "bench_kv_types: %s\n", err->message);
    exit(1);
}

/* ---- attention on vectors ---- */

typedef struct vectors {
    int n_queries, n_keys, n_dim;
    float *q, *k, *v;
} vectors;

static void attend(const vectors *w, const float *k, const float *v, int query, double *out)
{
    double *score = calloc((size_t)w->n_keys, sizeof *score), max = -INFINITY, sum = 0;
    for (int i = 0; i < w->n_keys; i++) {
        for (int d = 0; d < w->n_dim; d++) score[i] += (double)w->q[query * w->n_dim + d] * k[i * w->n_dim + d];
        max = fmax(max, score[i]);
    }
    for (int d = 0; d < w->n_dim; d++) out[d] = 0;
    for (int i = 0; i < w->n_keys; i++) {
        const double p = exp(score[i] - max);
        sum += p;
        for (int d = 0; d < w->n_dim; d++) out[d] += p * v[i * w->n_dim + d];
    }
    for (int d = 0; d < w->n_dim; d++) out[d] /= sum;
    free(score);
}

static void learn(head_facts *f, const float *x, int n, int n_dim)
{
    *f = (head_facts){.head_dim = n_dim, .n_pairs = n_dim / 8};
    for (int d = 0; d < n_dim; d++) {
        double sum = 0, squares = 0;
        for (int i = 0; i < n; i++) {
            sum += x[i * n_dim + d];
            squares += (double)x[i * n_dim + d] * x[i * n_dim + d];
        }
        f->mean[d] = (float)(sum / n);
        f->rms[d] = (float)sqrt(squares / n + 1e-12);
    }
}

/* Squared error of the output over its square; which: 1 codes K, 2 V, 3 both. */
static double attention_error(const vectors *w, const scheme *s, int which)
{
    const size_t n = (size_t)(w->n_keys * w->n_dim) * sizeof(float);
    float *k = malloc(n), *v = malloc(n);
    double want[CODE_MAX_DIM], got[CODE_MAX_DIM], error = 0, power = 0;
    head_facts fk, fv;
    learn(&fk, w->k, w->n_keys, w->n_dim);
    learn(&fv, w->v, w->n_keys, w->n_dim);
    memcpy(k, w->k, n);
    memcpy(v, w->v, n);
    for (int i = 0; i + s->n_recent < w->n_keys; i++) {
        if (which & 1) code_row(s, &fk, false, w->k + i * w->n_dim, k + i * w->n_dim);
        if (which & 2) code_row(s, &fv, true, w->v + i * w->n_dim, v + i * w->n_dim);
    }
    for (int q = 0; q < w->n_queries; q++) {
        attend(w, w->k, w->v, q, want);
        attend(w, k, v, q, got);
        for (int d = 0; d < w->n_dim; d++) {
            error += (got[d] - want[d]) * (got[d] - want[d]);
            power += want[d] * want[d];
        }
    }
    free(k);
    free(v);
    return error / power;
}

/* Normal values; n_large channels of the keys are six times as large. Scores have the standard deviation 2.7. */
static vectors made_up(uint64_t seed, int n_large)
{
    vectors w = {.n_queries = 16, .n_keys = 1024, .n_dim = 512};
    rng r;
    rng_seed(&r, seed);
    w.q = malloc((size_t)(w.n_queries * w.n_dim) * sizeof *w.q);
    w.k = malloc((size_t)(w.n_keys * w.n_dim) * sizeof *w.k);
    w.v = malloc((size_t)(w.n_keys * w.n_dim) * sizeof *w.v);
    for (int i = 0; i < w.n_keys * w.n_dim; i++) {
        const bool is_large = i % w.n_dim % 37 == 5 && i % w.n_dim / 37 < n_large;
        w.k[i] = (float)rng_normal(&r) * (is_large ? 6.0f : 1.0f);
        w.v[i] = (float)rng_normal(&r);
    }
    const double power = w.n_dim + 35.0 * n_large;
    for (int i = 0; i < w.n_queries * w.n_dim; i++) w.q[i] = (float)(rng_normal(&r) * 2.7 / sqrt(power));
    return w;
}

static void vectors_free(vectors *w)
{
    free(w->q);
    free(w->k);
    free(w->v);
}

static double mean_error(const scheme *s, int n_large, int which)
{
    enum { SEEDS = 4 };
    double sum = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        vectors w = made_up(seed, n_large);
        sum += attention_error(&w, s, which) / SEEDS;
        vectors_free(&w);
    }
    return sum;
}

static float *read_floats(const char *folder, const char *name, size_t *n)
{
    char path[1024], *data;
    size_t bytes;
    facet_error err;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (file_read_all(path, 1 << 26, &data, &bytes, &err) != FACET_OK) die(&err);
    *n = bytes / sizeof(float);
    float *x = malloc(bytes);
    memcpy(x, data, bytes);
    mem_free(data);
    return x;
}

static void attention_table(const char *folder)
{
    vectors given = {.n_dim = 512};
    size_t n = 0;
    if (folder) {
        given.q = read_floats(folder, "attn_q.f32", &n);
        given.n_queries = (int)n / 512;
        given.k = read_floats(folder, "attn_k.f32", &n);
        given.v = read_floats(folder, "attn_v.f32", &n);
        given.n_keys = (int)n / 512;
    }
    printf("| scheme | bits | normal: K | V | 8 large channels: K |%s\n|---|---|---|---|---|%s\n",
           folder ? " vectors given: K | V |" : "", folder ? "---|---|" : "");
    for (int i = 0; i < N_SCHEMES; i++) {
        const scheme *s = &schemes[i];
        printf("| %s | %.3g | %.3g | %.3g | %.3g |", s->name, scheme_bits(s), mean_error(s, 0, 1), mean_error(s, 0, 2),
               mean_error(s, 8, 1));
        if (folder) printf(" %.3g | %.3g |", attention_error(&given, s, 1), attention_error(&given, s, 2));
        putchar('\n');
        fflush(stdout);
    }
    vectors_free(&given);
}

/* ---- divergence of a model ---- */

enum { MAX_HEADS = 64, MAX_RECENT = 256 };

/* What is known of K (axis 0) and V (axis 1) of one head of one layer. */
typedef struct head_state {
    const attn_layer *layer;
    int head;
    head_facts facts[2];
    double sum[2][CODE_MAX_DIM], squares[2][CODE_MAX_DIM];
    long n[2];
    struct place {
        int32_t page;
        int slot;
    } recent[2][MAX_RECENT]; /* of the last rows, which are exact */
    int n_recent[2], next[2];
    double error[2], power[2];
} head_state;

static struct {
    head_state heads[MAX_HEADS];
    int n_heads;
    bool is_learning;
    const scheme *code[2];
} world;

void __real_attn_put_k(const attn_layer *l, int32_t page, int slot, int kv_head, const float *x);
void __real_attn_put_v(const attn_layer *l, int32_t page, int slot, int kv_head, const float *x);
void __wrap_attn_put_k(const attn_layer *l, int32_t page, int slot, int kv_head, const float *x);
void __wrap_attn_put_v(const attn_layer *l, int32_t page, int slot, int kv_head, const float *x);

static head_state *state_of(const attn_layer *l, int head)
{
    for (int i = 0; i < world.n_heads; i++)
        if (world.heads[i].layer == l && world.heads[i].head == head) return &world.heads[i];
    if (world.n_heads == MAX_HEADS) {
        fprintf(stderr, "bench_kv_types: more than %d heads\n", MAX_HEADS);
        exit(1);
    }
    head_state *h = &world.heads[world.n_heads++];
    h->layer = l;
    h->head = head;
    for (int axis = 0; axis < 2; axis++) {
        h->facts[axis].head_dim = l->desc.head_dim;
        /* a quarter of the values of global layers, all of local ones */
        h->facts[axis].n_pairs = l->desc.group == KV_GROUP_GLOBAL ? l->desc.head_dim / 8 : l->desc.head_dim / 2;
    }
    return h;
}

static void note(head_state *h, int axis, const float *x)
{
    for (int d = 0; d < h->facts[axis].head_dim; d++) {
        h->sum[axis][d] += x[d];
        h->squares[axis][d] += (double)x[d] * x[d];
    }
    h->n[axis]++;
}

static void learn_from_notes(void)
{
    for (int i = 0; i < world.n_heads; i++)
        for (int axis = 0; axis < 2; axis++) {
            head_state *h = &world.heads[i];
            for (int d = 0; d < h->facts[axis].head_dim; d++) {
                h->facts[axis].mean[d] = (float)(h->sum[axis][d] / (double)h->n[axis]);
                h->facts[axis].rms[d] = (float)sqrt(h->squares[axis][d] / (double)h->n[axis] + 1e-12);
            }
        }
}

static void code_into(head_state *h, int axis, int32_t page, int slot, const float *x)
{
    float y[CODE_MAX_DIM];
    code_row(world.code[axis], &h->facts[axis], axis, x, y);
    for (int d = 0; d < h->facts[axis].head_dim; d++) {
        h->error[axis] += ((double)y[d] - x[d]) * ((double)y[d] - x[d]);
        h->power[axis] += (double)x[d] * x[d];
    }
    (axis ? __real_attn_put_v : __real_attn_put_k)(h->layer, page, slot, h->head, y);
}

/* The row is exact for now; the one that is n_recent older no longer. A step's rows are written before any is read, so
 * that the oldest of them see up to a step's rows fewer: twice as many are kept back. */
static void put_late(head_state *h, int axis, int32_t page, int slot, const float *x)
{
    float old[CODE_MAX_DIM];
    const int keep = 2 * world.code[axis]->n_recent;
    struct place *place = &h->recent[axis][h->next[axis]];
    if (h->n_recent[axis] == keep) {
        (axis ? attn_get_v : attn_get_k)(h->layer, place->page, place->slot, h->head, old);
        code_into(h, axis, place->page, place->slot, old);
    } else {
        h->n_recent[axis]++;
    }
    *place = (struct place){page, slot};
    h->next[axis] = (h->next[axis] + 1) % keep;
    (axis ? __real_attn_put_v : __real_attn_put_k)(h->layer, page, slot, h->head, x);
}

/* Only caches of f32 are coded: the reference's is f16. */
static void put(const attn_layer *l, int axis, int32_t page, int slot, int kv_head, const float *x)
{
    head_state *h = l->desc.k_type == KV_F32 ? state_of(l, kv_head) : NULL;
    if (h && world.is_learning) note(h, axis, x);
    if (!h || !world.code[axis])
        (axis ? __real_attn_put_v : __real_attn_put_k)(l, page, slot, kv_head, x);
    else if (world.code[axis]->n_recent)
        put_late(h, axis, page, slot, x);
    else
        code_into(h, axis, page, slot, x);
}

void __wrap_attn_put_k(const attn_layer *l, int32_t page, int slot, int kv_head, const float *x)
{
    put(l, 0, page, slot, kv_head, x);
}

void __wrap_attn_put_v(const attn_layer *l, int32_t page, int slot, int kv_head, const float *x)
{
    put(l, 1, page, slot, kv_head, x);
}

static facet_engine *open_engine(facet_model *m, const char *type, int32_t n_ctx)
{
    facet_engine *e;
    facet_error err;
    facet_engine_params p = facet_engine_params_default();
    p.device = "cpu";
    p.n_threads = 1;
    p.n_ctx = n_ctx;
    p.cache_type_k = p.cache_type_v = type;
    if (facet_engine_open(m, &p, &e, &err) != FACET_OK) die(&err);
    return e;
}

static score_kl_result divergence(facet_engine *e[2], const int32_t *ids, size_t n, const scheme *k, const scheme *v)
{
    score_kl_result r;
    facet_error err;
    world.code[0] = k;
    world.code[1] = v;
    for (int i = 0; i < world.n_heads; i++)
        for (int axis = 0; axis < 2; axis++)
            world.heads[i].n_recent[axis] = world.heads[i].next[axis] = 0, world.heads[i].error[axis] = 0,
            world.heads[i].power[axis] = 0;
    const score_params p = {.tokens = ids, .n_tokens = n, .n_ctx = n};
    if (score_kl(e[0], e[1], &p, &r, &err) != FACET_OK) die(&err);
    return r;
}

/* Squared error over square of all rows that were coded. */
static double coded_error(int axis)
{
    double error = 0, power = 0;
    for (int i = 0; i < world.n_heads; i++) {
        error += world.heads[i].error[axis];
        power += world.heads[i].power[axis];
    }
    return power > 0 ? error / power : 0;
}

/* At least 2 * n_ctx tokens of the text; *ids is owned (facet_free). */
static void read_text(const facet_model *m, const char *path, int32_t n_ctx, int32_t **ids)
{
    facet_error err;
    size_t n;
    if (strcmp(path, "-") == 0) {
        needle_prompt prompt;
        const needle_params p = {.n_tokens = 2 * n_ctx + 8, .depth = 50, .seed = 1};
        if (needle_build(m, &p, &prompt, &err) != FACET_OK) die(&err);
        *ids = prompt.ids;
        n = prompt.n_ids;
        facet_free(prompt.text);
    } else {
        char *text;
        size_t bytes;
        if (file_read_all(path, 1 << 28, &text, &bytes, &err) != FACET_OK) die(&err);
        if (facet_tokenize(m, text, bytes, true, true, ids, &n, &err) != FACET_OK) die(&err);
        mem_free(text);
    }
    if (n_ctx >= 128 && n >= 2 * (size_t)n_ctx) return;
    fprintf(stderr, "bench_kv_types: %s has %zu tokens, wanted twice CTX, which is 128 at least\n", path, n);
    exit(1);
}

static void model_table(const char *path, const char *text_path, int32_t n_ctx, double bits)
{
    facet_model *m;
    facet_error err;
    int32_t *ids;
    if (facet_model_open(path, &m, &err) != FACET_OK) die(&err);
    read_text(m, text_path, n_ctx, &ids);
    facet_engine *e[2] = {open_engine(m, "f16", n_ctx), open_engine(m, "f32", n_ctx)};
    world.is_learning = true;
    divergence(e, ids, (size_t)n_ctx, NULL, NULL);
    world.is_learning = false;
    learn_from_notes();
    const int32_t *rest = ids + n_ctx;
    printf("\n| scheme | bits | error of K | of V | KL (mean; median; 99 %%): K | K and V | same argmax |\n"
           "|---|---|---|---|---|---|---|\n");
    printf("| f32 | 32 | 0 | 0 | | %.3g | |\n", 1e5 * divergence(e, rest, (size_t)n_ctx, NULL, NULL).mean);
    for (int i = 0; i < N_SCHEMES; i++) {
        const scheme *s = &schemes[i];
        if (bits > 0 && scheme_bits(s) != bits) continue;
        const score_kl_result k = divergence(e, rest, (size_t)n_ctx, s, NULL);
        const double k_error = coded_error(0);
        const score_kl_result both = divergence(e, rest, (size_t)n_ctx, s, s);
        const double v_error = coded_error(1);
        printf("| %s | %.3g | %.3g | %.3g | %.3g ± %.1g; %.3g; %.3g | %.3g ± %.1g; %.3g; %.3g | %.2f %% |\n", s->name,
               scheme_bits(s), k_error, v_error, 1e5 * k.mean, 1e5 * k.mean_error, 1e5 * k.median, 1e5 * k.p99,
               1e5 * both.mean, 1e5 * both.mean_error, 1e5 * both.median, 1e5 * both.p99, 100 * both.same_argmax);
        fflush(stdout);
    }
    facet_engine_close(e[0]);
    facet_engine_close(e[1]);
    facet_free(ids);
    facet_model_close(m);
}

int main(int argc, char **argv)
{
    if (argc == 1 || argc == 2) {
        attention_table(argc == 2 ? argv[1] : NULL);
    } else if (argc == 4 || argc == 5) {
        model_table(argv[1], argv[2], (int32_t)strtol(argv[3], NULL, 10), argc == 5 ? strtod(argv[4], NULL) : 0);
    } else {
        fprintf(stderr, "usage: bench_kv_types [VECTORS]\n       bench_kv_types MODEL.gguf TEXT CTX [BITS]\n");
        return 2;
    }
    return 0;
}
