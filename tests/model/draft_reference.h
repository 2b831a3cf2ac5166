/* draft_reference.h: the forward passes of both drafters in plain loops of doubles, written from their formulas, over
 * the weights of the file and the keys and values in the cache. For test_drafters.c. */
#ifndef FACET_TEST_DRAFT_REFERENCE_H
#define FACET_TEST_DRAFT_REFERENCE_H

#include <math.h>

#include "base/f16.h"
#include "compute/cpu/exec.h"
#include "draft_rig.h"

enum { REF_MAX = 2048 }; /* widest row but for logits */

static inline const float *ref_vector(const weights *w, int i)
{
    return i < 0 ? NULL : w->list[i].data;
}

static inline void ref_row(const weight *w, size_t row, float *out)
{
    const type_info *t = type_get(w->type);
    t->decode((const uint8_t *)w->data + row * type_bytes(t, w->ne[0]), out, w->ne[0]);
}

/* y = W x */
static inline void ref_matrix(const weights *w, int i, const double *x, double *y)
{
    float row[REF_MAX];
    for (size_t o = 0; o < w->list[i].ne[1]; o++) {
        ref_row(&w->list[i], o, row);
        y[o] = 0;
        for (size_t k = 0; k < w->list[i].ne[0]; k++) y[o] += (double)row[k] * x[k];
        y[o] *= (double)w->scale[i];
    }
}

static inline void ref_norm(const double *x, const float *w, size_t n, double eps, double *y)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
    for (size_t i = 0; i < n; i++) y[i] = x[i] / sqrt(sum / (double)n + eps) * (w ? (double)w[i] : 1);
}

/* Every head: norm, then pairs (i, i + d / 2) by pos * base^(-2i / d), the first n_rot of them. */
static inline void ref_heads(double *x, const float *norm, int n_heads, int d, double eps, double base, int n_rot,
                             double pos)
{
    for (int h = 0; h < n_heads; h++, x += d) {
        ref_norm(x, norm, (size_t)d, eps, x);
        for (int i = 0; i < n_rot; i++) {
            const double angle = pos * pow(base, -2.0 * i / d), a = x[i], b = x[i + d / 2];
            x[i] = a * cos(angle) - b * sin(angle);
            x[i + d / 2] = b * cos(angle) + a * sin(angle);
        }
    }
}

static inline double ref_gelu(double x)
{
    return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

static inline double ref_silu(double x)
{
    return x / (1 + exp(-x));
}

/* A head's key or value at a slot of the rig's sequence. */
static inline void ref_cached(const rig *r, int kv_layer, int32_t slot, int head, bool is_v, float *out)
{
    const attn_layer *l = &((cpu_backend *)r->be)->kv_layers[kv_layer];
    const int32_t page = r->seq.table[l->desc.group][slot / KV_PAGE_LEN];
    (is_v ? attn_get_v : attn_get_k)(l, page, slot % KV_PAGE_LEN, head, out);
}

/* o [n_heads, d] of one query row over keys k[i] and values v[i] [n_keys][n_kv_heads, d]. */
static inline void ref_attention(const double *q, const float *k, const float *v, int n_keys, int n_heads,
                                 int n_kv_heads, int d, double scale, double *o)
{
    double *s = malloc((size_t)n_keys * sizeof *s);
    for (int h = 0; h < n_heads; h++) {
        const size_t at = (size_t)(h / (n_heads / n_kv_heads) * d), stride = (size_t)(n_kv_heads * d);
        double max = -INFINITY, sum = 0;
        for (int i = 0; i < n_keys; i++) {
            s[i] = 0;
            for (int j = 0; j < d; j++) s[i] += scale * q[h * d + j] * (double)k[(size_t)i * stride + at + (size_t)j];
            max = fmax(max, s[i]);
        }
        for (int j = 0; j < d; j++) o[h * d + j] = 0;
        for (int i = 0; i < n_keys; i++) {
            sum += s[i] = exp(s[i] - max);
            for (int j = 0; j < d; j++) o[h * d + j] += s[i] * (double)v[(size_t)i * stride + at + (size_t)j];
        }
        for (int j = 0; j < d; j++) o[h * d + j] /= sum;
    }
    free(s);
}

static inline void ref_logits(const weights *w, int head, const double *y, double softcap, double *logits)
{
    ref_matrix(w, head, y, logits);
    for (size_t i = 0; i < w->list[head].ne[1] && softcap > 0; i++) logits[i] = softcap * tanh(logits[i] / softcap);
}

/* ---- MTP ---- */

static inline void ref_mtp_attention(const rig *r, int l, int32_t pos, const double *a, double *o)
{
    const mtp_hparams *p = &r->d->mtp;
    const mtp_layer *y = &p->layer[l];
    const layer_hparams *donor = &r->m->h.layers[y->donor];
    const int d = y->head_dim, n_kv = donor->n_kv_heads;
    const int32_t first = y->is_local && pos - p->window + 1 > 0 ? pos - p->window + 1 : 0;
    double q[REF_MAX];
    ref_matrix(&r->d->w, r->d->w.layers[l].q, a, q);
    ref_heads(q, ref_vector(&r->d->w, r->d->w.layers[l].q_norm), p->n_heads, d, (double)p->norm_eps,
              y->is_local ? p->rope_base_local : p->rope_base_global, y->is_local ? d / 2 : d / 8, pos);
    const size_t n = (size_t)(r->n - first), stride = (size_t)(n_kv * d);
    float *k = malloc(n * stride * sizeof *k), *v = malloc(n * stride * sizeof *v);
    for (int32_t i = first; i < r->n; i++)
        for (int h = 0; h < n_kv; h++) {
            ref_cached(r, y->donor, i, h, false, k + (size_t)(i - first) * stride + (size_t)(h * d));
            ref_cached(r, y->donor, i, h, true, v + (size_t)(i - first) * stride + (size_t)(h * d));
        }
    ref_attention(q, k, v, (int)n, p->n_heads, n_kv, d, 1, o);
    free(k);
    free(v);
}

/* One step: token and hidden [H], which becomes the next one; logits [n_vocab] of the dense head. */
static inline void ref_mtp(const rig *r, int32_t token, int32_t pos, double *hidden, double *logits)
{
    const mtp_hparams *p = &r->d->mtp;
    const weights *w = &r->d->w;
    const size_t H = r->m->h.n_embd, n = p->n_embd;
    const double eps = (double)p->norm_eps;
    float row[REF_MAX];
    double both[REF_MAX], x[REF_MAX], a[REF_MAX], o[REF_MAX], g[REF_MAX], u[REF_MAX];
    ref_row(&r->m->w.list[r->m->w.token_embd], (size_t)token, row);
    for (size_t i = 0; i < H; i++) both[i] = sqrt((double)H) * (double)row[i];
    for (size_t i = 0; i < H; i++) both[H + i] = hidden[i];
    ref_matrix(w, p->pre_projection, both, x);
    for (int l = 0; l < p->n_layers; l++) {
        const layer_weights *y = &w->layers[l];
        ref_norm(x, ref_vector(w, y->attn_norm), n, eps, a);
        ref_mtp_attention(r, l, pos, a, o);
        ref_matrix(w, y->attn_out, o, a);
        ref_norm(a, ref_vector(w, y->post_attn_norm), n, eps, a);
        for (size_t i = 0; i < n; i++) x[i] += a[i];
        ref_norm(x, ref_vector(w, y->ffn_norm), n, eps, a);
        ref_matrix(w, y->gate, a, g);
        ref_matrix(w, y->up, a, u);
        for (size_t i = 0; i < p->layer[l].n_ff; i++) g[i] = ref_gelu(g[i]) * u[i];
        ref_matrix(w, y->down, g, a);
        ref_norm(a, ref_vector(w, y->post_ffn_norm), n, eps, a);
        for (size_t i = 0; i < n; i++) x[i] = (x[i] + a[i]) * (double)y->out_scale;
    }
    ref_norm(x, ref_vector(w, w->output_norm), n, eps, a);
    ref_matrix(w, p->post_projection, a, hidden);
    ref_logits(w, w->output, a, 0, logits);
}

/* ---- DFlash ---- */

/* K (normed, turned) and V of a row [n_embd] for one layer, as an f16 cache keeps them. */
static inline void ref_dflash_kv(const rig *r, int l, const double *x, int32_t pos, float *k, float *v)
{
    const dflash_hparams *p = &r->d->dflash;
    const layer_weights *y = &r->d->w.layers[l];
    const int d = p->head_dim, n_kv = p->layer[l].n_kv_heads;
    double t[REF_MAX];
    ref_matrix(&r->d->w, y->k, x, t);
    ref_heads(t, ref_vector(&r->d->w, y->k_norm), n_kv, d, (double)p->norm_eps, p->rope_base, d / 2, pos);
    for (int i = 0; i < n_kv * d; i++) k[i] = f16_to_f32(f32_to_f16((float)t[i]));
    ref_matrix(&r->d->w, y->v, x, t);
    for (int i = 0; i < n_kv * d; i++) v[i] = f16_to_f32(f32_to_f16((float)t[i]));
}

/* The context vector of a position from its features. */
static inline void ref_dflash_context(const rig *r, const float *features, double *g)
{
    const dflash_hparams *p = &r->d->dflash;
    double f[REF_MAX];
    for (size_t i = 0; i < p->n_embd * (size_t)p->n_taps; i++) f[i] = (double)features[i];
    ref_matrix(&r->d->w, p->fc, f, g);
    ref_norm(g, ref_vector(&r->d->w, p->hidden_norm), p->n_embd, (double)p->norm_eps, g);
}

/* One layer's attention and feed-forward for all n rows x [n][n_embd] of a block at positions r->n ... */
static inline void ref_dflash_layer(const rig *r, int l, int n, bool is_causal, double *x)
{
    const dflash_hparams *p = &r->d->dflash;
    const weights *w = &r->d->w;
    const layer_weights *y = &w->layers[l];
    const size_t H = p->n_embd;
    const int d = p->head_dim, n_kv = p->layer[l].n_kv_heads, C = r->n;
    const size_t stride = (size_t)(n_kv * d);
    const double eps = (double)p->norm_eps;
    float *k = malloc((size_t)(C + n) * stride * sizeof *k), *v = malloc((size_t)(C + n) * stride * sizeof *v);
    double a[REF_MAX], q[REF_MAX], o[REF_MAX], g[REF_MAX], u[REF_MAX];
    const int oldest = C - r->d->draft_ctx > 0 ? C - r->d->draft_ctx : 0;
    for (int i = oldest; i < C; i++)
        for (int h = 0; h < n_kv; h++) {
            ref_cached(r, r->d->first_kv_layer + l, i, h, false, k + (size_t)i * stride + (size_t)(h * d));
            ref_cached(r, r->d->first_kv_layer + l, i, h, true, v + (size_t)i * stride + (size_t)(h * d));
        }
    for (int i = 0; i < n; i++) {
        ref_norm(x + (size_t)i * H, ref_vector(w, y->attn_norm), H, eps, a);
        ref_dflash_kv(r, l, a, C + i, k + (size_t)(C + i) * stride, v + (size_t)(C + i) * stride);
    }
    for (int i = 0; i < n; i++) {
        double *row = x + (size_t)i * H;
        const int window = p->layer[l].is_local && p->window < r->d->draft_ctx ? p->window : r->d->draft_ctx;
        const int first = C + i - window + 1 > 0 ? C + i - window + 1 : 0, last = is_causal ? C + i + 1 : C + n;
        ref_norm(row, ref_vector(w, y->attn_norm), H, eps, a);
        ref_matrix(w, y->q, a, q);
        ref_heads(q, ref_vector(w, y->q_norm), p->n_heads, d, eps, p->rope_base, d / 2, C + i);
        ref_attention(q, k + (size_t)first * stride, v + (size_t)first * stride, last - first, p->n_heads, n_kv, d,
                      1 / sqrt(d), o);
        ref_matrix(w, y->attn_out, o, a);
        for (size_t j = 0; j < H; j++) row[j] += a[j];
        ref_norm(row, ref_vector(w, y->ffn_norm), H, eps, a);
        ref_matrix(w, y->gate, a, g);
        ref_matrix(w, y->up, a, u);
        for (size_t j = 0; j < p->layer[l].n_ff; j++) g[j] = ref_silu(g[j]) * u[j];
        ref_matrix(w, y->down, g, a);
        for (size_t j = 0; j < H; j++) row[j] += a[j];
    }
    free(k);
    free(v);
}

/* Logits [n - 1][n_vocab] of rows 1 .. n - 1 of a block of n rows. is_causal [n_layers]. */
static inline void ref_dflash_block(const rig *r, int n, const bool *is_causal, double *logits)
{
    const dflash_hparams *p = &r->d->dflash;
    const weights *target = &r->m->w;
    const size_t H = p->n_embd, V = r->m->h.n_vocab;
    double *x = malloc((size_t)n * H * sizeof *x), y[REF_MAX];
    float row[REF_MAX];
    for (int i = 0; i < n; i++) {
        ref_row(&target->list[target->token_embd], (size_t)(i ? p->mask_token : r->pending), row);
        for (size_t j = 0; j < H; j++) x[(size_t)i * H + j] = sqrt((double)H) * (double)row[j];
    }
    for (int l = 0; l < p->n_layers; l++) ref_dflash_layer(r, l, n, is_causal[l], x);
    for (int i = 1; i < n; i++) {
        ref_norm(x + (size_t)i * H, ref_vector(&r->d->w, r->d->w.output_norm), H, (double)p->norm_eps, y);
        ref_logits(target, target->output, y, (double)r->m->h.softcap, logits + (size_t)(i - 1) * V);
    }
    free(x);
}

#endif
