/* logits.h: logits of many positions of one text, a block of rows per step. */
#ifndef FACET_DECODE_LOGITS_H
#define FACET_DECODE_LOGITS_H

#include "decode/engine.h"

/* Zero-initialise, then open. The engine is borrowed; its sessions may run between two blocks. */
typedef struct logits_reader {
    facet_engine *engine;
    kv_seq kv;
    float *rows; /* [ENGINE_MAX_OUT, n_vocab] */
    const int32_t *tokens;
    size_t n, first, at; /* tokens of the text; the first wanted position; tokens evaluated so far */
    uint64_t n_drops;    /* the engine's, when the text began: a later one means that its pages are gone */
} logits_reader;

facet_status logits_open(facet_engine *e, logits_reader *r, facet_error *err);
/* Begins a text: tokens [n] (borrowed until the last block) stand at positions 0 .. n - 1, and the logits after the
 * tokens first .. n - 1 are wanted, first < n. FACET_ERR_LIMIT when n is above the context. */
facet_status logits_start(logits_reader *r, const int32_t *tokens, size_t n, size_t first, facet_error *err);
/* The next wanted rows, in order: *rows [*n_rows, n_vocab] f32, after the softcap, good until the next call; 1 to
 * ENGINE_MAX_OUT of them, 0 at the end. Tokens before `first` are evaluated in steps of up to ENGINE_MAX_ROWS. */
facet_status logits_next(logits_reader *r, const float **rows, size_t *n_rows, facet_error *err);
void logits_close(logits_reader *r);

#endif
