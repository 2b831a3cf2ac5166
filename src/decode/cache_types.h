/* cache_types.h: the types of the KV cache as users write them, per axis and per layer. */
#ifndef FACET_DECODE_CACHE_TYPES_H
#define FACET_DECODE_CACHE_TYPES_H

#include "compute/kv.h"
#include "facet.h"

/* Mixes of types with a name: K, V, what to expect. Chosen by `facet eval kl` against f16. */
#define CACHE_PRESETS(X)                                                                                               \
    X("exact", KV_F16, KV_F16, "what the engine does by default")                                                      \
    X("balanced", KV_Q8_0, KV_Q8_0, "about half of it; no difference that one would see")                              \
    X("small", KV_ROT_Q4_0, KV_ROT_Q4_0, "28 %; some near ties between tokens fall otherwise")                         \
    X("tiny", KV_TQ3_0, KV_TQ3_0, "22 %; measurably worse: compare answers before you rely on it")

typedef struct cache_preset {
    const char *name;
    kv_type k, v;
    const char *help;
} cache_preset;
/* The i-th preset, from the largest on; NULL behind the last. */
const cache_preset *cache_preset_at(int i);

/* Types of K and V that the parameters ask for: an axis that is named, else the preset's, else f16. */
facet_status cache_types_read(const facet_engine_params *p, kv_type *k, kv_type *v, facet_error *err);

/* A type of K or V by its name; `option` begins the message. */
facet_status cache_type_read(const char *name, const char *option, kv_type *out, facet_error *err);

/* Types of single layers: "SELECTOR=K[/V],..." with a layer's number, a range "2-5", "local" or "global" as selector;
 * one type stands for both axes, later entries overrule earlier ones. `list` may be NULL. Layers are those of d, which
 * are the model's first ones. FACET_ERR_ARG names the entry. */
facet_status cache_layers_apply(const char *list, kv_desc *d, facet_error *err);

#endif
