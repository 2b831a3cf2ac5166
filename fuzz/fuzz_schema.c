/* A JSON schema, as fuzz_gbnf.c; and what its grammar generates must be JSON. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/schema.h"
#include "fuzz_grammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    grammar *g;
    facet_error err;
    if (size > 4096) return 0;
    if (schema_parse((const char *)data, size, &g, &err) != FACET_OK) {
        if (!err.message[0]) abort();
        return 0;
    }
    buf text = {0};
    if (fuzz_generate(g, size, &text)) {
        json_t *v = json_loadb(text.data, text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        if (!v) abort();
        json_decref(v);
    }
    buf_free(&text);
    fuzz_run_grammar(g, size);
    return 0;
}
