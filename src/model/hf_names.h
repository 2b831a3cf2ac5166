/* hf_names.h: names of tensors in safetensors files as GGUF names. Private to conversion. */
#ifndef FACET_MODEL_HF_NAMES_H
#define FACET_MODEL_HF_NAMES_H

#include <stdbool.h>
#include <stddef.h>

typedef enum hf_name { HF_NAME_KNOWN, HF_NAME_SKIPPED, HF_NAME_UNKNOWN } hf_name;

/* arch: META_TARGET, META_MTP or META_DFLASH. Vision and audio parts, and a head that is tied, are skipped. *layer: -1
 * outside the layers. */
hf_name hf_name_map(const char *arch, bool is_tied, const char *name, char *out, size_t out_bytes, int *layer);

/* Order of names with their numbers compared as numbers. */
int hf_name_compare(const char *a, const char *b);

#endif
