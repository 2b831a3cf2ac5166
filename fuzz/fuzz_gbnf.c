/* A grammar in GBNF notation. What parses must be runnable: a walk of some bytes, with masks that say of each token
 * what advancing by it says. */
#include <stdlib.h>
#include <string.h>

#include "grammar/gbnf.h"
#include "fuzz_grammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    grammar *g;
    facet_error err;
    if (size > 4096) return 0; /* larger ones only take longer */
    if (gbnf_parse((const char *)data, size, &g, &err) != FACET_OK) {
        if (!err.message[0]) abort();
        return 0;
    }
    fuzz_run_grammar(g, size);
    return 0;
}
