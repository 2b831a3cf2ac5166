/* chat_value.h: JSON values and tool declarations in the notation of the chat format. Private to src/text. */
#ifndef FACET_TEXT_CHAT_VALUE_H
#define FACET_TEXT_CHAT_VALUE_H

#include <jansson.h>

#include "base/buf.h"
#include "base/error.h"

#define CHAT_MAX_DEPTH 128 /* nesting of values and schemas; bounds the recursion */

typedef struct value_style {
    bool null_is_none; /* generations before July */
    bool quoted_keys;
} value_style;

/* One member of an object, for sorted walks. */
typedef struct object_member {
    const char *key;
    json_t *value;
    size_t order; /* position in the input */
} object_member;

/* The members by key, ASCII case-insensitively, equal keys in input order. Free *members with mem_free. */
facet_status chat_sort_members(const json_t *object, object_member **members, size_t *n, facet_error *err);

/* Each <|"|> inside s, which the notation cannot carry, becomes a plain quote. */
void chat_put_raw(buf *out, const char *s, size_t n);
void chat_put_string(buf *out, const char *s, size_t n); /* the same between string quotes */
facet_status chat_put_value(buf *out, const json_t *v, value_style style, int depth, facet_error *err);
/* `{key:value,…}` */
facet_status chat_put_object(buf *out, const json_t *object, value_style style, int depth, facet_error *err);

/* `<|tool>declaration:NAME{…}<tool|>` of tools[index]. */
facet_status chat_put_declaration(buf *out, const json_t *tool, size_t index, value_style style, facet_error *err);

#endif
