/* bench_ngram: what prompt lookup gains on given texts, with the answers known.
 *
 *     bench_ngram VOCAB.gguf DRAFT PROMPT TEXT [PROMPT TEXT]...
 *
 * PROMPT (a file, or - for none) is the context, TEXT what a model is supposed to write. Speculative decoding is played
 * through: at each step DRAFT tokens are proposed and those that TEXT continues with are accepted. One line per setting
 * (lengths, candidates): tokens per step over all texts, steps that drafted, accepted / drafted, and the time of the
 * index per token. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file_map.h"
#include "base/mem.h"
#include "decode/draft_ngram.h"
#include "file/gguf.h"
#include "text/tokenizer.h"

enum { MAX_TEXTS = 64, MAX_DRAFT = 64 };

typedef struct text {
    int32_t *ids;
    size_t n_prompt, n;
} text;

typedef struct result {
    long n_tokens, n_steps, n_drafting, n_drafted, n_accepted;
    uint64_t ns;
} result;

static void die(const facet_error *err)
{
    fprintf(stderr, "bench_ngram: %s\n", err->message);
    exit(1);
}

/* Appends the tokens of a file to t. */
static void read_tokens(const tokenizer *tok, const char *path, text *t, size_t *cap)
{
    facet_error err;
    char *data;
    size_t size;
    if (strcmp(path, "-") == 0) return;
    if (file_read_all(path, 1u << 28, &data, &size, &err) != FACET_OK) die(&err);
    if (tokenizer_encode(tok, data, size, false, SPECIAL_NONE, &t->ids, &t->n, cap, &err) != FACET_OK) die(&err);
    mem_free(data);
}

static void play(const text *t, const draft_ngram_params *p, int k, result *r)
{
    facet_error err;
    draft_ngram *d;
    int32_t draft[MAX_DRAFT];
    const uint64_t t0 = clock_ns();
    size_t n = t->n_prompt ? t->n_prompt : 1;
    if (draft_ngram_open(p, &d, &err) != FACET_OK || draft_ngram_append(d, t->ids, n, &err) != FACET_OK) die(&err);
    while (n < t->n) {
        const int n_draft = draft_ngram_propose(d, k, draft, NULL);
        int m = 0;
        while (m < n_draft && n + (size_t)m < t->n && draft[m] == t->ids[n + (size_t)m]) m++;
        const size_t step = n + (size_t)m < t->n ? (size_t)m + 1 : (size_t)m;
        if (draft_ngram_append(d, t->ids + n, step, &err) != FACET_OK) die(&err);
        n += step;
        r->n_tokens += (long)step;
        r->n_steps++;
        r->n_drafting += n_draft > 0;
        r->n_drafted += n_draft;
        r->n_accepted += m;
    }
    r->ns += clock_ns() - t0;
    draft_ngram_close(d);
}

int main(int argc, char **argv)
{
    facet_error err;
    gguf_file *f;
    tokenizer *tok;
    static text texts[MAX_TEXTS];
    int n_texts = 0;
    const int k = argc > 2 ? atoi(argv[2]) : 0;
    if (argc < 5 || argc % 2 == 0 || k < 1 || k > MAX_DRAFT) {
        fprintf(stderr, "usage: bench_ngram VOCAB.gguf DRAFT(1..%d) PROMPT TEXT [PROMPT TEXT]...\n", MAX_DRAFT);
        return 2;
    }
    if (gguf_open(argv[1], &f, &err) != FACET_OK || tokenizer_open(f, &tok, &err) != FACET_OK) die(&err);
    for (int i = 3; i + 1 < argc && n_texts < MAX_TEXTS; i += 2) {
        text *t = &texts[n_texts++];
        size_t cap = 0;
        read_tokens(tok, argv[i], t, &cap);
        t->n_prompt = t->n;
        read_tokens(tok, argv[i + 1], t, &cap);
    }
    puts("lengths  candidates  tokens/step  steps with a draft  accepted/drafted  ns/token");
    for (int n_max = 1; n_max <= 8; n_max++)
        for (int n_min = 1; n_min <= n_max && n_min <= 4; n_min++)
            for (int n_candidates = 1; n_candidates <= 16; n_candidates *= 4) {
                const draft_ngram_params p = {n_min, n_max, n_candidates, 262144, 0};
                result r = {0};
                size_t n_all = 0;
                for (int i = 0; i < n_texts; i++) {
                    play(&texts[i], &p, k, &r);
                    n_all += texts[i].n;
                }
                printf("%d..%d     %10d  %11.3f  %17.1f%%  %15.1f%%  %8.0f\n", n_max, n_min, n_candidates,
                       (double)r.n_tokens / (double)r.n_steps, 100.0 * (double)r.n_drafting / (double)r.n_steps,
                       r.n_drafted ? 100.0 * (double)r.n_accepted / (double)r.n_drafted : 0,
                       (double)r.ns / (double)n_all);
            }
    for (int i = 0; i < n_texts; i++) mem_free(texts[i].ids);
    tokenizer_close(tok);
    gguf_close(f);
    return 0;
}
