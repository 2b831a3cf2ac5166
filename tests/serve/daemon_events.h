/* daemon_events.h: events of the daemon's JSON protocol. */
#ifndef FACET_TESTS_SERVE_DAEMON_EVENTS_H
#define FACET_TESTS_SERVE_DAEMON_EVENTS_H

#include "serve/daemon_testing.h"

#include <jansson.h>

/* The next event; NULL at the end. */
static inline json_t *event(child *c)
{
    static char line[1 << 16];
    json_error_t e;
    if (!child_line(c, line, sizeof line)) return NULL;
    json_t *o = json_loads(line, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
    if (!json_is_object(o)) fail_msg("no JSON object: '%.200s'", line);
    return o;
}

static inline const char *text_of(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "";
}

static inline long int_of(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);
    if (!json_is_integer(v)) fail_msg("no integer '%s' in %s", name, json_dumps(o, JSON_COMPACT));
    return (long)json_integer_value(v);
}

static inline void dump(const json_t *o)
{
    char *text = json_dumps(o, JSON_COMPACT);
    print_message("%s\n", text);
    free(text);
}

/* The next event, which must be of that kind and id. */
static inline json_t *expect(child *c, const char *id, const char *kind)
{
    json_t *o = event(c);
    if (!o) fail_msg("the end, wanted '%s' of '%s'", kind, id);
    if (strcmp(text_of(o, "event"), kind) != 0 || strcmp(text_of(o, "id"), id) != 0) {
        dump(o);
        fail_msg("wanted '%s' of '%s'", kind, id);
    }
    return o;
}

/* The next event, which must be of that kind; its id is whatever it is. */
static inline void expect_kind(child *c, const char *kind)
{
    json_t *o = event(c);
    if (!o) fail_msg("the end, wanted '%s'", kind);
    if (strcmp(text_of(o, "event"), kind) != 0) {
        dump(o);
        fail_msg("wanted '%s'", kind);
    }
    json_decref(o);
}

#endif
