/* json_chars.c: characters as they stand in JSON strings. */
#include <stdio.h>
#include <string.h>

#include "grammar/regex.h"

/* Characters that have a short escape, and its letter. */
static const char escaped[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";

static void build_escape(grammar_builder *b, int32_t from, const char *text, int32_t to)
{
    builder_text(b, from, text, strlen(text), to);
}

void json_build_set(const charset *s, grammar_builder *b, int32_t from, int32_t to)
{
    charset plain = *s;
    for (size_t i = 0; escaped[i]; i++)
        if (charset_has(s, (uint8_t)escaped[i])) build_escape(b, from, (char[]){'\\', letters[i], 0}, to);
    for (uint32_t c = 1; c < 0x20; c++) {
        char text[8];
        if (!charset_has(s, c) || strchr(escaped, (int)c)) continue;
        snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
        build_escape(b, from, text, to);
    }
    charset_intersect(&plain, 0x20, CHARSET_LAST);
    charset_negate(&plain);
    charset_add(&plain, '"', '"');
    charset_add(&plain, '\\', '\\');
    charset_negate(&plain);
    charset_build(&plain, b, from, to);
}

static void build_hex(grammar_builder *b, int32_t from, int lo, int hi, int32_t to)
{
    const int letter_lo = lo > 10 ? lo : 10;
    if (lo < 10) builder_byte(b, from, (uint8_t)('0' + lo), (uint8_t)('0' + (hi < 9 ? hi : 9)), to);
    if (hi < 10) return;
    builder_byte(b, from, (uint8_t)('a' + letter_lo - 10), (uint8_t)('a' + hi - 10), to);
    builder_byte(b, from, (uint8_t)('A' + letter_lo - 10), (uint8_t)('A' + hi - 10), to);
}

/* Four digits, each in its range. */
static void build_hex4(grammar_builder *b, int32_t from, const int (*range)[2], int32_t to)
{
    for (int i = 0; i < 4; i++) {
        const int32_t next = i < 3 ? builder_node(b) : to;
        build_hex(b, from, range[i][0], range[i][1], next);
        from = next;
    }
}

/* Behind \u: a character of the basic plane other than U+0000, or a pair of surrogates. */
static void build_unicode(grammar_builder *b, int32_t from, int32_t to)
{
    static const int basic[][4][2] = {{{0, 0}, {0, 0}, {0, 0}, {1, 15}},    {{0, 0}, {0, 0}, {1, 15}, {0, 15}},
                                      {{0, 0}, {1, 15}, {0, 15}, {0, 15}},  {{1, 12}, {0, 15}, {0, 15}, {0, 15}},
                                      {{13, 13}, {0, 7}, {0, 15}, {0, 15}}, {{14, 15}, {0, 15}, {0, 15}, {0, 15}}};
    static const int high[4][2] = {{13, 13}, {8, 11}, {0, 15}, {0, 15}},
                     low[4][2] = {{13, 13}, {12, 15}, {0, 15}, {0, 15}};
    for (size_t i = 0; i < sizeof basic / sizeof *basic; i++) build_hex4(b, from, basic[i], to);
    const int32_t half = builder_node(b), second = builder_node(b);
    build_hex4(b, from, high, half);
    builder_text(b, half, "\\u", 2, second);
    build_hex4(b, second, low, to);
}

void json_build_any(grammar_builder *b, int32_t from, int32_t to)
{
    charset plain = {0};
    charset_add(&plain, 0, 0x1f);
    charset_add(&plain, '"', '"');
    charset_add(&plain, '\\', '\\');
    charset_negate(&plain);
    charset_build(&plain, b, from, to);
    const int32_t behind = builder_node(b), unicode = builder_node(b);
    builder_byte(b, from, '\\', '\\', behind);
    builder_byte(b, behind, '/', '/', to);
    for (size_t i = 0; letters[i]; i++) builder_byte(b, behind, (uint8_t)letters[i], (uint8_t)letters[i], to);
    builder_byte(b, behind, 'u', 'u', unicode);
    build_unicode(b, unicode, to);
}
