#include "model/synth.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "model/meta.h"
#include "text/chat.h"

enum { MAX_DEPTH = 64, DFLASH_LAYERS = 5, MTP_LAYERS = 4, MAX_TAPS = 6 };

/* One released target; n_ff_late: feed-forward width of the layers that share KV. */
typedef struct shape {
    const char *name;
    int n_layers, n_heads, n_kv_local, n_kv_global, period, n_shared;
    uint32_t n_embd, n_ff, n_ff_late, window, n_ctx, n_ple;
    int n_experts, n_used;
    uint32_t n_ff_expert;
    bool global_has_v;
    uint32_t mtp_embd, mtp_ff;
    int mtp_heads;
    int dflash_heads;
    uint32_t dflash_ff;
} shape;

/* The MTP assistants of E4B and E2B have four query heads, not the target's eight: with them, and 67 M values of token
 * embedding, they come to the published 78 M parameters.
 * 12B, E4B and E2B have no DFlash drafter whose sizes are public: theirs follow the two that have one (H / 84 heads,
 * rounded to a multiple of 8; twice the hidden size between the layers). */
static const shape shapes[] = {
    {"31b", 60, 32, 16, 4, 6, 0, 5376, 21504, 21504, 1024, 262144, 0, 0, 0, 0, false, 1024, 8192, 32, 64, 10752},
    {"26b-a4b", 30, 16, 8, 2, 6, 0, 2816, 2112, 2112, 1024, 262144, 0, 128, 8, 704, false, 1024, 8192, 16, 32, 5632},
    {"12b", 48, 16, 8, 1, 6, 0, 3840, 15360, 15360, 1024, 262144, 0, 0, 0, 0, false, 1024, 8192, 16, 48, 7680},
    {"e4b", 42, 8, 2, 2, 6, 18, 2560, 10240, 10240, 512, 131072, 256, 0, 0, 0, true, 256, 2048, 4, 32, 5120},
    {"e2b", 35, 8, 1, 1, 5, 20, 1536, 6144, 12288, 512, 131072, 256, 0, 0, 0, true, 256, 2048, 4, 16, 3072},
};

typedef enum role { ROLE_TARGET, ROLE_MTP, ROLE_DFLASH } role;

typedef enum fill_kind {
    FILL_NORMAL,  /* N(0, a^2) */
    FILL_UNIFORM, /* [a, b) */
    FILL_ROPE
} fill_kind;

typedef struct item {
    char name[64];
    int n_dims, layer;
    uint64_t ne[4];
    fill_kind kind;
    float a, b;
    tensor_type type;
} item;

/* Encoded pieces of PIECE values each. */
enum { PIECE = 256, N_PIECES = 512 };
typedef struct pool {
    tensor_type type;
    float sigma;
    uint8_t *data;
    size_t piece_bytes;
} pool;

typedef struct synth {
    const synth_params *p;
    const shape *s;
    role role;
    int n_target; /* layers of the target */
    int n_shared; /* of those */
    int n_layers; /* of this file */
    uint32_t n_embd, n_vocab;
    item *items;
    size_t n_items, cap;
    pool *pools;
    size_t n_pools;
    rng random;
    gguf_writer *w;
    uint64_t done, total;
    facet_error *err;
} synth;

/* ---- the shape of the file ---- */

static bool target_is_local(const synth *y, int layer)
{
    if (y->n_target < y->s->period) return layer != y->n_target - 1;
    return (layer + 1) % y->s->period != 0;
}

static bool layer_is_local(const synth *y, int layer)
{
    return y->role == ROLE_TARGET ? target_is_local(y, layer) : layer != y->n_layers - 1;
}

static int32_t kv_heads(const synth *y, int layer)
{
    if (y->role == ROLE_DFLASH) return 8;
    return layer_is_local(y, layer) ? y->s->n_kv_local : y->s->n_kv_global;
}

static uint32_t ff_width(const synth *y, int layer)
{
    if (y->role == ROLE_MTP) return y->s->mtp_ff;
    if (y->role == ROLE_DFLASH) return y->s->dflash_ff;
    return y->n_shared && layer >= y->n_target - y->n_shared ? y->s->n_ff_late : y->s->n_ff;
}

/* Layers whose output the DFlash drafter reads, spread evenly over the target. */
static int target_taps(const synth *y, int32_t taps[MAX_TAPS])
{
    int n = y->n_target - 3 < MAX_TAPS ? y->n_target - 3 : MAX_TAPS;
    if (n < 2) n = 1;
    for (int k = 0; k < n; k++) taps[k] = n == 1 ? 0 : (int32_t)lround(1 + (double)k * (y->n_target - 4) / (n - 1));
    return n;
}

static facet_status choose_shape(synth *y, facet_error *err)
{
    const char *name = y->p->arch;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes && !y->s; i++) {
        size_t n = strlen(shapes[i].name);
        if (strncmp(name, shapes[i].name, n) != 0) continue;
        y->role = strcmp(name + n, "-mtp") == 0      ? ROLE_MTP
                  : strcmp(name + n, "-dflash") == 0 ? ROLE_DFLASH
                                                     : ROLE_TARGET;
        if (y->role != ROLE_TARGET || name[n] == '\0') y->s = &shapes[i];
    }
    if (!y->s)
        return error_set(err, FACET_ERR_ARG,
                         "unknown size '%s'; there are 31b, 26b-a4b, 12b, e4b, e2b, each also with -mtp or -dflash",
                         name);
    const shape *s = y->s;
    y->n_target = y->p->n_layers ? y->p->n_layers : s->n_layers;
    if (y->n_target < 2 || y->n_target > MAX_DEPTH)
        return error_set(err, FACET_ERR_ARG, "%d layers, want 2 to %d", y->n_target, MAX_DEPTH);
    y->n_vocab = (uint32_t)(y->p->n_vocab ? y->p->n_vocab : SYNTH_MAX_VOCAB);
    if (y->p->n_vocab && (y->p->n_vocab < SYNTH_MIN_VOCAB || y->p->n_vocab > SYNTH_MAX_VOCAB))
        return error_set(err, FACET_ERR_ARG, "a vocabulary of %d, want %d to %d", y->p->n_vocab, SYNTH_MIN_VOCAB,
                         SYNTH_MAX_VOCAB);
    /* at least one whole period keeps its own KV, so that every sharing layer finds a source */
    y->n_shared = s->n_shared * y->n_target / s->n_layers;
    if (y->n_shared > y->n_target - s->period) y->n_shared = y->n_target > s->period ? y->n_target - s->period : 0;
    y->n_layers = y->role == ROLE_MTP ? MTP_LAYERS : y->role == ROLE_DFLASH ? DFLASH_LAYERS : y->n_target;
    y->n_embd = y->role == ROLE_MTP ? s->mtp_embd : s->n_embd;
    return FACET_OK;
}

static facet_status put_metadata(synth *y)
{
    const shape *s = y->s;
    int32_t n_ff[MAX_DEPTH], n_kv[MAX_DEPTH], taps[MAX_TAPS];
    uint8_t is_local[MAX_DEPTH];
    char name[64];
    for (int l = 0; l < y->n_layers; l++) {
        n_ff[l] = (int32_t)ff_width(y, l);
        n_kv[l] = kv_heads(y, l);
        is_local[l] = layer_is_local(y, l);
    }
    snprintf(name, sizeof name, "Random %s", y->p->arch);
    meta m = {.arch = META_TARGET,
              .name = name,
              .n_layers = y->n_layers,
              .n_heads = s->n_heads,
              .n_ctx = s->n_ctx,
              .n_embd = y->n_embd,
              .n_ff = n_ff,
              .n_kv_heads = n_kv,
              .is_local = is_local,
              .window = s->window,
              .head_dim = 512,
              .head_dim_local = 256,
              .rope_base = 1e6f,
              .rope_base_local = 1e4f,
              .norm_eps = 1e-6f,
              .file_type = typemix_file_type(y->p->mix)};
    if (y->role == ROLE_TARGET) {
        m.softcap = 30.0f;
        m.n_experts = s->n_experts;
        m.n_experts_used = s->n_used;
        m.n_ff_expert = s->n_ff_expert;
        m.n_shared_kv = y->n_shared;
        m.n_embd_per_layer = s->n_ple;
    } else if (y->role == ROLE_MTP) {
        m.arch = META_MTP;
        m.n_heads = s->mtp_heads;
        m.n_shared_kv = MTP_LAYERS;
        m.n_embd_out = s->n_embd;
    } else {
        m.arch = META_DFLASH;
        m.n_heads = s->dflash_heads;
        m.head_dim = 128;
        m.rope_base_local = 0;
        m.window = 2048;
        m.softcap = 30.0f;
        m.block_size = 16;
        m.embedding_scale = sqrtf((float)s->n_embd);
        m.n_target_layers = target_taps(y, taps);
        for (int i = 0; i < m.n_target_layers; i++) taps[i]++; /* the file counts from 1 */
        m.target_layers = taps;
    }
    FACET_TRY(meta_put(y->w, &m, y->err));
    FACET_TRY(synth_put_vocab(y->w, (int)y->n_vocab, y->err));
    if (y->role != ROLE_TARGET) return FACET_OK;
    const char *chat = chat_template_text(s->n_ple == 0);
    FACET_TRY(gguf_put_str(y->w, "tokenizer.chat_template", chat, strlen(chat), y->err));
    if (strcmp(s->name, "12b") == 0 && y->n_vocab == SYNTH_MAX_VOCAB) {
        static const int32_t suppressed[] = {258883, 258882};
        FACET_TRY(gguf_put_array(y->w, "tokenizer.ggml.suppress_tokens", GGUF_I32, suppressed, 2, y->err));
    }
    FACET_TRY(gguf_put_f32(y->w, "general.sampling.temp", 1.0f, y->err));
    FACET_TRY(gguf_put_f32(y->w, "general.sampling.top_p", 0.95f, y->err));
    return gguf_put_i32(y->w, "general.sampling.top_k", 64, y->err);
}

/* ---- the list of tensors ---- */

static item *new_item(synth *y, int layer, const char *name)
{
    if (y->n_items == y->cap) {
        size_t cap = y->cap ? 2 * y->cap : 256;
        item *items = mem_resize_array(y->items, cap, sizeof *items);
        if (!items) return NULL;
        y->items = items;
        y->cap = cap;
    }
    item *t = &y->items[y->n_items++];
    *t = (item){.layer = layer, .ne = {1, 1, 1, 1}};
    if (layer >= 0)
        snprintf(t->name, sizeof t->name, "blk.%d.%s", layer, name);
    else
        snprintf(t->name, sizeof t->name, "%s", name);
    return t;
}

/* ne1, ne2: 0 ends the dimensions. fan_in: sets the width of the distribution. */
static facet_status matrix(synth *y, int layer, const char *name, uint64_t ne0, uint64_t ne1, uint64_t ne2,
                           uint64_t fan_in)
{
    item *t = new_item(y, layer, name);
    if (!t) return error_memory(y->err, "the list of tensors", y->cap * sizeof *t);
    t->n_dims = ne2 ? 3 : 2;
    t->ne[0] = ne0;
    t->ne[1] = ne1;
    t->ne[2] = ne2 ? ne2 : 1;
    t->kind = FILL_NORMAL;
    t->a = 1.0f / sqrtf((float)fan_in);
    return FACET_OK;
}

static facet_status vector(synth *y, int layer, const char *name, uint64_t n, float low, float high)
{
    item *t = new_item(y, layer, name);
    if (!t) return error_memory(y->err, "the list of tensors", y->cap * sizeof *t);
    t->n_dims = 1;
    t->ne[0] = n;
    t->kind = FILL_UNIFORM;
    t->a = low;
    t->b = high;
    return FACET_OK;
}

#define NORM(layer, name, n) FACET_TRY(vector(y, layer, name ".weight", n, 0.5f, 1.5f))
#define MATRIX(layer, name, ne0, ne1) FACET_TRY(matrix(y, layer, name ".weight", ne0, ne1, 0, ne0))

static facet_status list_attention(synth *y, int l)
{
    uint64_t h = y->n_embd, d = y->role == ROLE_DFLASH ? 128 : layer_is_local(y, l) ? 256 : 512;
    int n_heads = y->role == ROLE_DFLASH ? y->s->dflash_heads : y->role == ROLE_MTP ? y->s->mtp_heads : y->s->n_heads;
    uint64_t q = d * (uint64_t)n_heads;
    uint64_t kv = d * (uint64_t)kv_heads(y, l);
    if (y->role != ROLE_MTP) {
        NORM(l, "attn_k_norm", d);
        MATRIX(l, "attn_k", h, kv);
    }
    MATRIX(l, "attn_output", q, h);
    NORM(l, "attn_q_norm", d);
    MATRIX(l, "attn_q", h, q);
    bool has_v = y->role == ROLE_DFLASH || (y->role == ROLE_TARGET && (layer_is_local(y, l) || y->s->global_has_v));
    if (has_v) MATRIX(l, "attn_v", h, kv);
    return FACET_OK;
}

static facet_status list_experts(synth *y, int l)
{
    uint64_t h = y->n_embd, n = (uint64_t)y->s->n_experts, f = y->s->n_ff_expert;
    FACET_TRY(matrix(y, l, "ffn_down_exps.weight", f, h, n, f));
    FACET_TRY(matrix(y, l, "ffn_gate_up_exps.weight", h, 2 * f, n, h));
    FACET_TRY(vector(y, l, "ffn_down_exps.scale", n, 0.5f, 1.5f));
    FACET_TRY(matrix(y, l, "ffn_gate_inp.weight", h, n, 0, 1)); /* its input has length 1 */
    FACET_TRY(vector(y, l, "ffn_gate_inp.scale", h, 0.5f, 1.5f));
    NORM(l, "post_ffw_norm_1", h);
    NORM(l, "post_ffw_norm_2", h);
    NORM(l, "pre_ffw_norm_2", h);
    return FACET_OK;
}

static facet_status list_layer(synth *y, int l)
{
    uint64_t h = y->n_embd, f = ff_width(y, l);
    bool is_target = y->role == ROLE_TARGET;
    if (is_target && y->s->n_experts) FACET_TRY(list_experts(y, l));
    NORM(l, "attn_norm", h);
    if (y->role != ROLE_DFLASH) FACET_TRY(vector(y, l, "layer_output_scale.weight", 1, 0.3f, 1.0f));
    MATRIX(l, "ffn_down", f, h);
    MATRIX(l, "ffn_gate", h, f);
    MATRIX(l, "ffn_up", h, f);
    if (is_target && y->s->n_ple) {
        MATRIX(l, "inp_gate", h, y->s->n_ple);
        MATRIX(l, "proj", y->s->n_ple, h);
        NORM(l, "post_norm", h);
    }
    if (y->role != ROLE_DFLASH) {
        NORM(l, "post_attention_norm", h);
        NORM(l, "post_ffw_norm", h);
    }
    NORM(l, "ffn_norm", h);
    return list_attention(y, l);
}

static facet_status list_tensors(synth *y)
{
    uint64_t h = y->n_embd, ple = y->role == ROLE_TARGET ? (uint64_t)y->s->n_ple : 0,
             wide = ple * (uint64_t)y->n_layers;
    if (y->role == ROLE_DFLASH) {
        int32_t taps[MAX_TAPS];
        MATRIX(-1, "fc", h * (uint64_t)target_taps(y, taps), h);
        NORM(-1, "enc.output_norm", h);
    } else {
        FACET_TRY(vector(y, -1, "rope_freqs.weight", 256, 0, 0));
        y->items[y->n_items - 1].kind = FILL_ROPE;
        MATRIX(-1, "token_embd", h, y->n_vocab);
    }
    if (ple) FACET_TRY(matrix(y, -1, "per_layer_token_embd.weight", wide, y->n_vocab, 0, ple));
    for (int l = 0; l < y->n_layers; l++) FACET_TRY(list_layer(y, l));
    NORM(-1, "output_norm", h);
    if (ple) {
        MATRIX(-1, "per_layer_model_proj", h, wide);
        NORM(-1, "per_layer_proj_norm", ple);
    }
    if (y->role == ROLE_MTP) {
        MATRIX(-1, "nextn.post_projection", h, y->s->n_embd);
        MATRIX(-1, "nextn.pre_projection", 2 * (uint64_t)y->s->n_embd, h);
    }
    return FACET_OK;
}

static bool is_attn_v(const item *t)
{
    return strstr(t->name, ".attn_v.weight") != NULL;
}

static uint64_t n_values(const item *t)
{
    return t->ne[0] * t->ne[1] * t->ne[2];
}

static void choose_types(synth *y)
{
    typemix_counts counts = {0, 0};
    for (size_t i = 0; i < y->n_items; i++) counts.n_attn_v += is_attn_v(&y->items[i]);
    for (size_t i = 0; i < y->n_items; i++) {
        item *t = &y->items[i];
        t->type = typemix_choose(y->p->mix, t->name, t->n_dims, t->ne, t->layer, y->n_layers, &counts);
        counts.attn_v_index += is_attn_v(t);
        y->total += type_bytes(type_get(t->type), n_values(t));
    }
}

/* ---- the data ---- */

static facet_status write_bytes(synth *y, const void *data, size_t bytes)
{
    FACET_TRY(gguf_write_data(y->w, data, bytes, y->err));
    y->done += bytes;
    if (y->p->progress && !y->p->progress(y->p->progress_ud, "write", y->done, y->total))
        return error_set(y->err, FACET_ERR_CANCELLED, "cancelled");
    return FACET_OK;
}

static facet_status write_floats(synth *y, const item *t)
{
    size_t n = (size_t)n_values(t);
    float *v = mem_resize_array(NULL, n, sizeof *v);
    if (!v) return error_memory(y->err, t->name, n * sizeof *v);
    if (t->kind == FILL_ROPE) meta_rope_divisors(v, (uint32_t)n);
    for (size_t i = 0; i < n && t->kind != FILL_ROPE; i++)
        v[i] = t->kind == FILL_NORMAL ? t->a * (float)rng_normal(&y->random)
                                      : t->a + (t->b - t->a) * (float)rng_uniform(&y->random);
    facet_status status = write_bytes(y, v, n * sizeof *v);
    mem_free(v);
    return status;
}

static facet_status find_pool(synth *y, const item *t, const pool **out)
{
    for (size_t i = 0; i < y->n_pools; i++) {
        *out = &y->pools[i];
        if (y->pools[i].type == t->type && y->pools[i].sigma == t->a) return FACET_OK;
    }
    pool *pools = mem_resize_array(y->pools, y->n_pools + 1, sizeof *pools);
    if (!pools) return error_memory(y->err, "random blocks", sizeof *pools);
    y->pools = pools;
    const type_info *type = type_get(t->type);
    size_t n = (size_t)PIECE * N_PIECES, bytes = type_bytes(type, n);
    float *v = mem_resize_array(NULL, n, sizeof *v);
    uint8_t *data = mem_alloc(bytes);
    if (!v || !data) {
        mem_free(v);
        mem_free(data);
        return error_memory(y->err, "random blocks", bytes + n * sizeof *v);
    }
    for (size_t i = 0; i < n; i++) v[i] = t->a * (float)rng_normal(&y->random);
    type->encode(v, data, n);
    mem_free(v);
    pools[y->n_pools] = (pool){.type = t->type, .sigma = t->a, .data = data, .piece_bytes = bytes / N_PIECES};
    *out = &pools[y->n_pools++];
    return FACET_OK;
}

static facet_status write_pieces(synth *y, const item *t, uint8_t *chunk, size_t chunk_bytes)
{
    const pool *p = NULL;
    FACET_TRY(find_pool(y, t, &p));
    uint64_t left = type_bytes(type_get(t->type), n_values(t));
    while (left) {
        size_t n = 0;
        while (n + p->piece_bytes <= chunk_bytes && n < left) {
            size_t k = left - n < p->piece_bytes ? (size_t)left - n : p->piece_bytes;
            memcpy(chunk + n, p->data + rng_below(&y->random, N_PIECES) * p->piece_bytes, k);
            n += k;
        }
        FACET_TRY(write_bytes(y, chunk, n));
        left -= n;
    }
    return FACET_OK;
}

static facet_status write_holes(synth *y)
{
    for (size_t i = 0; i < y->n_items; i++) FACET_TRY(gguf_write_hole(y->w, y->err));
    return FACET_OK;
}

static facet_status write_tensors(synth *y)
{
    size_t chunk_bytes = (size_t)1 << 20;
    uint8_t *chunk = mem_alloc(chunk_bytes);
    if (!chunk) return error_memory(y->err, "an output buffer", chunk_bytes);
    facet_status status = FACET_OK;
    for (size_t i = 0; i < y->n_items && status == FACET_OK; i++)
        status = y->items[i].type == TYPE_F32 ? write_floats(y, &y->items[i])
                                              : write_pieces(y, &y->items[i], chunk, chunk_bytes);
    mem_free(chunk);
    return status;
}

static facet_status write_file(synth *y, const char *path)
{
    FACET_TRY(gguf_writer_new(&y->w, y->err));
    FACET_TRY(put_metadata(y));
    FACET_TRY(list_tensors(y));
    choose_types(y);
    for (size_t i = 0; i < y->n_items; i++) {
        const item *t = &y->items[i];
        FACET_TRY(gguf_add_tensor(y->w, t->name, t->type, t->n_dims, t->ne, y->err));
    }
    FACET_TRY(gguf_begin_data(y->w, path, y->err));
    FACET_TRY(y->p->is_hollow ? write_holes(y) : write_tensors(y));
    return gguf_finish(y->w, y->err);
}

facet_status synth_write(const synth_params *p, const char *path, facet_error *err)
{
    synth y = {.p = p, .err = err};
    rng_seed(&y.random, p->seed);
    FACET_TRY(choose_shape(&y, err));
    facet_status status = write_file(&y, path);
    gguf_writer_free(y.w);
    for (size_t i = 0; i < y.n_pools; i++) mem_free(y.pools[i].data);
    mem_free(y.pools);
    mem_free(y.items);
    return status;
}

facet_status synth_size(const synth_params *p, uint64_t *n_tensors, uint64_t *bytes, facet_error *err)
{
    synth y = {.p = p, .err = err};
    FACET_TRY(choose_shape(&y, err));
    facet_status status = list_tensors(&y);
    if (status == FACET_OK) {
        choose_types(&y);
        *n_tensors = y.n_items;
        *bytes = y.total;
    }
    mem_free(y.items);
    return status;
}
