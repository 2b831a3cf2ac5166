#include "model/hparams.h"

#include <string.h>

#include "base/mem.h"

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

/* One integer per layer from a scalar or an array of exactly n_layers. */
static facet_status per_layer(const gguf_file *f, const char *key, int64_t min, int64_t max, int n_layers, int64_t *out,
                              facet_error *err)
{
    const gguf_kv *kv = gguf_find(f, key);
    if (!kv) return error_set(err, FACET_ERR_FORMAT, "%s: missing key %s", f->path, key);
    if (kv->type == GGUF_ARRAY && kv->count != (uint64_t)n_layers)
        return error_set(err, FACET_ERR_FORMAT, "%s: %s has %llu entries, the model has %d layers", f->path, key,
                         (unsigned long long)kv->count, n_layers);
    for (int l = 0; l < n_layers; l++) {
        bool ok = kv->type == GGUF_ARRAY ? gguf_array_i64(kv, (uint64_t)l, &out[l]) : gguf_scalar_i64(kv, &out[l]);
        if (!ok) return error_set(err, FACET_ERR_FORMAT, "%s: %s is not made of integers", f->path, key);
        if (out[l] < min || out[l] > max)
            return error_set(err, FACET_ERR_FORMAT, "%s: %s of layer %d is %lld, wanted %lld to %lld", f->path, key, l,
                             (long long)out[l], (long long)min, (long long)max);
    }
    return FACET_OK;
}

static facet_status get_int(const gguf_file *f, const char *key, bool required, int64_t min, int64_t max, int *out,
                            facet_error *err)
{
    uint64_t v = (uint64_t)*out;
    FACET_TRY(gguf_get_u64(f, key, required, (uint64_t)min, (uint64_t)max, &v, err));
    *out = (int)v;
    return FACET_OK;
}

static facet_status get_u32(const gguf_file *f, const char *key, bool required, uint64_t min, uint64_t max,
                            uint32_t *out, facet_error *err)
{
    uint64_t v = *out;
    FACET_TRY(gguf_get_u64(f, key, required, min, max, &v, err));
    *out = (uint32_t)v;
    return FACET_OK;
}

static facet_status read_head_dims(const gguf_file *f, hparams *h, facet_error *err)
{
    static const char *const keys[2][2] = {{"gemma4.attention.key_length", "gemma4.attention.value_length"},
                                           {"gemma4.attention.key_length_swa", "gemma4.attention.value_length_swa"}};
    int *dims[2] = {&h->head_dim_global, &h->head_dim_local};
    for (int i = 0; i < 2; i++) {
        int value_dim = 0;
        FACET_TRY(get_int(f, keys[i][0], true, 32, 4096, dims[i], err));
        FACET_TRY(get_int(f, keys[i][1], true, 32, 4096, &value_dim, err));
        if (value_dim != *dims[i])
            return error_set(err, FACET_ERR_UNSUPPORTED, "%s: %s is %d, %s is %d: they must be equal", f->path,
                             keys[i][0], *dims[i], keys[i][1], value_dim);
        if (*dims[i] % 32)
            return error_set(err, FACET_ERR_UNSUPPORTED, "%s: %s is %d, wanted a multiple of 32", f->path, keys[i][0],
                             *dims[i]);
    }
    return FACET_OK;
}

static facet_status read_layers(const gguf_file *f, hparams *h, int64_t *scratch, facet_error *err)
{
    FACET_TRY(per_layer(f, "gemma4.attention.sliding_window_pattern", 0, 1, h->n_layers, scratch, err));
    for (int l = 0; l < h->n_layers; l++) {
        h->layers[l].is_local = scratch[l] != 0;
        h->layers[l].head_dim = scratch[l] ? h->head_dim_local : h->head_dim_global;
    }
    FACET_TRY(per_layer(f, "gemma4.feed_forward_length", 32, 1 << 20, h->n_layers, scratch, err));
    for (int l = 0; l < h->n_layers; l++) h->layers[l].n_ff = (uint32_t)scratch[l];
    if (gguf_find(f, "gemma4.attention.head_count_kv"))
        FACET_TRY(per_layer(f, "gemma4.attention.head_count_kv", 1, h->n_heads, h->n_layers, scratch, err));
    else
        for (int l = 0; l < h->n_layers; l++) scratch[l] = h->n_heads;
    for (int l = 0; l < h->n_layers; l++) {
        h->layers[l].n_kv_heads = (int)scratch[l];
        if (h->n_heads % (int)scratch[l])
            return error_set(
                err, FACET_ERR_FORMAT,
                "%s: gemma4.attention.head_count_kv of layer %d is %d, which does not divide head_count %d", f->path, l,
                (int)scratch[l], h->n_heads);
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

static facet_status read_moe(const gguf_file *f, hparams *h, facet_error *err)
{
    FACET_TRY(get_int(f, "gemma4.expert_count", false, 0, 1024, &h->n_experts, err));
    if (!h->n_experts) return FACET_OK;
    FACET_TRY(get_int(f, "gemma4.expert_used_count", true, 1, h->n_experts < 64 ? h->n_experts : 64, &h->n_experts_used,
                      err));
    return get_u32(f, "gemma4.expert_feed_forward_length", true, 32, 1 << 20, &h->n_ff_expert, err);
}

static facet_status read_sampling(const gguf_file *f, hparams *h, facet_error *err)
{
    h->sampling_temp = 1.0f;
    h->sampling_top_p = 0.95f;
    h->sampling_top_k = 64;
    FACET_TRY(gguf_get_f32(f, "general.sampling.temp", false, &h->sampling_temp, err));
    FACET_TRY(gguf_get_f32(f, "general.sampling.top_p", false, &h->sampling_top_p, err));
    if (h->sampling_temp < 0)
        return error_set(err, FACET_ERR_FORMAT, "%s: general.sampling.temp is %g, wanted 0 or more", f->path,
                         (double)h->sampling_temp);
    if (!(h->sampling_top_p > 0 && h->sampling_top_p <= 1))
        return error_set(err, FACET_ERR_FORMAT, "%s: general.sampling.top_p is %g, wanted above 0, at most 1", f->path,
                         (double)h->sampling_top_p);
    return get_int(f, "general.sampling.top_k", false, 0, 1 << 20, &h->sampling_top_k, err);
}

static facet_status read_scalars(const gguf_file *f, hparams *h, facet_error *err)
{
    FACET_TRY(get_int(f, "gemma4.block_count", true, 1, MAX_LAYERS, &h->n_layers, err));
    FACET_TRY(get_u32(f, "gemma4.context_length", true, 1, INT32_MAX, &h->n_ctx_train, err));
    FACET_TRY(get_u32(f, "gemma4.embedding_length", true, 32, 1 << 20, &h->n_embd, err));
    FACET_TRY(get_int(f, "gemma4.attention.head_count", true, 1, 1024, &h->n_heads, err));
    FACET_TRY(get_int(f, "gemma4.attention.sliding_window", true, 1, 1 << 24, &h->window, err));
    FACET_TRY(get_int(f, "gemma4.attention.shared_kv_layers", false, 0, h->n_layers - 1, &h->n_shared_kv, err));
    FACET_TRY(get_u32(f, "gemma4.embedding_length_per_layer_input", false, 0, 1 << 16, &h->n_embd_per_layer, err));
    FACET_TRY(gguf_get_f32(f, "gemma4.attention.layer_norm_rms_epsilon", true, &h->norm_eps, err));
    FACET_TRY(gguf_get_f32(f, "gemma4.final_logit_softcapping", false, &h->softcap, err));
    float global = 1e4f, local = 1e4f;
    FACET_TRY(gguf_get_f32(f, "gemma4.rope.freq_base", false, &global, err));
    FACET_TRY(gguf_get_f32(f, "gemma4.rope.freq_base_swa", false, &local, err));
    if (!(global > 1) || !(local > 1))
        return error_set(err, FACET_ERR_FORMAT, "%s: gemma4.rope.freq_base is %g and %g, wanted above 1", f->path,
                         (double)global, (double)local);
    if (!(h->norm_eps > 0))
        return error_set(err, FACET_ERR_FORMAT, "%s: gemma4.attention.layer_norm_rms_epsilon is %g, wanted above 0",
                         f->path, (double)h->norm_eps);
    if (h->softcap < 0)
        return error_set(err, FACET_ERR_FORMAT, "%s: gemma4.final_logit_softcapping is %g, wanted 0 (none) or more",
                         f->path, (double)h->softcap);
    h->rope_base_global = (double)global;
    h->rope_base_local = (double)local;
    return read_sampling(f, h, err);
}

facet_status hparams_read(const gguf_file *f, hparams *out, facet_error *err)
{
    FACET_TRY(check_architecture(f, err));
    hparams h = {0};
    FACET_TRY(read_scalars(f, &h, err));
    FACET_TRY(read_head_dims(f, &h, err));
    FACET_TRY(read_moe(f, &h, err));
    h.first_shared = h.n_layers - h.n_shared_kv;
    const gguf_tensor *embd = gguf_find_tensor(f, "token_embd.weight");
    if (!embd) return error_set(err, FACET_ERR_FORMAT, "%s: missing tensor token_embd.weight", f->path);
    if (embd->ne[1] < 1 || embd->ne[1] >= 1 << 24)
        return error_set(err, FACET_ERR_SHAPE, "%s: tensor token_embd.weight has %llu rows, wanted 1 to 16777215",
                         f->path, (unsigned long long)embd->ne[1]);
    h.n_vocab = (uint32_t)embd->ne[1];
    int64_t *scratch = mem_calloc((size_t)h.n_layers, sizeof *scratch);
    h.layers = mem_calloc((size_t)h.n_layers, sizeof *h.layers);
    facet_status status =
        scratch && h.layers ? FACET_OK : error_memory(err, "the layer table", (size_t)h.n_layers * sizeof *h.layers);
    if (status == FACET_OK) status = read_layers(f, &h, scratch, err);
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
