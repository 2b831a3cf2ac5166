/* random_schema.h: JSON schemas of all that is supported, by chance. */
#ifndef FACET_TESTS_RANDOM_SCHEMA_H
#define FACET_TESTS_RANDOM_SCHEMA_H

#include <jansson.h>

#include "base/rng.h"

static json_t *random_schema(rng *r, int depth);

static inline bool chance(rng *r, uint32_t percent)
{
    return rng_below(r, 100) < percent;
}

static inline int between(rng *r, int lo, int hi)
{
    return lo + (int)rng_below(r, (uint32_t)(hi - lo + 1));
}

static inline const char *one_of(rng *r, const char *const *list, size_t n)
{
    return list[rng_below(r, (uint32_t)n)];
}
#define ONE_OF(r, list) one_of(r, list, sizeof(list) / sizeof *(list))

static inline void set_int(json_t *s, const char *key, long v)
{
    json_object_set_new(s, key, json_integer(v));
}

static inline json_t *random_string_schema(rng *r)
{
    static const char *const patterns[] = {"^[A-Z]{3}$",
                                           "^[a-z]+(-[a-z0-9]+)*$",
                                           "^\\d{3}-\\d{4}$",
                                           "^(?:red|green|blue){1,2}$",
                                           "^[^a-z]{2,5}$",
                                           "^a.c$",
                                           "ab",
                                           "^x",
                                           "y$",
                                           "^$",
                                           "^(a|b\\n|\"c\\\\)*$",
                                           "^[\\w.+]{1,10}?@[a-z]{2,4}$",
                                           "^[A-Z][a-z]*$|^[0-9]{2}$",
                                           "^\\$[0-9]{1,3}\\.[0-9]{2}$"};
    static const char *const sets[] = {"^[a-f0-9]+$", "^\\w*$", "^[^\"]{2,}$", "^[ -~]{0,40}$"};
    static const char *const formats[] = {"date",     "time",  "date-time", "uuid", "ipv4",
                                          "hostname", "email", "duration",  "ipv6", "uri"};
    json_t *s = json_pack("{s:s}", "type", "string");
    const int lo = between(r, 0, 6);
    switch (rng_below(r, 6)) {
    case 0: break;
    case 1: json_object_set_new(s, "pattern", json_string(ONE_OF(r, patterns))); break;
    case 2: json_object_set_new(s, "format", json_string(ONE_OF(r, formats))); break;
    case 3: json_object_set_new(s, "pattern", json_string(ONE_OF(r, sets))); /* fall through */
    default:
        if (chance(r, 70)) set_int(s, "minLength", lo);
        if (chance(r, 70)) set_int(s, "maxLength", lo + between(r, 2, 30));
    }
    return s;
}

static inline json_t *random_number_schema(rng *r)
{
    const bool is_integer = chance(r, 50);
    json_t *s = json_pack("{s:s}", "type", is_integer ? "integer" : "number");
    const double scale = chance(r, 30) ? 0.125 : 1, lo = between(r, -2000, 1500) * scale;
    const bool has_lo = chance(r, 60), has_hi = chance(r, 60), lo_out = chance(r, 30), hi_out = chance(r, 30);
    if (has_lo)
        json_object_set_new(s, lo_out ? "exclusiveMinimum" : "minimum",
                            scale == 1 ? json_integer((long)lo) : json_real(lo));
    if (has_hi) json_object_set_new(s, hi_out ? "exclusiveMaximum" : "maximum", json_real(lo + between(r, 20, 3000)));
    if (chance(r, 25))
        set_int(s, "multipleOf", between(r, 1, 17));
    else if (!is_integer && chance(r, 25))
        json_object_set_new(s, "multipleOf", json_real(chance(r, 50) ? 0.1 : 0.01));
    if (is_integer && chance(r, 10)) json_object_set_new(s, "format", json_string("int32"));
    if (chance(r, 8) && has_lo && !lo_out) json_object_set_new(s, "exclusiveMinimum", json_true());
    return s;
}

static inline json_t *random_value(rng *r)
{
    static const char *const texts[] = {"a", "", "two words", "\xc3\xa9t\xc3\xa9", "q\"uote\\", "tab\t", "nul"};
    switch (rng_below(r, 7)) {
    case 0: return json_null();
    case 1: return json_boolean(chance(r, 50));
    case 2: return json_integer(between(r, -100, 100));
    case 3: return json_real(between(r, -100, 100) / 8.0 + 0.1);
    case 4: return json_pack("[i,s]", 1, "x");
    case 5: return json_pack("{s:i}", "k", between(r, 0, 9));
    default: return json_string(ONE_OF(r, texts));
    }
}

static inline json_t *random_enum_schema(rng *r)
{
    json_t *list = json_array();
    if (chance(r, 30)) return json_pack("{s:o,s:o}", "const", random_value(r), "x-list", list);
    for (int n = between(r, 1, 5); n; n--) json_array_append_new(list, random_value(r));
    return json_pack("{s:o}", "enum", list);
}

static inline json_t *random_array_schema(rng *r, int depth)
{
    json_t *s = json_pack("{s:s}", "type", "array");
    const int lo = between(r, 0, 3);
    if (chance(r, 25)) {
        json_t *prefix = json_array();
        for (int n = between(r, 1, 3); n; n--) json_array_append_new(prefix, random_schema(r, depth + 1));
        json_object_set_new(s, chance(r, 20) ? "items" : "prefixItems", prefix);
    }
    if (!json_object_get(s, "items") && chance(r, 80))
        json_object_set_new(s, "items", chance(r, 10) ? json_false() : random_schema(r, depth + 1));
    const bool is_short = json_is_false(json_object_get(s, "items"));
    if (!is_short && chance(r, 50)) set_int(s, "minItems", lo);
    if (chance(r, 80)) set_int(s, "maxItems", lo + between(r, 0, 4));
    return s;
}

static inline json_t *random_object_schema(rng *r, int depth)
{
    static const char *const names[] = {"id",          "name",       "n",       "na",          "value",
                                        "caf\xc3\xa9", "with space", "q\"uote", "a/b",         "t~e",
                                        "\\slash",     "newline\n",  "",        "\xe6\x97\xa5"};
    json_t *s = json_pack("{s:s}", "type", "object"), *properties = json_object(), *required = json_array();
    for (int n = between(r, 0, 5); n; n--) {
        const char *name = ONE_OF(r, names);
        if (json_object_get(properties, name)) continue;
        json_object_set_new(properties, name, random_schema(r, depth + 1));
        if (chance(r, 50)) json_array_append_new(required, json_string(name));
    }
    const size_t n_properties = json_object_size(properties), n_required = json_array_size(required);
    if (chance(r, 5)) json_array_append_new(required, json_string("unnamed"));
    if (n_properties) json_object_set(s, "properties", properties);
    if (json_array_size(required)) json_object_set(s, "required", required);
    if (n_properties == 0 && json_array_size(required) == 0 && chance(r, 40))
        json_object_set_new(s, "patternProperties", json_pack("{s:o}", "^[a-z]{1,4}$", random_schema(r, depth + 1)));
    else if (chance(r, 60))
        json_object_set_new(s, "additionalProperties",
                            chance(r, 50) && json_array_size(required) == n_required ? json_false()
                                                                                     : random_schema(r, depth + 1));
    if (n_required && chance(r, 20)) set_int(s, "minProperties", (long)n_required);
    if (chance(r, 20)) set_int(s, "maxProperties", (long)(json_object_size(properties) + 1) + between(r, 0, 2));
    json_decref(properties);
    json_decref(required);
    return s;
}

static inline json_t *random_combination(rng *r, int depth)
{
    json_t *list = json_array();
    switch (rng_below(r, 5)) {
    case 0: /* exactly one fits: different types */
        json_array_append_new(list, random_string_schema(r));
        json_array_append_new(list, json_pack("{s:s}", "type", "null"));
        if (chance(r, 50)) json_array_append_new(list, random_object_schema(r, depth + 1));
        return json_pack("{s:o}", "oneOf", list);
    case 1: /* one range */
        json_array_append_new(list, json_pack("{s:s,s:i}", "type", "number", "minimum", between(r, -50, 50)));
        json_array_append_new(list,
                              json_pack("{s:[s,s],s:i}", "type", "integer", "string", "maximum", between(r, 60, 90)));
        return json_pack("{s:o}", "allOf", list);
    case 2: /* one object */
        json_array_append_new(
            list, json_pack("{s:{s:o},s:[s]}", "properties", "a", random_schema(r, depth + 1), "required", "a"));
        json_array_append_new(list,
                              json_pack("{s:{s:{s:s}},s:[s]}", "properties", "b", "type", "integer", "required", "b"));
        return json_pack("{s:s,s:o}", "type", "object", "allOf", list);
    case 3: /* one of two members is demanded */
        json_array_append_new(list, json_pack("{s:[s]}", "required", "p"));
        json_array_append_new(list, json_pack("{s:[s]}", "required", "q"));
        return json_pack("{s:s,s:{s:o,s:o},s:o}", "type", "object", "properties", "p", random_schema(r, depth + 1), "q",
                         random_schema(r, depth + 1), "anyOf", list);
    default:
        for (int n = between(r, 1, 3); n; n--) json_array_append_new(list, random_schema(r, depth + 1));
        return json_pack("{s:o}", "anyOf", list);
    }
}

static json_t *random_schema(rng *r, int depth)
{
    static const char *const refs[] = {"#/$defs/node", "#/$defs/tree", "#/$defs/pair~1x", "#/$defs/short"};
    const uint32_t dice = rng_below(r, depth >= 3 ? 7 : 14);
    if (dice < 2) return random_string_schema(r);
    if (dice < 4) return random_number_schema(r);
    if (dice == 4) return random_enum_schema(r);
    if (dice == 5) return chance(r, 10) ? json_object() : json_pack("{s:[s,s]}", "type", "boolean", "null");
    if (dice == 6) return json_pack("{s:s}", "$ref", ONE_OF(r, refs));
    if (dice < 9) return random_array_schema(r, depth);
    return dice < 12 ? random_object_schema(r, depth) : random_combination(r, depth);
}

/* With definitions to refer to, two of which refer to themselves. */
static inline json_t *random_document(rng *r)
{
    json_t *s = random_schema(r, 0);
    json_error_t e;
    json_t *defs = json_loads(
        "{\"node\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\",\"minimum\":0},"
        "\"next\":{\"anyOf\":[{\"type\":\"null\"},{\"$ref\":\"#/$defs/node\"}]}},\"required\":[\"v\",\"next\"],"
        "\"additionalProperties\":false},"
        "\"tree\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/tree\"},\"maxItems\":2},"
        "\"pair/x\":{\"type\":\"object\",\"properties\":{\"x\":{\"$ref\":\"#/$defs/short\"}}},"
        "\"short\":{\"type\":\"string\",\"maxLength\":4,\"description\":\"not long\"}}",
        0, &e);
    json_object_set_new(s, "$defs", defs);
    if (chance(r, 30)) json_object_set_new(s, "title", json_string("a schema"));
    return s;
}

#endif
