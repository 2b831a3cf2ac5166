#include "model/hf_config.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "model/hparams.h"

enum { MAX_JSON_BYTES = 1 << 28, MAX_TAPS = 256 };

facet_status hf_read_json(const char *dir, const char *name, bool required, json_t **out, facet_error *err)
{
    char path[4096], *text = NULL;
    size_t n = 0;
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return error_set(err, FACET_ERR_ARG, "%s: the path is too long", dir);
    if (!required && access(path, F_OK) != 0) return FACET_OK;
    FACET_TRY(file_read_all(path, MAX_JSON_BYTES, &text, &n, err));
    json_error_t e;
    json_t *j = json_loadb(text, n, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &e);
    mem_free(text);
    if (!j) return error_set(err, FACET_ERR_FORMAT, "%s: line %d: %s", path, e.line, e.text);
    if (!json_is_object(j)) {
        json_decref(j);
        return error_set(err, FACET_ERR_FORMAT, "%s: not a JSON object", path);
    }
    *out = j;
    return FACET_OK;
}

/* A whole number; an absent or null key leaves *out alone unless it is required. */
static facet_status get_int(const json_t *j, const char *key, bool required, int min, int max, int *out,
                            facet_error *err)
{
    const json_t *v = json_object_get(j, key);
    if ((!v || json_is_null(v)) && !required) return FACET_OK;
    if (!v || json_is_null(v)) return error_set(err, FACET_ERR_FORMAT, "config.json: missing key %s", key);
    json_int_t n = json_is_integer(v) ? json_integer_value(v) : -1;
    if (!json_is_integer(v) || n < min || n > max)
        return error_set(err, FACET_ERR_FORMAT, "config.json: %s is not a whole number from %d to %d", key, min, max);
    *out = (int)n;
    return FACET_OK;
}

static facet_status get_u32(const json_t *j, const char *key, bool required, uint32_t *out, facet_error *err)
{
    int v = (int)*out;
    FACET_TRY(get_int(j, key, required, required ? 1 : 0, 1 << 30, &v, err));
    *out = (uint32_t)v;
    return FACET_OK;
}

static facet_status get_f32(const json_t *j, const char *key, bool required, float *out, facet_error *err)
{
    const json_t *v = json_object_get(j, key);
    if ((!v || json_is_null(v)) && !required) return FACET_OK;
    if (!json_is_number(v) || !(json_number_value(v) > 0) || json_number_value(v) > 1e30)
        return error_set(err, FACET_ERR_FORMAT, "config.json: %s is not a positive number", key);
    *out = (float)json_number_value(v);
    return FACET_OK;
}

static const json_t *rope_of(const json_t *text, const char *type)
{
    const json_t *all = json_object_get(text, "rope_parameters");
    return type ? json_object_get(all, type) : all;
}

/* What the three models have in common. */
static facet_status read_common(const json_t *j, hf_config *c, facet_error *err)
{
    meta *m = &c->m;
    FACET_TRY(get_int(j, "num_hidden_layers", true, 1, MAX_LAYERS, &m->n_layers, err));
    FACET_TRY(get_int(j, "num_attention_heads", true, 1, 1 << 16, &m->n_heads, err));
    FACET_TRY(get_int(j, "vocab_size", true, 1, 1 << 24, &c->n_vocab, err));
    FACET_TRY(get_u32(j, "hidden_size", true, &m->n_embd, err));
    FACET_TRY(get_u32(j, "max_position_embeddings", true, &m->n_ctx, err));
    FACET_TRY(get_u32(j, "head_dim", true, &m->head_dim, err));
    FACET_TRY(get_u32(j, "sliding_window", false, &m->window, err));
    m->norm_eps = 1e-6f;
    FACET_TRY(get_f32(j, "rms_norm_eps", false, &m->norm_eps, err));
    FACET_TRY(get_f32(j, "final_logit_softcapping", false, &m->softcap, err));
    size_t n = (size_t)m->n_layers;
    c->n_ff = mem_calloc(n, sizeof *c->n_ff);
    c->n_kv_heads = mem_calloc(n, sizeof *c->n_kv_heads);
    c->is_local = mem_calloc(n, 1);
    if (!c->n_ff || !c->n_kv_heads || !c->is_local) return error_memory(err, "the layers of config.json", 9 * n);
    int ff = 0, kv = m->n_heads;
    FACET_TRY(get_int(j, "intermediate_size", true, 1, 1 << 30, &ff, err));
    FACET_TRY(get_int(j, "num_key_value_heads", false, 1, 1 << 16, &kv, err));
    for (size_t i = 0; i < n; i++) {
        c->n_ff[i] = ff;
        c->n_kv_heads[i] = kv;
    }
    m->n_ff = c->n_ff;
    m->n_kv_heads = c->n_kv_heads;
    const json_t *tied = json_object_get(j, "tie_word_embeddings");
    if (!tied) tied = json_object_get(c->root, "tie_word_embeddings");
    c->is_tied = !json_is_false(tied);
    return FACET_OK;
}

static facet_status read_layer_types(const json_t *j, hf_config *c, bool required, facet_error *err)
{
    const json_t *list = json_object_get(j, "layer_types");
    if (!required && !json_is_array(list)) return FACET_OK;
    if (!json_is_array(list) || json_array_size(list) != (size_t)c->m.n_layers)
        return error_set(err, FACET_ERR_FORMAT, "config.json: layer_types is no list of %d names", c->m.n_layers);
    for (size_t i = 0; i < (size_t)c->m.n_layers; i++) {
        const char *s = json_string_value(json_array_get(list, i));
        if (!s || (strcmp(s, "sliding_attention") != 0 && strcmp(s, "full_attention") != 0))
            return error_set(err, FACET_ERR_UNSUPPORTED,
                             "config.json: layer_types: entry %zu is neither sliding_attention nor full_attention", i);
        c->is_local[i] = s[0] == 's';
        if (c->is_local[i]) c->m.is_local = c->is_local;
    }
    return FACET_OK;
}

static facet_status read_gemma(const json_t *j, hf_config *c, facet_error *err)
{
    meta *m = &c->m;
    FACET_TRY(read_layer_types(j, c, true, err));
    m->is_local = c->is_local;
    m->head_dim_local = m->head_dim;
    FACET_TRY(get_u32(j, "global_head_dim", false, &m->head_dim, err));
    FACET_TRY(get_int(j, "num_kv_shared_layers", false, 0, m->n_layers, &m->n_shared_kv, err));
    FACET_TRY(get_u32(j, "hidden_size_per_layer_input", false, &m->n_embd_per_layer, err));
    FACET_TRY(get_f32(rope_of(j, "full_attention"), "rope_theta", true, &m->rope_base, err));
    FACET_TRY(get_f32(rope_of(j, "sliding_attention"), "rope_theta", true, &m->rope_base_local, err));
    int n_kv = 0;
    FACET_TRY(get_int(j, "num_global_key_value_heads", false, 1, 1 << 16, &n_kv, err));
    for (int i = 0; i < m->n_layers && n_kv; i++)
        if (!c->is_local[i]) c->n_kv_heads[i] = n_kv;
    if (!json_is_true(json_object_get(j, "enable_moe_block"))) return FACET_OK;
    FACET_TRY(get_int(j, "num_experts", true, 1, 1 << 16, &m->n_experts, err));
    FACET_TRY(get_int(j, "top_k_experts", true, 1, m->n_experts, &m->n_experts_used, err));
    return get_u32(j, "moe_intermediate_size", true, &m->n_ff_expert, err);
}

/* Who sees whom inside a block. use_swa without sliding layer types makes every layer a sliding one that is not causal.
 */
static facet_status read_block_mask(const json_t *d, hf_config *c, facet_error *err)
{
    const json_t *causal = json_object_get(d, "causal");
    meta *m = &c->m;
    if (causal && !json_is_null(causal)) {
        if (!json_is_boolean(causal))
            return error_set(err, FACET_ERR_FORMAT, "config.json: dflash_config.causal is neither true nor false");
        m->has_causal = true;
        m->is_causal = json_is_true(causal);
    }
    if (m->is_local || !json_is_true(json_object_get(d, "use_swa"))) return FACET_OK;
    memset(c->is_local, 1, (size_t)m->n_layers);
    m->is_local = c->is_local;
    m->has_causal = true;
    return FACET_OK;
}

static facet_status read_dflash(const json_t *j, hf_config *c, facet_error *err)
{
    meta *m = &c->m;
    const json_t *d = json_object_get(j, "dflash_config"), *ids = json_object_get(d, "target_layer_ids");
    if (!json_is_object(d)) return error_set(err, FACET_ERR_FORMAT, "config.json: missing key dflash_config");
    FACET_TRY(read_layer_types(j, c, false, err));
    FACET_TRY(read_block_mask(d, c, err));
    if (!m->is_local) m->window = 0;
    m->activation = json_string_value(json_object_get(j, "hidden_act"));
    if (m->activation && strcmp(m->activation, "silu") == 0) m->activation = NULL;
    FACET_TRY(get_int(j, "block_size", false, 2, 1024, &m->block_size, err));
    FACET_TRY(get_int(d, "block_size", !m->block_size, 2, 1024, &m->block_size, err));
    FACET_TRY(get_int(d, "mask_token_id", false, 0, c->n_vocab - 1, &c->mask_id, err));
    FACET_TRY(get_f32(d, "input_embedding_scale", false, &m->embedding_scale, err));
    FACET_TRY(get_f32(j, "rope_theta", false, &m->rope_base, err));
    FACET_TRY(get_f32(rope_of(j, NULL), "rope_theta", m->rope_base <= 0, &m->rope_base, err));
    size_t n = json_array_size(ids);
    if (n < 1 || n > MAX_TAPS)
        return error_set(err, FACET_ERR_FORMAT, "config.json: dflash_config.target_layer_ids is no list of layers");
    c->target_layers = mem_calloc(n, sizeof *c->target_layers);
    if (!c->target_layers) return error_memory(err, "target layers", n * sizeof *c->target_layers);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(ids, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= MAX_LAYERS)
            return error_set(err, FACET_ERR_FORMAT, "config.json: dflash_config.target_layer_ids: entry %zu", i);
        c->target_layers[i] = (int32_t)json_integer_value(v) + 1; /* GGUF counts from 1 */
    }
    m->target_layers = c->target_layers;
    m->n_target_layers = (int)n;
    return get_int(j, "num_target_layers", false, 1, MAX_LAYERS, &m->target_depth, err);
}

static facet_status read_centroids(hf_config *c, facet_error *err)
{
    meta *m = &c->m;
    if (!json_is_true(json_object_get(c->root, "use_ordered_embeddings"))) return FACET_OK;
    FACET_TRY(get_int(c->root, "num_centroids", true, 1, 1 << 24, &m->n_centroids, err));
    return get_int(c->root, "centroid_intermediate_top_k", true, 1, m->n_centroids, &m->n_centroids_used, err);
}

static bool is_dflash(const json_t *root)
{
    const json_t *list = json_object_get(root, "architectures");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *s = json_string_value(json_array_get(list, i));
        if (s && strstr(s, "DFlash")) return true;
    }
    return false;
}

static facet_status read_all(hf_config *c, facet_error *err)
{
    const char *type = json_string_value(json_object_get(c->root, "model_type"));
    if (!type) type = "";
    const json_t *text = json_object_get(c->root, "text_config");
    if (!json_is_object(text)) text = c->root;
    bool is_mtp = strcmp(type, "gemma4_assistant") == 0 || strcmp(type, "gemma4_unified_assistant") == 0;
    bool is_target =
        strcmp(type, "gemma4") == 0 || strcmp(type, "gemma4_text") == 0 || strcmp(type, "gemma4_unified") == 0;
    c->m.arch = is_dflash(c->root) ? META_DFLASH : is_mtp ? META_MTP : META_TARGET;
    if (!is_dflash(c->root) && !is_mtp && !is_target)
        return error_set(err, FACET_ERR_UNSUPPORTED,
                         "config.json: model_type '%.40s' is none of gemma4, gemma4_assistant and a DFlash drafter",
                         type);
    FACET_TRY(read_common(text, c, err));
    if (is_dflash(c->root)) return read_dflash(text, c, err);
    FACET_TRY(read_gemma(text, c, err));
    if (!is_mtp) return FACET_OK;
    c->m.softcap = 0;
    FACET_TRY(read_centroids(c, err));
    return get_u32(c->root, "backbone_hidden_size", true, &c->m.n_embd_out, err);
}

facet_status hf_config_read(const char *dir, hf_config *out, facet_error *err)
{
    *out = (hf_config){.mask_id = -1};
    facet_status status = hf_read_json(dir, "config.json", true, &out->root, err);
    if (status == FACET_OK) {
        status = read_all(out, err);
        if (status != FACET_OK) error_prefix(err, "%s", dir);
    }
    if (status != FACET_OK) hf_config_free(out);
    return status;
}

void hf_config_free(hf_config *c)
{
    json_decref(c->root);
    mem_free(c->n_ff);
    mem_free(c->n_kv_heads);
    mem_free(c->target_layers);
    mem_free(c->is_local);
    *c = (hf_config){0};
}
