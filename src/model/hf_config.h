/* hf_config.h: config.json of a safetensors folder as the metadata of a GGUF file. Private to conversion. */
#ifndef FACET_MODEL_HF_CONFIG_H
#define FACET_MODEL_HF_CONFIG_H

#include <jansson.h>

#include "model/meta.h"

typedef struct hf_config {
    json_t *root;
    meta m; /* its arrays are those below */
    int32_t *n_ff, *n_kv_heads, *target_layers;
    uint8_t *is_local;
    int n_vocab;
    int mask_id; /* -1: the file does not say */
    bool is_tied;
} hf_config;

/* The JSON object in dir/name; *out stays NULL when the file is absent and not required. */
facet_status hf_read_json(const char *dir, const char *name, bool required, json_t **out, facet_error *err);

/* Errors name the file and the key. FACET_ERR_UNSUPPORTED for a model that is none of the three. */
facet_status hf_config_read(const char *dir, hf_config *out, facet_error *err);
void hf_config_free(hf_config *c);

#endif
