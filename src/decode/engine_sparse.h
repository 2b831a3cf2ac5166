/* engine_sparse.h: sparse attention as the engine's parameters ask for it. */
#ifndef FACET_DECODE_ENGINE_SPARSE_H
#define FACET_DECODE_ENGINE_SPARSE_H

#include "decode/engine.h"

enum { SPARSE_MIN_KEYS = 16384 };

/* FACET_ERR_ARG names the parameter. */
facet_status engine_sparse_read(const facet_engine_params *p, sparse_config *out, facet_error *err);
/* Global layers of the cache get summaries. */
void engine_sparse_layout(const sparse_config *c, kv_desc *d);
/* FACET_ERR_UNSUPPORTED where the device cannot do it. */
facet_status engine_sparse_check_device(const sparse_config *c, bool is_cuda, facet_error *err);

#endif
