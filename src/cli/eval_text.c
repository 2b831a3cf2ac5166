/* eval_text.c: what `facet eval ppl` and `facet eval kl` share: their options and their text. */
#include <limits.h>

#include "base/error.h"
#include "base/file_map.h"
#include "base/mem.h"
#include "cli/eval.h"

size_t eval_text_long_options(struct option *out)
{
    out[0] = (struct option){"chunks", required_argument, NULL, OPT_EVAL_CHUNKS};
    out[1] = (struct option){"special", no_argument, NULL, OPT_EVAL_SPECIAL};
    return 2;
}

void eval_print_text_options(FILE *f)
{
    fprintf(f, "       --chunks N            score the first N chunks only (0 = all)\n"
               "       --special             special tokens written in the text are parsed\n");
}

int eval_text_option(eval_text_options *t, int val, const char *arg)
{
    switch (val) {
    case OPT_EVAL_CHUNKS: return cli_int("chunks", arg, 0, INT_MAX, &t->max_chunks) ? 1 : -1;
    case OPT_EVAL_SPECIAL: t->parse_special = true; return 1;
    default: return 0;
    }
}

facet_status eval_read_tokens(const facet_model *m, const eval_text_options *t, int32_t **ids, size_t *n,
                              facet_error *err)
{
    char *text;
    size_t bytes;
    FACET_TRY(file_read_all(t->path, (size_t)1 << 30, &text, &bytes, err));
    const facet_status status = facet_tokenize(m, text, bytes, true, t->parse_special, ids, n, err);
    if (status != FACET_OK) error_prefix(err, "%s", t->path);
    mem_free(text);
    return status;
}

int32_t eval_chunk_length(const facet_model *m, int32_t n_ctx, size_t n_tokens)
{
    if (n_ctx) return n_ctx;
    const int32_t limit = facet_model_n_ctx(m);
    return n_tokens < (size_t)limit ? (int32_t)n_tokens : limit;
}
