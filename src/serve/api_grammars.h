/* api_grammars.h: grammars of requests. Those used last are kept, since clients send the same one again and again, and
 * a grammar knows its tokens better the longer it is used. */
#ifndef FACET_SERVE_API_GRAMMARS_H
#define FACET_SERVE_API_GRAMMARS_H

#include <pthread.h>

#include "base/error.h"

typedef enum grammar_kind { GRAMMAR_GBNF, GRAMMAR_SCHEMA, GRAMMAR_OBJECT } grammar_kind;

/* One grammar; counts its users. */
typedef struct grammar_entry {
    grammar_kind kind;
    char *text; /* [n] */
    size_t n;
    facet_grammar *grammar;
    int n_users;
    uint64_t used_at;
} grammar_entry;

enum { GRAMMARS_KEPT = 16 };

typedef struct grammar_cache {
    pthread_mutex_t lock;
    grammar_entry *list[GRAMMARS_KEPT]; /* NULL where there is none */
    uint64_t clock;
} grammar_cache;

void grammars_open(grammar_cache *c);
void grammars_close(grammar_cache *c); /* when nobody uses one */
/* text: of GBNF or a schema; NULL with n = 0 for GRAMMAR_OBJECT. From any thread; the grammar itself is used by the
 * engine's alone. */
facet_status grammars_get(grammar_cache *c, facet_model *m, grammar_kind kind, const char *text, size_t n,
                          grammar_entry **out, facet_error *err);
void grammars_give_back(grammar_cache *c, grammar_entry *e); /* accepts NULL */

#endif
