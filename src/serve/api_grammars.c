#include "serve/api_grammars.h"

#include <string.h>

#include "base/mem.h"

void grammars_open(grammar_cache *c)
{
    *c = (grammar_cache){0};
    pthread_mutex_init(&c->lock, NULL);
}

static void entry_close(grammar_entry *e)
{
    if (!e) return;
    facet_grammar_close(e->grammar);
    mem_free(e->text);
    mem_free(e);
}

void grammars_close(grammar_cache *c)
{
    for (int i = 0; i < GRAMMARS_KEPT; i++) entry_close(c->list[i]);
    pthread_mutex_destroy(&c->lock);
}

static facet_status entry_open(facet_model *m, grammar_kind kind, const char *text, size_t n, grammar_entry **out,
                               facet_error *err)
{
    grammar_entry *e = mem_calloc(1, sizeof *e);
    if (!e) return error_memory(err, "a grammar", sizeof *e);
    *e = (grammar_entry){.kind = kind, .text = mem_strndup(text ? text : "", n), .n = n, .n_users = 1};
    facet_status status = e->text ? FACET_OK : error_memory(err, "a grammar", n);
    if (status == FACET_OK && kind == GRAMMAR_GBNF) status = facet_grammar_open_gbnf(m, text, n, &e->grammar, err);
    if (status == FACET_OK && kind == GRAMMAR_SCHEMA)
        status = facet_grammar_open_json_schema(m, text, n, &e->grammar, err);
    if (status == FACET_OK && kind == GRAMMAR_OBJECT) status = facet_grammar_open_json_object(m, &e->grammar, err);
    if (status != FACET_OK) {
        entry_close(e);
        return status;
    }
    *out = e;
    return FACET_OK;
}

/* With lock. */
static grammar_entry *find(grammar_cache *c, grammar_kind kind, const char *text, size_t n)
{
    for (int i = 0; i < GRAMMARS_KEPT; i++) {
        grammar_entry *e = c->list[i];
        if (!e || e->kind != kind || e->n != n || (n && memcmp(e->text, text, n) != 0)) continue;
        e->n_users++;
        e->used_at = ++c->clock;
        return e;
    }
    return NULL;
}

/* With lock. Puts it in the place of nothing, or of what was used longest ago by nobody now. Returns what had the
 * place; where there is none the entry is its users' alone. */
static grammar_entry *keep(grammar_cache *c, grammar_entry *e)
{
    int place = -1;
    for (int i = 0; i < GRAMMARS_KEPT; i++) {
        const grammar_entry *old = c->list[i];
        if (!old) {
            place = i;
            break;
        }
        if (!old->n_users && (place < 0 || old->used_at < c->list[place]->used_at)) place = i;
    }
    e->used_at = ++c->clock;
    if (place < 0) return NULL;
    grammar_entry *old = c->list[place];
    c->list[place] = e;
    return old;
}

facet_status grammars_get(grammar_cache *c, facet_model *m, grammar_kind kind, const char *text, size_t n,
                          grammar_entry **out, facet_error *err)
{
    pthread_mutex_lock(&c->lock);
    *out = find(c, kind, text, n);
    pthread_mutex_unlock(&c->lock);
    if (*out) return FACET_OK;
    FACET_TRY(entry_open(m, kind, text, n, out, err));
    pthread_mutex_lock(&c->lock);
    grammar_entry *old = keep(c, *out);
    pthread_mutex_unlock(&c->lock);
    entry_close(old);
    return FACET_OK;
}

static bool is_kept(const grammar_cache *c, const grammar_entry *e)
{
    for (int i = 0; i < GRAMMARS_KEPT; i++)
        if (c->list[i] == e) return true;
    return false;
}

void grammars_give_back(grammar_cache *c, grammar_entry *e)
{
    if (!e) return;
    pthread_mutex_lock(&c->lock);
    const bool is_last = --e->n_users == 0 && !is_kept(c, e);
    pthread_mutex_unlock(&c->lock);
    if (is_last) entry_close(e);
}
