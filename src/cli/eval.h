/* eval.h: the kinds of `facet eval` and what they share. */
#ifndef FACET_CLI_EVAL_H
#define FACET_CLI_EVAL_H

#include "cli/cli.h"
#include "decode/score.h"

/* argv[0] is the kind's name. Each returns the exit status. */
int eval_tasks(int argc, char **argv);
int eval_ppl(int argc, char **argv);
int eval_kl(int argc, char **argv);
int eval_needle(int argc, char **argv);

/* Options of the kinds that read a text. */
typedef struct eval_text_options {
    const char *path; /* "-" is standard input */
    bool parse_special;
    long long max_chunks;
} eval_text_options;

enum { EVAL_DEFAULT_CTX = 512, OPT_EVAL_CHUNKS = 320, OPT_EVAL_SPECIAL };

/* Entries of a getopt table; returns their number. */
size_t eval_text_long_options(struct option *out);
void eval_print_text_options(FILE *f);
/* 1 = taken, 0 = not one of them, -1 = wrong value (printed). */
int eval_text_option(eval_text_options *t, int val, const char *arg);

/* Tokens of the text, <bos> first; *ids is owned (facet_free). Errors name the file. */
facet_status eval_read_tokens(const facet_model *m, const eval_text_options *t, int32_t **ids, size_t *n,
                              facet_error *err);
/* Length of a chunk: the context asked for; with 0 the whole text, at most the model's limit. */
int32_t eval_chunk_length(const facet_model *m, int32_t n_ctx, size_t n_tokens);

#endif
