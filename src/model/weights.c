#include "model/weights.h"

#include <stdio.h>

#include "base/mem.h"
#include "model/bind.h"

/* attn_qkv holds the rows of Q, K and V, in this order; each becomes a weight of its own. */
static facet_status bind_fused_qkv(const binder *b, const gguf_tensor *t, uint64_t n_in, uint64_t n_q, uint64_t n_kv,
                                   layer_weights *y)
{
    const uint64_t n = n_q + 2 * n_kv;
    FACET_TRY(bind_part(b, t, n_in, n, 0, n_q, &y->q));
    FACET_TRY(bind_part(b, t, n_in, n, n_q, n_kv, &y->k));
    return bind_part(b, t, n_in, n, n_q + n_kv, n_kv, &y->v);
}

static facet_status bind_attention(const binder *b, const hparams *h, int l, layer_weights *y)
{
    const layer_hparams *p = &h->layers[l];
    const uint64_t n_embd = h->n_embd, n_q = (uint64_t)h->n_heads * (uint64_t)p->head_dim;
    const uint64_t n_kv = (uint64_t)p->n_kv_heads * (uint64_t)p->head_dim;
    const bool owns_kv = p->kv_source == l;
    FACET_TRY(bind_vector(b, true, n_embd, &y->attn_norm, l, "attn_norm.weight"));
    char fused[64];
    snprintf(fused, sizeof fused, "blk.%d.attn_qkv.weight", l);
    const gguf_tensor *qkv = gguf_find_tensor(b->f, fused);
    y->k = y->v = -1;
    if (qkv) {
        FACET_TRY(bind_fused_qkv(b, qkv, n_embd, n_q, n_kv, y));
    } else {
        FACET_TRY(bind_matrix(b, true, n_embd, n_q, 1, &y->q, l, "attn_q"));
        if (owns_kv) FACET_TRY(bind_matrix(b, true, n_embd, n_kv, 1, &y->k, l, "attn_k"));
        if (owns_kv) FACET_TRY(bind_matrix(b, p->is_local, n_embd, n_kv, 1, &y->v, l, "attn_v"));
    }
    y->k_norm = -1;
    FACET_TRY(bind_vector(b, true, (uint64_t)p->head_dim, &y->q_norm, l, "attn_q_norm.weight"));
    if (owns_kv) FACET_TRY(bind_vector(b, true, (uint64_t)p->head_dim, &y->k_norm, l, "attn_k_norm.weight"));
    FACET_TRY(bind_matrix(b, true, n_q, n_embd, 1, &y->attn_out, l, "attn_output"));
    return bind_vector(b, true, n_embd, &y->post_attn_norm, l, "post_attention_norm.weight");
}

static facet_status bind_experts(const binder *b, const hparams *h, int l, layer_weights *y)
{
    const uint64_t n_embd = h->n_embd, n_ff = h->n_ff_expert, n = (uint64_t)h->n_experts;
    char name[64];
    snprintf(name, sizeof name, "blk.%d.ffn_gate_inp.weight", l);
    y->router = y->router_scale = y->expert_gate = y->expert_up = y->expert_gate_scale = y->expert_down =
        y->expert_down_scale = -1;
    y->expert_norm = y->post_dense_norm = y->post_expert_norm = -1;
    if (!n) return FACET_OK;
    FACET_TRY(bind_tensor(b, CLASS_F32_MATRIX, false, n_embd, n, 1, &y->router, name));
    if (y->router < 0) return FACET_OK; /* a dense layer of a mixed model */
    FACET_TRY(bind_vector(b, true, n_embd, &y->router_scale, l, "ffn_gate_inp.scale"));
    FACET_TRY(bind_vector(b, true, n_embd, &y->expert_norm, l, "pre_ffw_norm_2.weight"));
    FACET_TRY(bind_vector(b, true, n_embd, &y->post_dense_norm, l, "post_ffw_norm_1.weight"));
    FACET_TRY(bind_vector(b, true, n_embd, &y->post_expert_norm, l, "post_ffw_norm_2.weight"));
    FACET_TRY(bind_matrix(b, false, n_embd, 2 * n_ff, n, &y->expert_gate, l, "ffn_gate_up_exps"));
    if (y->expert_gate < 0) {
        FACET_TRY(bind_matrix(b, true, n_embd, n_ff, n, &y->expert_gate, l, "ffn_gate_exps"));
        FACET_TRY(bind_matrix(b, true, n_embd, n_ff, n, &y->expert_up, l, "ffn_up_exps"));
    } else {
        FACET_TRY(bind_vector(b, false, n, &y->expert_gate_scale, l, "ffn_gate_up_exps.scale"));
    }
    FACET_TRY(bind_matrix(b, true, n_ff, n_embd, n, &y->expert_down, l, "ffn_down_exps"));
    return bind_vector(b, false, n, &y->expert_down_scale, l, "ffn_down_exps.scale");
}

static facet_status bind_feed_forward(const binder *b, const hparams *h, int l, layer_weights *y)
{
    const uint64_t n_embd = h->n_embd, n_ff = h->layers[l].n_ff;
    FACET_TRY(bind_vector(b, true, n_embd, &y->ffn_norm, l, "ffn_norm.weight"));
    FACET_TRY(bind_matrix(b, true, n_embd, n_ff, 1, &y->gate, l, "ffn_gate"));
    FACET_TRY(bind_matrix(b, true, n_embd, n_ff, 1, &y->up, l, "ffn_up"));
    FACET_TRY(bind_matrix(b, true, n_ff, n_embd, 1, &y->down, l, "ffn_down"));
    return bind_vector(b, true, n_embd, &y->post_ffn_norm, l, "post_ffw_norm.weight");
}

static facet_status bind_layer_extras(const binder *b, const hparams *h, int l, layer_weights *y)
{
    const uint64_t n_embd = h->n_embd, n_ple = h->n_embd_per_layer;
    y->ple_gate = y->ple_proj = y->ple_norm = -1;
    if (n_ple) {
        FACET_TRY(bind_matrix(b, true, n_embd, n_ple, 1, &y->ple_gate, l, "inp_gate"));
        FACET_TRY(bind_matrix(b, true, n_ple, n_embd, 1, &y->ple_proj, l, "proj"));
        FACET_TRY(bind_vector(b, true, n_embd, &y->ple_norm, l, "post_norm.weight"));
    }
    return bind_scalar(b, 1, &y->out_scale, l, "layer_output_scale.weight");
}

static facet_status bind_global(const binder *b, const hparams *h)
{
    weights *w = b->w;
    const uint64_t n_ple = (uint64_t)h->n_embd_per_layer * (uint64_t)h->n_layers;
    FACET_TRY(bind_tensor(b, CLASS_ROWS, true, h->n_embd, h->n_vocab, 1, &w->token_embd, "token_embd.weight"));
    FACET_TRY(bind_tensor(b, CLASS_MATRIX, false, h->n_embd, h->n_vocab, 1, &w->output, "output.weight"));
    if (w->output < 0) {
        w->list[w->token_embd].is_matrix = true;
        w->output = w->token_embd;
    }
    FACET_TRY(bind_factor(b, w->output, w->output == w->token_embd ? "token_embd" : "output"));
    FACET_TRY(bind_tensor(b, CLASS_VECTOR, true, h->n_embd, 1, 1, &w->output_norm, "output_norm.weight"));
    w->ple_embd = w->ple_proj = w->ple_proj_norm = -1;
    if (n_ple) {
        FACET_TRY(bind_tensor(b, CLASS_ROWS, true, n_ple, h->n_vocab, 1, &w->ple_embd, "per_layer_token_embd.weight"));
        FACET_TRY(bind_matrix(b, true, h->n_embd, n_ple, 1, &w->ple_proj, -1, "per_layer_model_proj"));
        FACET_TRY(bind_tensor(b, CLASS_VECTOR, true, h->n_embd_per_layer, 1, 1, &w->ple_proj_norm,
                              "per_layer_proj_norm.weight"));
    }
    int rope;
    FACET_TRY(bind_tensor(b, CLASS_VECTOR, false, (uint64_t)h->head_dim_global / 2, 1, 1, &rope, "rope_freqs.weight"));
    w->rope_divisors = rope < 0 ? NULL : w->list[rope].data;
    return FACET_OK;
}

static facet_status bind_all(const binder *b, const hparams *h)
{
    FACET_TRY(bind_global(b, h));
    for (int l = 0; l < h->n_layers; l++) {
        layer_weights *y = &b->w->layers[l];
        FACET_TRY(bind_attention(b, h, l, y));
        FACET_TRY(bind_feed_forward(b, h, l, y));
        FACET_TRY(bind_experts(b, h, l, y));
        FACET_TRY(bind_layer_extras(b, h, l, y));
    }
    return FACET_OK;
}

facet_status weights_bind(const gguf_file *f, const hparams *h, weights *out, facet_error *err)
{
    weights w = {0};
    w.layers = mem_calloc((size_t)h->n_layers, sizeof *w.layers);
    if (!w.layers) return error_memory(err, "the layer weights", (size_t)h->n_layers * sizeof *w.layers);
    const binder b = {f, &w, err};
    facet_status status = bind_all(&b, h);
    if (status != FACET_OK) {
        weights_free(&w);
        return status;
    }
    *out = w;
    return FACET_OK;
}

void weights_free(weights *w)
{
    mem_free(w->list);
    mem_free(w->scale);
    mem_free(w->layers);
    *w = (weights){0};
}
