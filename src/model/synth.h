/* synth.h: files of a public size with random weights, for benches and tests: every key and tensor of a real file,
 * finite values, norms and scales that are not 1, a made-up vocabulary with the real special tokens. */
#ifndef FACET_MODEL_SYNTH_H
#define FACET_MODEL_SYNTH_H

#include "file/gguf_write.h"
#include "model/typemix.h"

enum { SYNTH_MIN_VOCAB = 2048, SYNTH_MAX_VOCAB = 262144 };

typedef struct synth_params {
    const char *arch; /* "31b", "26b-a4b", "12b", "e4b", "e2b", or one of them with "-mtp" or "-dflash" behind it */
    enum typemix mix;
    int n_layers; /* of the target, also for its drafters; 0 = the public number */
    int n_vocab;  /* SYNTH_MIN_VOCAB to SYNTH_MAX_VOCAB; 0 = the public number */
    uint64_t seed;
    bool is_hollow;             /* no weights: zeros that take no room on the disk, for questions about sizes */
    facet_progress_fn progress; /* may be NULL; counts bytes */
    void *progress_ud;
} synth_params;

/* Matrices are drawn from N(0, 1/n_in): a few hundred pieces of each type and width are encoded once and then drawn
 * at random, so that the disk sets the speed. The same parameters give the same bytes.
 * FACET_ERR_ARG for an unknown name or a number out of range; FACET_ERR_IO, FACET_ERR_MEMORY, FACET_ERR_CANCELLED. */
facet_status synth_write(const synth_params *p, const char *path, facet_error *err);

/* What synth_write would write: tensors, and bytes of their data. */
facet_status synth_size(const synth_params *p, uint64_t *n_tensors, uint64_t *bytes, facet_error *err);

/* The keys tokenizer.ggml.* of a vocabulary of n tokens: special tokens and bytes at their public ids, runs of
 * newlines, blanks and tabs, ASCII characters, pairs of letters with their merges, and filler. */
facet_status synth_put_vocab(gguf_writer *w, int n, facet_error *err);

#endif
