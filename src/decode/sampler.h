/* sampler.h: from logits to a token. */
#ifndef FACET_DECODE_SAMPLER_H
#define FACET_DECODE_SAMPLER_H

#include "base/error.h"

typedef struct sampler sampler;

facet_status sampler_open(const facet_sampling *p, int32_t n_vocab, sampler **out, facet_error *err);
void sampler_close(sampler *s);
/* True when the argmax alone decides (greedy, no penalties, no bias). */
bool sampler_is_argmax(const sampler *s);
/* logits [n_vocab] are changed in place. history: the tokens so far, for the penalties. The order is: bias, penalties,
 * top-k, temperature, min-p, top-p, draw. The draw depends on the
 * seed and on n_history, the position of the token it decides, alone: not on how many draws came before.
 * FACET_ERR_NUMERIC on NaN or when nothing is left. */
facet_status sampler_pick(sampler *s, float *logits, const int32_t *history, size_t n_history, int32_t *out,
                          facet_error *err);

#endif
