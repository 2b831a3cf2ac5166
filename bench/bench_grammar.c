/* bench_grammar: what token masks cost.
 *
 *     bench_grammar MODEL.gguf
 *
 * Texts that fit schemas and grammars of everyday kinds are followed token by token, as the vocabulary of the file
 * encodes them; at each token the mask of all tokens is made. First under a fresh grammar (cold), then again and again
 * under the same one (warm). A line per grammar: tokens, milliseconds of opening it, microseconds of a mask (mean and
 * worst, cold; mean and 99th percentile, warm), memory. Times are the thread's own (CPU time), so that other programs
 * do not count. The first line is the tree of the vocabulary, which a model makes once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "file/gguf.h"
#include "grammar/gbnf.h"
#include "grammar/mask.h"
#include "grammar/schema.h"

enum { WARM_RUNS = 50, MAX_BYTES = 128 << 20 };

static const struct bench_case {
    const char *name;
    bool is_gbnf;
    const char *text, *sample;
} cases[] = {
    {"flat object", false,
     "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":\"integer\",\"minimum\":0,"
     "\"maximum\":130},"
     "\"email\":{\"type\":\"string\"},\"is_member\":{\"type\":\"boolean\"}},\"required\":[\"name\",\"age\",\"email\"],"
     "\"additionalProperties\":false}",
     "{\"name\": \"Ada Lovelace\", \"age\": 36, \"email\": \"ada@analytical.engine\", \"is_member\": true}"},
    {"nested, arrays, enums", false,
     "{\"type\":\"object\",\"properties\":{\"title\":{\"type\":\"string\"},\"kind\":{\"enum\":[\"recipe\",\"article\","
     "\"list\"]},\"steps\":"
     "{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{\"text\":{\"type\":\"string\"},\"minutes\":{"
     "\"type\":\"number\","
     "\"minimum\":0},\"tools\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}}},\"required\":[\"text\","
     "\"minutes\"]},\"minItems\":1}},"
     "\"required\":[\"title\",\"kind\",\"steps\"]}",
     "{\n  \"title\": \"Tomato soup\",\n  \"kind\": \"recipe\",\n  \"steps\": [\n    {\"text\": \"Chop the tomatoes "
     "and the "
     "onions finely.\", \"minutes\": 7.5, \"tools\": [\"knife\", \"board\"]},\n    {\"text\": \"Simmer everything, "
     "then "
     "season.\", \"minutes\": 25}\n  ]\n}"},
    {"lengths and formats", false,
     "{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"string\",\"format\":\"uuid\"},\"day\":{\"type\":"
     "\"string\",\"format\":"
     "\"date\"},\"code\":{\"type\":\"string\",\"pattern\":\"^[A-Z]{2}-[0-9]{4}$\"},\"summary\":{\"type\":\"string\","
     "\"minLength\":10,"
     "\"maxLength\":2000}},\"required\":[\"id\",\"day\",\"code\",\"summary\"]}",
     "{\"id\": \"123e4567-e89b-12d3-a456-426614174000\", \"day\": \"2024-02-29\", \"code\": \"AB-1234\", \"summary\": "
     "\"A "
     "summary of middling length, with nothing in it that would be worth remembering, but with some words.\"}"},
    {"recursive", false,
     "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"children\":{\"type\":\"array\",\"items\":{"
     "\"$ref\":\"#\"}}},"
     "\"required\":[\"name\",\"children\"]}",
     "{\"name\": \"root\", \"children\": [{\"name\": \"left\", \"children\": [{\"name\": \"leaf one\", \"children\": "
     "[]}, "
     "{\"name\": \"leaf two\", \"children\": []}]}, {\"name\": \"right\", \"children\": []}]}"},
    {"any object", false, "{\"type\":\"object\"}",
     "{\"a\": [1, 2.5, true, null, {\"deeper\": {\"and\": [\"deeper\", [[\"still\"]]]}}], \"text\": \"Some words in a "
     "row, \\\"quoted\\\" too.\"}"},
    {"GBNF: prose", true, "root ::= sentence (\" \" sentence)*\nsentence ::= [A-Z] [^.!?]* [.!?]",
     "The first sentence says little. The second one says even less! Does the third one ask anything?"},
    {"GBNF: arithmetic", true,
     "root ::= (expr \"=\" ws expr \"\\n\")+\nexpr ::= term ([-+*/] ws term)*\nterm ::= ident | num | \"(\" ws expr "
     "\")\" ws\n"
     "ident ::= [a-z] [a-z0-9_]* ws\nnum ::= [0-9]+ ws\nws ::= [ \\t\\n]*",
     "(a + b_2) * 17 - (3 / (c - 4)) = result\n12 * (x + y) = 144\n"},
};

static void die(const facet_error *err)
{
    fprintf(stderr, "bench_grammar: %s\n", err->message);
    exit(1);
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

enum { MAX_TIMES = 1 << 14 };
typedef struct timing {
    double us[MAX_TIMES];
    size_t n;
} timing;

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double mean(const timing *t)
{
    double sum = 0;
    for (size_t i = 0; i < t->n; i++) sum += t->us[i];
    return sum / (double)t->n;
}

static double percentile(timing *t, double p)
{
    qsort(t->us, t->n, sizeof *t->us, by_value);
    return t->us[(size_t)(p * (double)(t->n - 1))];
}

static void follow(masker *k, const int32_t *ids, size_t n, uint64_t *bits, timing *t)
{
    facet_error err;
    int32_t state = masker_start(k);
    for (size_t i = 0; i <= n; i++) {
        const double t0 = now_us();
        if (masker_mask(k, state, bits, &err) != FACET_OK) die(&err);
        if (t->n < MAX_TIMES) t->us[t->n++] = now_us() - t0;
        if (i < n && masker_advance(k, state, ids[i], &state, &err) != FACET_OK) die(&err);
        if (state == STATE_DEAD) {
            fprintf(stderr, "bench_grammar: token %zu of a sample is not allowed\n", i);
            exit(1);
        }
    }
}

static void measure(const struct bench_case *c, const tokenizer *tok, const token_trie *trie)
{
    facet_error err;
    grammar *g;
    masker *k;
    int32_t *ids = NULL;
    size_t n = 0, cap = 0;
    static timing cold, warm;
    cold.n = warm.n = 0;
    uint64_t *bits = mem_calloc(mask_words(trie), sizeof *bits);
    if (tokenizer_encode(tok, c->sample, strlen(c->sample), false, SPECIAL_NONE, &ids, &n, &cap, &err) != FACET_OK)
        die(&err);
    const double t0 = now_us();
    if ((c->is_gbnf ? gbnf_parse : schema_parse)(c->text, strlen(c->text), &g, &err) != FACET_OK ||
        masker_open(g, trie, MAX_BYTES, &k, &err) != FACET_OK)
        die(&err);
    const double open_ms = (now_us() - t0) * 1e-3;
    follow(k, ids, n, bits, &cold);
    for (int i = 0; i < WARM_RUNS; i++) follow(k, ids, n, bits, &warm);
    printf("| %s | %zu | %.2f | %.0f | %.0f | %.1f | %.1f | %zu |\n", c->name, n, open_ms, mean(&cold),
           percentile(&cold, 1), mean(&warm), percentile(&warm, 0.99), (machine_bytes(k->m) + k->walk_bytes) >> 10);
    masker_close(k);
    mem_free(bits);
    mem_free(ids);
}

int main(int argc, char **argv)
{
    facet_error err;
    gguf_file *f;
    tokenizer *tok;
    token_trie *trie;
    if (argc != 2) {
        fprintf(stderr, "usage: bench_grammar MODEL.gguf\n");
        return 2;
    }
    if (gguf_open(argv[1], &f, &err) != FACET_OK || tokenizer_open(f, &tok, &err) != FACET_OK) die(&err);
    const double t0 = now_us();
    if (trie_open(tok, &trie, &err) != FACET_OK) die(&err);
    printf("%d tokens, a tree of %d nodes in %.0f ms\n\n", trie->n_tokens, trie->n_nodes, (now_us() - t0) * 1e-3);
    printf("| grammar | tokens | open, ms | cold, us | worst | warm, us | 99th | KiB "
           "|\n|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) measure(&cases[i], tok, trie);
    trie_close(trie);
    tokenizer_close(tok);
    gguf_close(f);
    return 0;
}
