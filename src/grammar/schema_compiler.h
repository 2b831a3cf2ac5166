/* schema_compiler.h: the inside of schema.h. Private to src/grammar. */
#ifndef FACET_GRAMMAR_SCHEMA_COMPILER_H
#define FACET_GRAMMAR_SCHEMA_COMPILER_H

#include <jansson.h>

#include "base/buf.h"
#include "grammar/grammar.h"

enum {
    SCHEMA_MAX_RULES = 20000,      /* subschemas that get a rule */
    SCHEMA_MAX_POINTERS = 8 << 20, /* bytes of their JSON pointers, which grow with the square of the depth */
    SCHEMA_MAX_DIGITS = 18,        /* of a number's integer part; more do not fit 64 bits */
    SCHEMA_MAX_MULTIPLE = 1024
};

/* Rules that many schemas share, made when they are asked for. */
typedef enum schema_part {
    PART_BLANK,  /* white space, little of it */
    PART_CHAR,   /* a character of a string */
    PART_STRING, /* any string */
    PART_INTEGER,
    PART_NUMBER,
    PART_VALUE, /* any JSON */
    PART_OBJECT,
    PART_ARRAY,
    N_PARTS
} schema_part;

/* A subschema that has a rule. */
typedef struct schema_entry {
    const json_t *schema;
    char *path; /* JSON pointer */
    int32_t rule;
} schema_entry;

/* Where a part of the document stands, so that merged schemas keep their pointers. */
typedef struct schema_place {
    const json_t *part;
    char *path;
} schema_place;

typedef struct schema_compiler {
    grammar_builder b;
    json_t *root;
    json_t *made; /* array: schemas that were merged, kept alive */
    int32_t parts[N_PARTS];
    schema_entry *entries; /* those from n_done on wait for being compiled */
    size_t n_entries, cap_entries, n_done;
    int32_t *by_schema; /* open addressing into entries; -1 = free */
    size_t by_schema_mask;
    schema_place *places; /* sorted by part */
    size_t n_places, cap_places;
    size_t pointer_bytes; /* of entries and places */
    facet_error *err;
} schema_compiler;

/* ---- schema.c ---- */

/* "PATH/KEY: " and the message (KEY may be NULL). */
facet_status schema_fail(const schema_compiler *c, facet_status status, const char *path, const char *key,
                         const char *fmt, ...) __attribute__((format(printf, 5, 6)));
facet_status schema_no_memory(const schema_compiler *c);
/* The rule of a subschema, which is compiled later. path: where it stands, unless the document says otherwise. */
facet_status schema_rule(schema_compiler *c, const json_t *schema, const char *path, int32_t *rule);
/* path/key, or path/key/index when index >= 0; into a buffer that is cleared first. */
facet_status schema_path(const schema_compiler *c, buf *out, const char *path, const char *key, long index);

/* Non-negative integer of a keyword into *out, which stays when the keyword is missing. */
facet_status schema_count(const schema_compiler *c, const json_t *schema, const char *path, const char *key,
                          int32_t *out);

/* ---- schema_parts.c ---- */

int32_t schema_part_rule(schema_compiler *c, schema_part part);
/* Edges. */
void schema_blank(schema_compiler *c, int32_t from, int32_t to);
void schema_literal(schema_compiler *c, int32_t from, const char *text, int32_t to);
/* "," or "{" or the like, and blanks. */
int32_t schema_mark(schema_compiler *c, int32_t from, const char *mark);

/* ---- schema_merge.c ---- */

/* The schema without $ref and allOf at its top: what it and they demand together, as a new object, or as `false` when
 * they contradict each other. *out is owned by the caller. */
facet_status schema_flatten(schema_compiler *c, const json_t *schema, const char *path, json_t **out);
/* Both at once; likewise. */
facet_status schema_both(schema_compiler *c, const json_t *x, const json_t *y, const char *path, json_t **out);
/* What a $ref means. */
facet_status schema_resolve(const schema_compiler *c, const json_t *schema, const char *path, const json_t **out);

/* ---- schema_keywords.c ---- */

/* Keywords that are malformed or not supported are refused. */
facet_status schema_check_keywords(const schema_compiler *c, const json_t *schema, const char *path);
/* True for keywords that say nothing about what fits. */
bool schema_is_annotation(const char *key);

typedef enum json_kinds {
    KIND_NULL = 1,
    KIND_BOOLEAN = 2,
    KIND_INTEGER = 4,
    KIND_FRACTION = 8, /* numbers that are no integers */
    KIND_STRING = 16,
    KIND_ARRAY = 32,
    KIND_OBJECT = 64,
    KIND_NUMBER = KIND_INTEGER | KIND_FRACTION,
    KIND_ALL = 127
} json_kinds;

unsigned schema_kind_of(const json_t *value);
/* The kinds that "type" admits; KIND_ALL without one. */
unsigned schema_kinds(const json_t *schema);
/* The kinds that the schema's other keywords speak of, 0 = none. */
unsigned schema_kinds_meant(const json_t *schema);

/* ---- one kind each: edges of a rule from its start to its end ---- */

facet_status schema_string(schema_compiler *c, const json_t *schema, const char *path, int32_t from, int32_t to);
facet_status schema_number(schema_compiler *c, const json_t *schema, const char *path, bool is_integer, int32_t from,
                           int32_t to);
facet_status schema_array(schema_compiler *c, const json_t *schema, const char *path, int32_t from, int32_t to);
facet_status schema_object(schema_compiler *c, const json_t *schema, const char *path, int32_t from, int32_t to);

#endif
