#include "model/hparams.h"

#include <string.h>

#include "base/mem.h"
#include "model/keys.h"

static bool str_is(gguf_str s, const char *want)
{
    return s.n == strlen(want) && memcmp(s.s, want, s.n) == 0;
}

static facet_status check_architecture(const gguf_file *f, facet_error *err)
{
    gguf_str arch = {0};
    FACET_TRY(gguf_get_str(f, "general.architecture", true, &arch, err));
    if (str_is(arch, "gemma4")) return FACET_OK;
    const char *hint = "";
    if (str_is(arch, "gemma4-assistant") || str_is(arch, "gemma4_assistant"))
        hint = "; this is an MTP drafter: give the target as the model and this file as the drafter (-md)";
    else if (str_is(arch, "dflash") || str_is(arch, "gemma4-dflash-draft"))
        hint = "; this is a DFlash drafter: give the target as the model and this file as the drafter (-md)";
    else if (str_is(arch, "clip"))
        hint = "; this is a vision or audio encoder, which Facet does not use";
    return error_set(err, FACET_ERR_UNSUPPORTED, "%s: general.architecture is '%.*s', Facet runs 'gemma4'%s", f->path,
                     (int)(arch.n < 64 ? arch.n : 64), arch.s, hint);
}

static facet_status read_layers(const key_reader *k, hparams *h, int64_t *scratch)
{
    FACET_TRY(keys_per_layer(k, "attention.sliding_window_pattern", 0, 1, h->n_layers, scratch));
    for (int l = 0; l < h->n_layers; l++) {
        h->layers[l].is_local = scratch[l] != 0;
        h->layers[l].head_dim = scratch[l] ? h->head_dim_local : h->head_dim_global;
    }
    FACET_TRY(keys_per_layer(k, "feed_forward_length", 32, 1 << 20, h->n_layers, scratch));
    for (int l = 0; l < h->n_layers; l++) h->layers[l].n_ff = (uint32_t)scratch[l];
    if (keys_has(k, "attention.head_count_kv"))
        FACET_TRY(keys_per_layer(k, "attention.head_count_kv", 1, h->n_heads, h->n_layers, scratch));
    else
        for (int l = 0; l < h->n_layers; l++) scratch[l] = h->n_heads;
    for (int l = 0; l < h->n_layers; l++) {
        h->layers[l].n_kv_heads = (int)scratch[l];
        if (h->n_heads % (int)scratch[l])
            return error_set(
                k->err, FACET_ERR_FORMAT,
                "%s: gemma4.attention.head_count_kv of layer %d is %d, which does not divide head_count %d", k->f->path,
                l, (int)scratch[l], h->n_heads);
    }
    return FACET_OK;
}

/* A sharing layer reads the cache of the last layer of its kind that owns one. */
static facet_status resolve_sources(const gguf_file *f, hparams *h, facet_error *err)
{
    int last[2] = {-1, -1};
    for (int l = 0; l < h->n_layers; l++) {
        layer_hparams *y = &h->layers[l];
        if (l < h->first_shared) last[y->is_local] = l;
        y->kv_source = last[y->is_local];
        if (y->kv_source < 0)
            return error_set(
                err, FACET_ERR_FORMAT,
                "%s: gemma4.attention.shared_kv_layers is %d: layer %d has no earlier layer of its kind to share with",
                f->path, h->n_shared_kv, l);
        y->n_kv_heads = h->layers[y->kv_source].n_kv_heads;
    }
    return FACET_OK;
}

static facet_status read_moe(const key_reader *k, hparams *h)
{
    FACET_TRY(keys_int(k, "expert_count", false, 0, 1024, &h->n_experts));
    if (!h->n_experts) return FACET_OK;
    FACET_TRY(keys_int(k, "expert_used_count", true, 1, h->n_experts < 64 ? h->n_experts : 64, &h->n_experts_used));
    return keys_u32(k, "expert_feed_forward_length", true, 32, 1 << 20, &h->n_ff_expert);
}

static facet_status read_sampling(const key_reader *model, hparams *h)
{
    const key_reader k = {model->f, "general", model->err};
    h->sampling_temp = 1.0f;
    h->sampling_top_p = 0.95f;
    h->sampling_top_k = 64;
    FACET_TRY(keys_f32(&k, "sampling.temp", false, &h->sampling_temp));
    FACET_TRY(keys_f32(&k, "sampling.top_p", false, &h->sampling_top_p));
    if (h->sampling_temp < 0)
        return error_set(k.err, FACET_ERR_FORMAT, "%s: general.sampling.temp is %g, wanted 0 or more", k.f->path,
                         (double)h->sampling_temp);
    if (!(h->sampling_top_p > 0 && h->sampling_top_p <= 1))
        return error_set(k.err, FACET_ERR_FORMAT, "%s: general.sampling.top_p is %g, wanted above 0, at most 1",
                         k.f->path, (double)h->sampling_top_p);
    return keys_int(&k, "sampling.top_k", false, 0, 1 << 20, &h->sampling_top_k);
}

static facet_status read_scalars(const key_reader *k, hparams *h)
{
    FACET_TRY(keys_int(k, "block_count", true, 1, MAX_LAYERS, &h->n_layers));
    FACET_TRY(keys_u32(k, "context_length", true, 1, INT32_MAX, &h->n_ctx_train));
    FACET_TRY(keys_u32(k, "embedding_length", true, 32, 1 << 20, &h->n_embd));
    FACET_TRY(keys_int(k, "attention.head_count", true, 1, 1024, &h->n_heads));
    FACET_TRY(keys_int(k, "attention.sliding_window", true, 1, 1 << 24, &h->window));
    FACET_TRY(keys_int(k, "attention.shared_kv_layers", false, 0, h->n_layers - 1, &h->n_shared_kv));
    FACET_TRY(keys_u32(k, "embedding_length_per_layer_input", false, 0, 1 << 16, &h->n_embd_per_layer));
    FACET_TRY(keys_f32(k, "attention.layer_norm_rms_epsilon", true, &h->norm_eps));
    FACET_TRY(keys_f32(k, "final_logit_softcapping", false, &h->softcap));
    float global = 1e4f, local = 1e4f;
    FACET_TRY(keys_f32(k, "rope.freq_base", false, &global));
    FACET_TRY(keys_f32(k, "rope.freq_base_swa", false, &local));
    if (!(global > 1) || !(local > 1))
        return error_set(k->err, FACET_ERR_FORMAT, "%s: gemma4.rope.freq_base is %g and %g, wanted above 1", k->f->path,
                         (double)global, (double)local);
    if (!(h->norm_eps > 0))
        return error_set(k->err, FACET_ERR_FORMAT, "%s: gemma4.attention.layer_norm_rms_epsilon is %g, wanted above 0",
                         k->f->path, (double)h->norm_eps);
    if (h->softcap < 0)
        return error_set(k->err, FACET_ERR_FORMAT, "%s: gemma4.final_logit_softcapping is %g, wanted 0 (none) or more",
                         k->f->path, (double)h->softcap);
    h->rope_base_global = (double)global;
    h->rope_base_local = (double)local;
    return read_sampling(k, h);
}

facet_status hparams_read(const gguf_file *f, hparams *out, facet_error *err)
{
    FACET_TRY(check_architecture(f, err));
    hparams h = {0};
    const key_reader k = {f, "gemma4", err};
    FACET_TRY(read_scalars(&k, &h));
    FACET_TRY(keys_head_dim(&k, "attention.key_length", "attention.value_length", &h.head_dim_global));
    FACET_TRY(keys_head_dim(&k, "attention.key_length_swa", "attention.value_length_swa", &h.head_dim_local));
    FACET_TRY(read_moe(&k, &h));
    h.first_shared = h.n_layers - h.n_shared_kv;
    const gguf_tensor *embd = gguf_find_tensor(f, "token_embd.weight");
    if (!embd) return error_set(err, FACET_ERR_FORMAT, "%s: missing tensor token_embd.weight", f->path);
    if (embd->ne[1] < 1 || embd->ne[1] >= 1 << 24)
        return error_set(err, FACET_ERR_SHAPE, "%s: tensor token_embd.weight has %llu rows, wanted 1 to 16777215",
                         gguf_path_of(f, embd), (unsigned long long)embd->ne[1]);
    h.n_vocab = (uint32_t)embd->ne[1];
    int64_t *scratch = mem_calloc((size_t)h.n_layers, sizeof *scratch);
    h.layers = mem_calloc((size_t)h.n_layers, sizeof *h.layers);
    facet_status status =
        scratch && h.layers ? FACET_OK : error_memory(err, "the layer table", (size_t)h.n_layers * sizeof *h.layers);
    if (status == FACET_OK) status = read_layers(&k, &h, scratch);
    if (status == FACET_OK) status = resolve_sources(f, &h, err);
    mem_free(scratch);
    if (status != FACET_OK) {
        hparams_free(&h);
        return status;
    }
    *out = h;
    return FACET_OK;
}

void hparams_free(hparams *h)
{
    mem_free(h->layers);
    h->layers = NULL;
}
