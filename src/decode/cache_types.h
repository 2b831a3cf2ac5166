/* cache_types.h: the types of the KV cache as users write them, per axis and per layer. */
#ifndef FACET_DECODE_CACHE_TYPES_H
#define FACET_DECODE_CACHE_TYPES_H

#include "compute/kv.h"

/* A type of K or V by its name; `option` begins the message. */
facet_status cache_type_read(const char *name, const char *option, kv_type *out, facet_error *err);

/* Types of single layers: "SELECTOR=K[/V],..." with a layer's number, a range "2-5", "local" or "global" as selector;
 * one type stands for both axes, later entries overrule earlier ones. `list` may be NULL. Layers are those of d, which
 * are the model's first ones. FACET_ERR_ARG names the entry. */
facet_status cache_layers_apply(const char *list, kv_desc *d, facet_error *err);

#endif
