/* mtp.c: the MTP assistant. One step, with e = sqrt(H) * token_embd[token] of the target:
 *
 *   x  = pre_projection (e, hidden)
 *   per layer: a = rms(x; attn_norm), q = rope(rms per head (attn_q a)), o = attention over the donor's cache,
 *              r = x + rms(attn_output o; post_attention_norm),
 *              x = (r + rms(ffn_down(gelu(ffn_gate m) * (ffn_up m)); post_ffw_norm)) * layer_output_scale,
 *              m = rms(r; ffn_norm)
 *   y  = rms(x; output_norm);  logits = token_embd y (its own);  hidden' = post_projection y */
#include "model/mtp.h"

#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "model/bind.h"
#include "model/graph.h"
#include "model/keys.h"

#define OLD_ARCH "gemma4_assistant"

static bool str_is(gguf_str s, const char *want)
{
    return s.n == strlen(want) && memcmp(s.s, want, s.n) == 0;
}

bool mtp_is_architecture(gguf_str arch)
{
    return str_is(arch, "gemma4-assistant") || str_is(arch, OLD_ARCH);
}

/* ---- hyperparameters ---- */

static facet_status read_layers(const key_reader *k, mtp_hparams *p)
{
    int64_t v[DRAFTER_MAX_LAYERS];
    FACET_TRY(keys_per_layer(k, "attention.sliding_window_pattern", 0, 1, p->n_layers, v));
    for (int l = 0; l < p->n_layers; l++) {
        p->layer[l].is_local = v[l] != 0;
        p->layer[l].head_dim = v[l] ? p->head_dim_local : p->head_dim_global;
    }
    FACET_TRY(keys_per_layer(k, "feed_forward_length", 32, 1 << 20, p->n_layers, v));
    for (int l = 0; l < p->n_layers; l++) p->layer[l].n_ff = (uint32_t)v[l];
    return FACET_OK;
}

static facet_status read_scalars(const key_reader *k, const hparams *h, mtp_hparams *p)
{
    FACET_TRY(keys_int(k, "block_count", true, 1, DRAFTER_MAX_LAYERS, &p->n_layers));
    FACET_TRY(keys_u32(k, "embedding_length", true, 32, 1 << 20, &p->n_embd));
    FACET_TRY(keys_int(k, "attention.head_count", true, 1, 1024, &p->n_heads));
    p->window = h->window;
    FACET_TRY(keys_int(k, "attention.sliding_window", false, 1, h->window, &p->window));
    FACET_TRY(keys_f32(k, "attention.layer_norm_rms_epsilon", true, &p->norm_eps));
    float global = (float)h->rope_base_global, local = (float)h->rope_base_local;
    FACET_TRY(keys_f32(k, "rope.freq_base", false, &global));
    FACET_TRY(keys_f32(k, "rope.freq_base_swa", false, &local));
    if (!(global > 1) || !(local > 1))
        return error_set(k->err, FACET_ERR_FORMAT, "%s: %s.rope.freq_base is %g and %g, wanted above 1", k->f->path,
                         k->prefix, (double)global, (double)local);
    p->rope_base_global = (double)global;
    p->rope_base_local = (double)local;
    FACET_TRY(keys_head_dim(k, "attention.key_length", "attention.value_length", &p->head_dim_global));
    return keys_head_dim(k, "attention.key_length_swa", "attention.value_length_swa", &p->head_dim_local);
}

static facet_status check_target(const key_reader *k, const hparams *h, const mtp_hparams *p)
{
    const char *name = keys_either(k, "embedding_length_out", "n_embd_backbone");
    uint32_t n_embd = 0;
    FACET_TRY(keys_u32(k, name, true, 1, 1 << 20, &n_embd));
    if (n_embd != h->n_embd)
        return error_set(k->err, FACET_ERR_UNSUPPORTED, "%s: %s.%s is %u, the target's hidden size is %u", k->f->path,
                         k->prefix, name, n_embd, h->n_embd);
    int n_shared = p->n_layers;
    FACET_TRY(keys_int(k, "attention.shared_kv_layers", false, 0, DRAFTER_MAX_LAYERS, &n_shared));
    if (n_shared != p->n_layers)
        return error_set(k->err, FACET_ERR_UNSUPPORTED,
                         "%s: %s.attention.shared_kv_layers is %d of %d layers: wanted all of them", k->f->path,
                         k->prefix, n_shared, p->n_layers);
    gguf_str arch = {"gemma4", 6};
    char full[KEY_BYTES];
    FACET_TRY(gguf_get_str(k->f, keys_full(k, "requires_target_arch", full), false, &arch, k->err));
    if (str_is(arch, "gemma4")) return FACET_OK;
    return error_set(k->err, FACET_ERR_UNSUPPORTED, "%s: %s is '%.*s', the target is 'gemma4'", k->f->path, full,
                     (int)(arch.n < 64 ? arch.n : 64), arch.s);
}

/* The donor of a layer: the last layer of its kind that owns a cache. */
static facet_status find_donor(const key_reader *k, const hparams *h, const mtp_hparams *p, int l, mtp_layer *y)
{
    const char *kind = y->is_local ? "local" : "global";
    y->donor = h->first_shared - 1;
    while (y->donor >= 0 && h->layers[y->donor].is_local != y->is_local) y->donor--;
    if (y->donor < 0)
        return error_set(k->err, FACET_ERR_UNSUPPORTED,
                         "%s: %s.attention.sliding_window_pattern: layer %d is %s, but the target has no %s layer",
                         k->f->path, k->prefix, l, kind, kind);
    const layer_hparams *donor = &h->layers[y->donor];
    if (donor->head_dim != y->head_dim)
        return error_set(k->err, FACET_ERR_UNSUPPORTED,
                         "%s: %s.attention.key_length%s is %d, layer %d of the target, whose cache it reads, has %d",
                         k->f->path, k->prefix, y->is_local ? "_swa" : "", y->head_dim, y->donor, donor->head_dim);
    if (p->n_heads % donor->n_kv_heads)
        return error_set(k->err, FACET_ERR_UNSUPPORTED,
                         "%s: %s.attention.head_count is %d, no multiple of the %d KV heads of layer %d of the target",
                         k->f->path, k->prefix, p->n_heads, donor->n_kv_heads, y->donor);
    return FACET_OK;
}

/* The file's own word on the donors' KV heads, one number per layer: other ones mean another target. A single number
 * cannot be right for both kinds of layers, so that it is only compared. */
static facet_status compare_kv_heads(const key_reader *k, const hparams *h, const mtp_hparams *p)
{
    int64_t v[DRAFTER_MAX_LAYERS];
    if (!keys_has(k, "attention.head_count_kv")) return FACET_OK;
    FACET_TRY(keys_per_layer(k, "attention.head_count_kv", 0, 1024, p->n_layers, v));
    char full[KEY_BYTES];
    const bool is_list = gguf_find(k->f, keys_full(k, "attention.head_count_kv", full))->type == GGUF_ARRAY;
    for (int l = 0; l < p->n_layers; l++) {
        const int donor = p->layer[l].donor, wanted = h->layers[donor].n_kv_heads;
        if (v[l] == wanted) continue;
        if (is_list)
            return error_set(k->err, FACET_ERR_UNSUPPORTED,
                             "%s: %s of layer %d is %d, layer %d of the target, whose cache it reads, has %d",
                             k->f->path, full, l, (int)v[l], donor, wanted);
        log_line(FACET_LOG_WARN, "%s: %s of layer %d is %d, the target's layer %d has %d", k->f->path, full, l,
                 (int)v[l], donor, wanted);
    }
    return FACET_OK;
}

static facet_status read_hparams(const key_reader *k, const hparams *h, mtp_hparams *p)
{
    FACET_TRY(read_scalars(k, h, p));
    FACET_TRY(check_target(k, h, p));
    FACET_TRY(read_layers(k, p));
    for (int l = 0; l < p->n_layers; l++) FACET_TRY(find_donor(k, h, p, l, &p->layer[l]));
    return compare_kv_heads(k, h, p);
}

/* ---- centroids ---- */

static bool ordering_entry(const gguf_tensor *t, uint64_t i, int64_t *out)
{
    int32_t narrow;
    if (t->type == TYPE_I32) memcpy(&narrow, t->data + i * sizeof narrow, sizeof narrow);
    if (t->type == TYPE_I32) *out = narrow;
    if (t->type == TYPE_I64) memcpy(out, t->data + i * sizeof *out, sizeof *out);
    return t->type == TYPE_I32 || t->type == TYPE_I64;
}

/* A permutation of 0 .. n - 1, or an error: another one would send logits to the wrong ids. */
static facet_status fill_order(const gguf_file *f, const gguf_tensor *t, uint32_t n, int32_t *order, uint8_t *seen,
                               facet_error *err)
{
    for (uint32_t i = 0; i < n; i++) {
        int64_t id;
        if (!ordering_entry(t, i, &id))
            return error_set(err, FACET_ERR_FORMAT, "%s: tensor %s is %s, wanted I32 or I64", gguf_path_of(f, t),
                             t->name, type_get(t->type)->name);
        if (id < 0 || id >= (int64_t)n || seen[id])
            return error_set(err, FACET_ERR_FORMAT, "%s: tensor %s: entry %u is %lld: no permutation of 0 to %u",
                             gguf_path_of(f, t), t->name, i, (long long)id, n - 1);
        seen[id] = 1;
        order[i] = (int32_t)id;
    }
    return FACET_OK;
}

static facet_status read_order(const gguf_file *f, const char *name, uint32_t n_vocab, int32_t **out, facet_error *err)
{
    const gguf_tensor *t = gguf_find_tensor(f, name);
    if (!t) return error_set(err, FACET_ERR_FORMAT, "%s: missing tensor %s", f->path, name);
    if (t->ne[0] != n_vocab || t->ne[1] * t->ne[2] * t->ne[3] != 1)
        return error_set(err, FACET_ERR_SHAPE, "%s: tensor %s is [%llu, %llu], wanted [%u]", gguf_path_of(f, t), name,
                         (unsigned long long)t->ne[0], (unsigned long long)t->ne[1], n_vocab);
    int32_t *order = mem_resize_array(NULL, n_vocab, sizeof *order);
    uint8_t *seen = mem_calloc(n_vocab, 1);
    facet_status status =
        order && seen ? fill_order(f, t, n_vocab, order, seen, err) : error_memory(err, name, n_vocab * sizeof *order);
    mem_free(seen);
    if (status == FACET_OK)
        *out = order;
    else
        mem_free(order);
    return status;
}

/* Which of two names of a tensor the file uses; the first when neither. */
static const char *tensor_name(const gguf_file *f, const char *name, const char *old)
{
    return !gguf_find_tensor(f, name) && gguf_find_tensor(f, old) ? old : name;
}

static facet_status bind_centroids(const key_reader *k, const binder *b, uint32_t n_vocab, mtp_hparams *p)
{
    enum { PUBLIC_TOP_K = 32 };
    const gguf_file *f = b->f;
    const char *centroids = tensor_name(f, "masked_embd_centroids.weight", "mtp.centroids.weight");
    const char *ordering = tensor_name(f, "masked_embd_ordering", "mtp.token_ordering.weight");
    bool is_ordered = gguf_find_tensor(f, centroids) || gguf_find_tensor(f, ordering);
    FACET_TRY(keys_bool(k, "use_ordered_embeddings", false, &is_ordered));
    if (!is_ordered) return FACET_OK;
    const gguf_tensor *t = gguf_find_tensor(f, centroids);
    if (!t) return error_set(b->err, FACET_ERR_FORMAT, "%s: missing tensor %s", f->path, centroids);
    if (t->ne[1] < 1 || t->ne[1] > n_vocab || n_vocab % t->ne[1])
        return error_set(b->err, FACET_ERR_SHAPE, "%s: tensor %s has %llu rows, which do not divide the %u tokens",
                         gguf_path_of(f, t), centroids, (unsigned long long)t->ne[1], n_vocab);
    p->n_centroids = (int)t->ne[1];
    FACET_TRY(bind_tensor(b, CLASS_MATRIX, true, p->n_embd, t->ne[1], 1, &p->centroids, centroids));
    int n_centroids = p->n_centroids;
    FACET_TRY(
        keys_int(k, keys_either(k, "n_centroids", "centroid_count"), false, n_centroids, n_centroids, &n_centroids));
    p->n_centroids_used = n_centroids < PUBLIC_TOP_K ? n_centroids : PUBLIC_TOP_K;
    FACET_TRY(keys_int(k, "centroid_top_k", false, 1, n_centroids, &p->n_centroids_used));
    return read_order(f, ordering, n_vocab, &p->order, b->err);
}

/* ---- tensors ---- */

static facet_status bind_layer(const binder *b, const mtp_hparams *p, int l, layer_weights *w)
{
    const mtp_layer *y = &p->layer[l];
    const uint64_t n_embd = p->n_embd, n_q = (uint64_t)p->n_heads * (uint64_t)y->head_dim;
    FACET_TRY(bind_vector(b, true, n_embd, &w->attn_norm, l, "attn_norm.weight"));
    FACET_TRY(bind_matrix(b, true, n_embd, n_q, 1, &w->q, l, "attn_q"));
    FACET_TRY(bind_vector(b, true, (uint64_t)y->head_dim, &w->q_norm, l, "attn_q_norm.weight"));
    FACET_TRY(bind_matrix(b, true, n_q, n_embd, 1, &w->attn_out, l, "attn_output"));
    FACET_TRY(bind_vector(b, true, n_embd, &w->post_attn_norm, l, "post_attention_norm.weight"));
    FACET_TRY(bind_vector(b, true, n_embd, &w->ffn_norm, l, "ffn_norm.weight"));
    FACET_TRY(bind_matrix(b, true, n_embd, y->n_ff, 1, &w->gate, l, "ffn_gate"));
    FACET_TRY(bind_matrix(b, true, n_embd, y->n_ff, 1, &w->up, l, "ffn_up"));
    FACET_TRY(bind_matrix(b, true, y->n_ff, n_embd, 1, &w->down, l, "ffn_down"));
    FACET_TRY(bind_vector(b, true, n_embd, &w->post_ffn_norm, l, "post_ffw_norm.weight"));
    return bind_scalar(b, 1, &w->out_scale, l, "layer_output_scale.weight");
}

static facet_status bind_projections(const binder *b, const hparams *h, mtp_hparams *p)
{
    const bool is_old = gguf_find_tensor(b->f, "mtp.pre_projection.weight") != NULL;
    const uint64_t n_embd = p->n_embd, n_target = h->n_embd;
    FACET_TRY(bind_matrix(b, true, 2 * n_target, n_embd, 1, &p->pre_projection, -1,
                          is_old ? "mtp.pre_projection" : "nextn.pre_projection"));
    return bind_matrix(b, true, n_embd, n_target, 1, &p->post_projection, -1,
                       is_old ? "mtp.post_projection" : "nextn.post_projection");
}

static facet_status bind_head(const binder *b, uint32_t n_vocab, const mtp_hparams *p)
{
    const weight_class c = p->n_centroids ? CLASS_PICKED : CLASS_MATRIX;
    const bool is_untied = gguf_find_tensor(b->f, "output.weight") != NULL;
    weights *w = b->w;
    FACET_TRY(
        bind_tensor(b, c, true, p->n_embd, n_vocab, 1, &w->output, is_untied ? "output.weight" : "token_embd.weight"));
    FACET_TRY(bind_factor(b, w->output, is_untied ? "output" : "token_embd"));
    w->token_embd = w->output;
    return bind_tensor(b, CLASS_VECTOR, true, p->n_embd, 1, 1, &w->output_norm, "output_norm.weight");
}

static facet_status bind_all(const key_reader *k, const binder *b, const facet_model *target, mtp_hparams *p)
{
    FACET_TRY(bind_projections(b, &target->h, p));
    FACET_TRY(bind_centroids(k, b, target->h.n_vocab, p));
    FACET_TRY(bind_head(b, target->h.n_vocab, p));
    int divisors;
    FACET_TRY(
        bind_tensor(b, CLASS_VECTOR, false, (uint64_t)p->head_dim_global / 2, 1, 1, &divisors, "rope_freqs.weight"));
    p->rope_divisors = divisors < 0 ? NULL : b->w->list[divisors].data;
    for (int l = 0; l < p->n_layers; l++) FACET_TRY(bind_layer(b, p, l, &b->w->layers[l]));
    return FACET_OK;
}

facet_status mtp_read(drafter *d, const facet_model *target, facet_error *err)
{
    gguf_str arch = {0};
    FACET_TRY(gguf_get_str(d->file, "general.architecture", true, &arch, err));
    const key_reader k = {d->file, str_is(arch, OLD_ARCH) ? OLD_ARCH : "gemma4-assistant", err};
    FACET_TRY(read_hparams(&k, &target->h, &d->mtp));
    d->w.layers = mem_calloc((size_t)d->mtp.n_layers, sizeof *d->w.layers);
    if (!d->w.layers) return error_memory(err, "the layer weights", (size_t)d->mtp.n_layers * sizeof *d->w.layers);
    const binder b = {d->file, &d->w, err};
    return bind_all(&k, &b, target, &d->mtp);
}

/* ---- the plan ---- */

typedef struct builder {
    graph g; /* the assistant's weights */
    const hparams *h;
    const mtp_hparams *m;
    const weights *target;
    rotation rotations[2]; /* [is_local] */
    rotation donor;        /* of the target's global layers */
} builder;

static void set_heads(const builder *b, plan_op *op, int l)
{
    const mtp_layer *y = &b->m->layer[l];
    graph_rotate(op, &b->rotations[y->is_local]);
    op->n_heads = b->m->n_heads;
    op->n_kv_heads = b->h->layers[y->donor].n_kv_heads;
    op->eps = b->m->norm_eps;
    op->kv_layer = gemma4_kv_layer(b->h, y->donor);
    op->window = y->is_local ? b->m->window : 0;
}

/* A donor that keeps V alone makes its keys with its own norm and rotation. */
static void set_donor_keys(const builder *b, plan_op *op, int l)
{
    const mtp_layer *y = &b->m->layer[l];
    const layer_weights *donor = &b->target->layers[y->donor];
    if (y->is_local || donor->v >= 0) return;
    op->w0 = donor->k_norm; /* the target's weights stand first in the joined list */
    graph_rotate(op, &b->donor);
}

static int attention(const builder *b, int x, int l)
{
    const graph *g = &b->g;
    const layer_weights *w = &g->w->layers[l];
    const uint32_t n_embd = b->m->n_embd, n_q = (uint32_t)(b->m->n_heads * b->m->layer[l].head_dim);
    int a = graph_norm(g, x, w->attn_norm, n_embd, "attn_norm", l);
    int q = graph_linear(g, a, w->q, "q", l);
    int qr = graph_value(g, n_q, "q_rope", l);
    plan_op *op = plan_add(g->p, OP_ROPE_Q, l);
    set_heads(b, op, l);
    op->i0 = q;
    op->w0 = graph_weight(g, w->q_norm);
    op->o = qr;
    int o = graph_value(g, n_q, "attn", l);
    op = plan_add(g->p, OP_ATTN, l);
    set_heads(b, op, l);
    op->i0 = qr;
    op->o = o;
    op->attn_scale = 1.0f;
    op->sight = SIGHT_COMMITTED;
    set_donor_keys(b, op, l);
    int out = graph_linear(g, o, w->attn_out, "attn_out", l);
    return graph_norm_add(g, out, x, w->post_attn_norm, n_embd, 1.0f, "r", l);
}

static int feed_forward(const builder *b, int r, int l)
{
    const graph *g = &b->g;
    const layer_weights *w = &g->w->layers[l];
    const uint32_t n_embd = b->m->n_embd;
    int m = graph_norm(g, r, w->ffn_norm, n_embd, "ffn_norm", l);
    int f = graph_gated(g, m, w->gate, w->up, ACT_GELU, "ffn_gated", l);
    int d = graph_linear(g, f, w->down, "ffn_down", l);
    return graph_norm_add(g, d, r, w->post_ffn_norm, n_embd, w->out_scale, "x", l);
}

static int centroid_logits(const builder *b, int y, bool is_output)
{
    const graph *g = &b->g;
    const mtp_hparams *m = b->m;
    const uint32_t n_vocab = b->h->n_vocab;
    int c = graph_linear(g, y, m->centroids, "centroids", -1);
    int o = plan_value_new(g->p, g->rows, VALUE_F32, n_vocab, is_output, "logits");
    const int32_t *order = plan_keep_order(g->p, m->order, n_vocab);
    plan_op *op = plan_add(g->p, OP_CENTROIDS, -1);
    op->i0 = y;
    op->i1 = c;
    op->o = o;
    op->w0 = graph_weight(g, g->w->output);
    op->scale = g->w->scale[g->w->output];
    op->order = order;
    op->n_experts = m->n_centroids;
    op->n_used = m->n_centroids_used;
    op->group = n_vocab / (uint32_t)m->n_centroids;
    if (is_output) g->p->v_logits = o;
    return o;
}

static void build(const builder *b, const mtp_options *o)
{
    const graph *g = &b->g;
    const weights *target = b->target;
    const graph from_target = {.p = g->p, .w = target, .rows = ROWS_ALL};
    const uint32_t n_target = b->h->n_embd, k = (uint32_t)o->top_k;
    plan *p = g->p;
    p->v_in_token = plan_input_new(p, ROWS_ALL, VALUE_I32, 1, false, "token_in");
    p->v_in_hidden = plan_input_new(p, ROWS_ALL, VALUE_F32, n_target, false, "hidden_in");
    int e = graph_embed(&from_target, target->token_embd, p->v_in_token, sqrtf((float)n_target), "embd");
    int both = graph_concat(g, e, p->v_in_hidden, 2 * n_target, "embd_hidden");
    int x = graph_linear(g, both, b->m->pre_projection, "x", -1);
    for (int l = 0; l < b->m->n_layers; l++) x = feed_forward(b, attention(b, x, l), l);
    int y = graph_norm(g, x, g->w->output_norm, b->m->n_embd, "y", -1);
    p->v_hidden = graph_output(g, graph_linear(g, y, b->m->post_projection, "hidden_out", -1));
    int logits = b->m->n_centroids && !o->dense_head ? centroid_logits(b, y, o->wants_logits)
                                                     : graph_logits(g, y, g->w->output, 0, o->wants_logits);
    graph_top_k(g, logits, o->top_k, 1.0f);
    p->v_kept_ids = plan_input_new(p, ROWS_ALL, VALUE_I32, k, true, "kept_ids");
    p->v_kept_logp = plan_input_new(p, ROWS_ALL, VALUE_F32, k, true, "kept_logp");
}

facet_status mtp_plan(const drafter *d, const facet_model *target, const mtp_options *o, plan **out, facet_error *err)
{
    if (o->top_k < 1 || o->top_k > PLAN_MAX_TOPK)
        return error_set(err, FACET_ERR_ARG, "top_k of the drafter is %d, wanted 1 to %d", o->top_k, PLAN_MAX_TOPK);
    plan *p;
    FACET_TRY(plan_new("mtp", &p, err));
    const mtp_hparams *m = &d->mtp;
    builder b = {.g = {.p = p, .w = &d->w, .first = d->first_weight, .eps = m->norm_eps, .rows = ROWS_ALL},
                 .h = &target->h,
                 .m = m,
                 .target = &target->w};
    int n_suppress;
    const int32_t *suppress = tokenizer_suppressed(target->tok, &n_suppress);
    plan_keep_suppress(p, suppress, n_suppress);
    b.rotations[0] =
        graph_rotation(&b.g, m->head_dim_global, m->rope_base_global, m->rope_divisors, m->head_dim_global / 8);
    b.rotations[1] = graph_rotation(&b.g, m->head_dim_local, m->rope_base_local, NULL, m->head_dim_local / 2);
    b.donor = gemma4_global_rotation(&b.g, &target->h, &target->w);
    build(&b, o);
    facet_status status = plan_finish(p, err);
    if (status == FACET_OK)
        *out = p;
    else
        plan_free(p);
    return status;
}
