/* grammar_options.h: --grammar, --json-schema and --json-object. */
#ifndef FACET_CLI_GRAMMAR_OPTIONS_H
#define FACET_CLI_GRAMMAR_OPTIONS_H

#include "facet.h"

/* Their values in a getopt table. */
enum { CLI_GRAMMAR = 330, CLI_JSON_SCHEMA, CLI_JSON_OBJECT };

typedef struct cli_grammar {
    int option; /* 0 = none was given */
    const char *argument;
} cli_grammar;

/* Takes one of the options. False, and the reason printed, when another was given before. */
bool cli_grammar_set(cli_grammar *g, int option, const char *argument);
/* *out NULL when no option was given. Errors name the option's file. */
facet_status cli_grammar_open(const cli_grammar *g, facet_model *m, facet_grammar **out, facet_error *err);

#endif
