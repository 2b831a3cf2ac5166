/* api_logprobs.h: log-probabilities as the interfaces write them. */
#ifndef FACET_SERVE_API_LOGPROBS_H
#define FACET_SERVE_API_LOGPROBS_H

#include <jansson.h>

#include "text/tokenizer.h"

/* {token, logprob, bytes, top_logprobs: [{token, logprob, bytes}]}, an entry of chat completions. */
json_t *logprobs_entry(const tokenizer *t, int32_t token, float logprob, const facet_logprob *top, int n_top);
/* Entries as completions have them: {tokens, token_logprobs, top_logprobs, text_offset}. offset: of the first one. */
json_t *logprobs_lists(const json_t *entries, size_t offset);
/* A token's text, or its byte as U+FFFD; its bytes go to *bytes. */
json_t *logprobs_text(const tokenizer *t, int32_t token, json_t **bytes);

#endif
