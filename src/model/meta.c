#include "model/meta.h"

#include <stdio.h>
#include <string.h>

/* A writer, the prefix of its keys, and the first failure; later calls do nothing. */
typedef struct putter {
    gguf_writer *w;
    const char *arch;
    char key[128];
    facet_status status;
    facet_error *err;
} putter;

static const char *key_of(putter *p, const char *name)
{
    snprintf(p->key, sizeof p->key, "%s.%s", p->arch, name);
    return p->key;
}

static void put_u32(putter *p, const char *name, uint32_t v)
{
    if (p->status == FACET_OK) p->status = gguf_put_u32(p->w, key_of(p, name), v, p->err);
}

static void put_f32(putter *p, const char *name, float v)
{
    if (p->status == FACET_OK) p->status = gguf_put_f32(p->w, key_of(p, name), v, p->err);
}

static void put_bool(putter *p, const char *name, bool v)
{
    if (p->status == FACET_OK) p->status = gguf_put_bool(p->w, key_of(p, name), v, p->err);
}

static void put_array(putter *p, const char *name, gguf_type elem, const void *v, int n)
{
    if (p->status == FACET_OK) p->status = gguf_put_array(p->w, key_of(p, name), elem, v, (uint64_t)n, p->err);
}

static void put_text(putter *p, const char *key, const char *s)
{
    if (p->status == FACET_OK) p->status = gguf_put_str(p->w, key, s, strlen(s), p->err);
}

static void put_general(putter *p, const char *name, uint32_t v)
{
    if (p->status == FACET_OK) p->status = gguf_put_u32(p->w, name, v, p->err);
}

static void put_per_layer(putter *p, const char *name, const int32_t *v, int n)
{
    bool is_same = true;
    for (int i = 1; i < n; i++) is_same = is_same && v[i] == v[0];
    if (is_same)
        put_u32(p, name, (uint32_t)v[0]);
    else
        put_array(p, name, GGUF_I32, v, n);
}

static void put_gemma(putter *p, const meta *m)
{
    if (m->softcap > 0) put_f32(p, "final_logit_softcapping", m->softcap);
    if (m->window) put_u32(p, "attention.sliding_window", m->window);
    put_u32(p, "attention.shared_kv_layers", (uint32_t)m->n_shared_kv);
    put_u32(p, "embedding_length_per_layer_input", m->n_embd_per_layer);
    put_array(p, "attention.sliding_window_pattern", GGUF_BOOL, m->is_local, m->n_layers);
    put_u32(p, "attention.key_length_swa", m->head_dim_local);
    put_u32(p, "attention.value_length_swa", m->head_dim_local);
    if (m->n_ff_expert) put_u32(p, "expert_feed_forward_length", m->n_ff_expert);
    put_u32(p, "rope.dimension_count", m->head_dim);
    put_u32(p, "rope.dimension_count_swa", m->head_dim_local);
    if (!m->n_embd_out) return;
    put_u32(p, "embedding_length_out", m->n_embd_out);
    put_u32(p, "nextn_predict_layers", (uint32_t)m->n_layers);
    if (!m->n_centroids) return;
    put_bool(p, "use_ordered_embeddings", true);
    put_u32(p, "n_centroids", (uint32_t)m->n_centroids);
    put_u32(p, "centroid_top_k", (uint32_t)m->n_centroids_used);
}

static void put_dflash(putter *p, const meta *m)
{
    put_u32(p, "block_size", (uint32_t)m->block_size);
    if (m->embedding_scale > 0) put_f32(p, "embedding_scale", m->embedding_scale);
    if (m->softcap > 0) put_f32(p, "final_logit_softcapping", m->softcap);
    put_array(p, "target_layers", GGUF_I32, m->target_layers, m->n_target_layers);
    if (m->target_depth) put_u32(p, "target_layer_count", (uint32_t)m->target_depth);
    if (m->has_causal) put_bool(p, "attention.causal", m->is_causal);
    if (m->activation) put_text(p, key_of(p, "hidden_activation"), m->activation);
    if (!m->is_local) return;
    if (m->window) put_u32(p, "attention.sliding_window", m->window);
    put_array(p, "attention.sliding_window_pattern", GGUF_BOOL, m->is_local, m->n_layers);
}

facet_status meta_put(gguf_writer *w, const meta *m, facet_error *err)
{
    putter p = {.w = w, .arch = m->arch, .err = err};
    put_text(&p, "general.architecture", m->arch);
    put_text(&p, "general.type", "model");
    put_text(&p, "general.name", m->name);
    put_u32(&p, "block_count", (uint32_t)m->n_layers);
    put_u32(&p, "context_length", m->n_ctx);
    put_u32(&p, "embedding_length", m->n_embd);
    put_per_layer(&p, "feed_forward_length", m->n_ff, m->n_layers);
    put_u32(&p, "attention.head_count", (uint32_t)m->n_heads);
    put_per_layer(&p, "attention.head_count_kv", m->n_kv_heads, m->n_layers);
    put_f32(&p, "rope.freq_base", m->rope_base);
    if (m->rope_base_local > 0) put_f32(&p, "rope.freq_base_swa", m->rope_base_local);
    put_f32(&p, "attention.layer_norm_rms_epsilon", m->norm_eps);
    if (m->n_experts) {
        put_u32(&p, "expert_count", (uint32_t)m->n_experts);
        put_u32(&p, "expert_used_count", (uint32_t)m->n_experts_used);
    }
    put_u32(&p, "attention.key_length", m->head_dim);
    put_u32(&p, "attention.value_length", m->head_dim);
    put_general(&p, "general.file_type", m->file_type);
    if (strcmp(m->arch, META_DFLASH) == 0)
        put_dflash(&p, m);
    else
        put_gemma(&p, m);
    put_general(&p, "general.quantization_version", 2);
    return p.status;
}

void meta_rope_divisors(float *out, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) out[i] = i < n / 4 ? 1.0f : 1e30f;
}
