/* generate.h: the decoding loop. */
#ifndef FACET_DECODE_GENERATE_H
#define FACET_DECODE_GENERATE_H

#include "decode/strategy.h"

/* facet_generate with drafts by one strategy of the caller's; ops NULL: by those that p->speculation names. */
facet_status generate_with(facet_session *s, const int32_t *prompt, size_t n_prompt, const facet_sampling *sampling,
                           const facet_generate_params *p, const strategy_ops *ops, facet_generate_result *out,
                           facet_error *err);

#endif
