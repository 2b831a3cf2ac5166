#include "cli/grammar_options.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/file_map.h"
#include "base/mem.h"

enum { MAX_FILE = 16 << 20 };

bool cli_grammar_set(cli_grammar *g, int option, const char *argument)
{
    if (g->option && g->option != option) {
        fputs("facet: --grammar, --json-schema and --json-object exclude each other\n", stderr);
        return false;
    }
    *g = (cli_grammar){.option = option, .argument = argument};
    return true;
}

/* A schema on the command line is an object, true or false; anything else names a file. */
static bool is_schema_text(const char *arg)
{
    return arg[strspn(arg, " \t\r\n")] == '{' || strcmp(arg, "true") == 0 || strcmp(arg, "false") == 0;
}

static facet_status open_text(int option, const char *text, size_t n, facet_model *m, facet_grammar **out,
                              facet_error *err)
{
    if (option == CLI_GRAMMAR) return facet_grammar_open_gbnf(m, text, n, out, err);
    return facet_grammar_open_json_schema(m, text, n, out, err);
}

facet_status cli_grammar_open(const cli_grammar *g, facet_model *m, facet_grammar **out, facet_error *err)
{
    char *text;
    size_t n;
    *out = NULL;
    if (!g->option) return FACET_OK;
    if (g->option == CLI_JSON_OBJECT) return facet_grammar_open_json_object(m, out, err);
    if (g->option == CLI_JSON_SCHEMA && is_schema_text(g->argument)) {
        const facet_status status = open_text(g->option, g->argument, strlen(g->argument), m, out, err);
        if (status != FACET_OK) error_prefix(err, "--json-schema");
        return status;
    }
    FACET_TRY(file_read_all(g->argument, MAX_FILE, &text, &n, err));
    const facet_status status = open_text(g->option, text, n, m, out, err);
    if (status != FACET_OK) error_prefix(err, "%s", g->argument);
    mem_free(text);
    return status;
}
