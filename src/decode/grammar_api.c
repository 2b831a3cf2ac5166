/* grammar_api.c: grammars as the library's callers see them. */
#include "decode/grammar_api.h"

#include "base/mem.h"
#include "grammar/gbnf.h"
#include "grammar/schema.h"
#include "model/model.h"

/* For states and walks of one grammar; typical schemas take less than 2 MiB (docs/grammars.md). */
static const size_t max_bytes = (size_t)128 << 20;

/* Takes the grammar over. */
static facet_status open_masker(facet_model *m, grammar *g, facet_grammar **out, facet_error *err)
{
    const token_trie *trie;
    facet_grammar *f = mem_calloc(1, sizeof *f);
    facet_status status = f ? model_trie(m, &trie, err) : error_memory(err, "a grammar", sizeof *f);
    if (status != FACET_OK)
        grammar_close(g);
    else
        status = masker_open(g, trie, max_bytes, &f->masker, err);
    if (status != FACET_OK) {
        mem_free(f);
        return status;
    }
    f->model = m;
    *out = f;
    return FACET_OK;
}

facet_status facet_grammar_open_gbnf(facet_model *m, const char *text, size_t n, facet_grammar **out, facet_error *err)
{
    grammar *g;
    FACET_TRY(gbnf_parse(text, n, &g, err));
    return open_masker(m, g, out, err);
}

facet_status facet_grammar_open_json_schema(facet_model *m, const char *text, size_t n, facet_grammar **out,
                                            facet_error *err)
{
    grammar *g;
    FACET_TRY(schema_parse(text, n, &g, err));
    return open_masker(m, g, out, err);
}

facet_status facet_grammar_open_json_object(facet_model *m, facet_grammar **out, facet_error *err)
{
    grammar *g;
    FACET_TRY(schema_any_object(&g, err));
    return open_masker(m, g, out, err);
}

void facet_grammar_close(facet_grammar *g)
{
    if (!g) return;
    masker_close(g->masker);
    mem_free(g);
}
