#include "text/chat_call.h"

#include <string.h>

#define MAX_DEPTH 128 /* nesting of arguments; bounds the recursion */

/* A bounded reader. */
typedef struct cursor {
    const char *s, *end;
    bool is_closed;
    buf *out;
} cursor;

static bool parse_value(cursor *c, int depth);

static bool is_blank(char ch)
{
    return ch == ' ' || (ch >= '\t' && ch <= '\r');
}

static bool is_digit(const char *s, const char *end)
{
    return s < end && *s >= '0' && *s <= '9';
}

static void skip_blanks(cursor *c)
{
    while (c->s < c->end && is_blank(*c->s)) c->s++;
}

static bool next_is(const cursor *c, char ch)
{
    return c->s < c->end && *c->s == ch;
}

static bool take(cursor *c, char ch)
{
    if (!next_is(c, ch)) return false;
    c->s++;
    return true;
}

/* A value may end at s: only blanks stand before the end or one of , } ] */
static bool ends_value(const char *s, const char *end)
{
    while (s < end && is_blank(*s)) s++;
    return s == end || *s == ',' || *s == '}' || *s == ']';
}

static void put_escaped(buf *out, char ch)
{
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    const char *at = ch ? strchr(from, ch) : NULL;
    if (at)
        buf_append(out, (const char[]){'\\', to[at - from]}, 2);
    else if ((unsigned char)ch < 0x20)
        buf_printf(out, "\\u%04x", (unsigned)(unsigned char)ch);
    else
        buf_putc(out, ch);
}

static void put_json_string(buf *out, const char *s, size_t n)
{
    buf_putc(out, '"');
    for (size_t i = 0; i < n; i++) put_escaped(out, s[i]);
    buf_putc(out, '"');
}

/* <|"|> any text <|"|> */
static bool parse_quoted(cursor *c)
{
    const char *end = memchr(c->s + 1, CALL_QUOTE, (size_t)(c->end - c->s - 1));
    if (!end) return false;
    put_json_string(c->out, c->s + 1, (size_t)(end - c->s - 1));
    c->s = end + 1;
    return true;
}

/* Value of \uXXXX at s, or -1. */
static int unicode_escape(const char *s, const char *end)
{
    if (end - s < 6 || s[0] != '\\' || s[1] != 'u') return -1;
    int value = 0;
    for (int i = 2; i < 6; i++) {
        char ch = s[i];
        bool is_letter = (ch >= 'a' && ch <= 'f') || (ch >= 'A' && ch <= 'F');
        if (!is_letter && !(ch >= '0' && ch <= '9')) return -1;
        value = value << 4 | (is_letter ? (ch & 7) + 9 : ch - '0');
    }
    return value;
}

/* One character of a JSON string, which may be an escape; gives the bytes read. What JSON does not allow (a half
 * surrogate, an unknown escape, a raw control character) is mended. */
static size_t put_json_character(buf *out, const char *s, const char *end)
{
    int first = unicode_escape(s, end);
    if (first >= 0xd800 && first < 0xdc00) {
        int second = unicode_escape(s + 6, end);
        bool is_pair = second >= 0xdc00 && second < 0xe000;
        buf_append(out, is_pair ? s : "\\ufffd", is_pair ? 12 : 6);
        return is_pair ? 12 : 6;
    }
    if (first >= 0) {
        buf_append(out, first >= 0xdc00 && first < 0xe000 ? "\\ufffd" : s, 6);
        return 6;
    }
    if (*s == '\\' && end - s >= 2 && s[1] && strchr("\"\\/bfnrt", s[1])) {
        buf_append(out, s, 2);
        return 2;
    }
    put_escaped(out, *s);
    return 1;
}

/* "…" as in JSON, which some outputs have in place of <|"|>. */
static bool parse_json_string(cursor *c)
{
    const char *s = c->s + 1;
    buf_putc(c->out, '"');
    while (s < c->end && *s != '"' && *s != CALL_QUOTE) s += put_json_character(c->out, s, c->end);
    if (s == c->end || *s != '"') return false;
    buf_putc(c->out, '"');
    c->s = s + 1;
    return true;
}

static const char *skip_digits(const char *s, const char *end)
{
    while (is_digit(s, end)) s++;
    return s;
}

/* End of the JSON number at s, or NULL. */
static const char *number_end(const char *s, const char *end)
{
    if (s < end && *s == '-') s++;
    if (!is_digit(s, end)) return NULL;
    s = *s == '0' ? s + 1 : skip_digits(s, end);
    if (s < end && *s == '.') {
        if (!is_digit(s + 1, end)) return NULL;
        s = skip_digits(s + 1, end);
    }
    if (s < end && (*s == 'e' || *s == 'E')) {
        s++;
        if (s < end && (*s == '+' || *s == '-')) s++;
        if (!is_digit(s, end)) return NULL;
        s = skip_digits(s, end);
    }
    return s;
}

static bool parse_number(cursor *c)
{
    const char *end = number_end(c->s, c->end);
    if (!end || !ends_value(end, c->end)) return false;
    buf_append(c->out, c->s, (size_t)(end - c->s));
    c->s = end;
    return true;
}

static bool parse_literal(cursor *c)
{
    static const char *const words[][2] = {{"true", "true"}, {"false", "false"}, {"null", "null"},
                                           {"True", "true"}, {"False", "false"}, {"None", "null"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t n = strlen(words[i][0]);
        if ((size_t)(c->end - c->s) < n || memcmp(c->s, words[i][0], n) != 0 || !ends_value(c->s + n, c->end)) continue;
        buf_puts(c->out, words[i][1]);
        c->s += n;
        return true;
    }
    return false;
}

/* A string that lacks its quotes: everything up to the next , } or ] */
static bool parse_bare_word(cursor *c)
{
    const char *s = c->s, *last = c->s;
    for (; s < c->end && *s != ',' && *s != '}' && *s != ']'; s++) {
        if (*s == CALL_QUOTE) return false;
        if (!is_blank(*s)) last = s + 1;
    }
    if (last == c->s) return false;
    put_json_string(c->out, c->s, (size_t)(last - c->s));
    c->s = s;
    return true;
}

/* Anything that is neither quoted nor nested. What only begins like a JSON string is a bare word too. */
static bool parse_scalar(cursor *c)
{
    const char *start = c->s;
    size_t length = c->out->len;
    if (next_is(c, '"') && parse_json_string(c) && ends_value(c->s, c->end)) return true;
    c->s = start;
    if (c->out->len > length) c->out->len = length;
    return parse_number(c) || parse_literal(c) || parse_bare_word(c);
}

static bool parse_key(cursor *c)
{
    if (next_is(c, CALL_QUOTE)) {
        if (!parse_quoted(c)) return false;
    } else if (next_is(c, '"')) {
        if (!parse_json_string(c)) return false;
    } else {
        const char *s = c->s, *last = c->s;
        for (; s < c->end && *s != ':' && *s != '}' && *s != CALL_QUOTE; s++)
            if (!is_blank(*s)) last = s + 1;
        if (last == c->s) return false;
        put_json_string(c->out, c->s, (size_t)(last - c->s));
        c->s = s;
    }
    skip_blanks(c);
    return take(c, ':');
}

/* Between two elements: ',' and true, or the closing bracket and *done. */
static bool parse_separator(cursor *c, char close, bool may_end, bool *done)
{
    skip_blanks(c);
    *done = take(c, close) || (may_end && c->s == c->end);
    if (*done) return true;
    if (!take(c, ',')) return false;
    buf_putc(c->out, ',');
    skip_blanks(c);
    return true;
}

/* The brace is already taken. Only the outermost object (depth 0) of a closed call may lack its last brace. */
static bool parse_members(cursor *c, int depth)
{
    bool may_end = depth == 0 && c->is_closed, done;
    buf_putc(c->out, '{');
    skip_blanks(c);
    done = take(c, '}') || (may_end && c->s == c->end);
    while (!done) {
        if (!parse_key(c)) return false;
        buf_putc(c->out, ':');
        skip_blanks(c);
        if (!parse_value(c, depth + 1) || !parse_separator(c, '}', may_end, &done)) return false;
    }
    buf_putc(c->out, '}');
    return true;
}

static bool parse_elements(cursor *c, int depth)
{
    buf_putc(c->out, '[');
    skip_blanks(c);
    bool done = take(c, ']');
    while (!done)
        if (!parse_value(c, depth + 1) || !parse_separator(c, ']', false, &done)) return false;
    buf_putc(c->out, ']');
    return true;
}

static bool parse_value(cursor *c, int depth)
{
    if (depth > MAX_DEPTH) return false;
    if (next_is(c, CALL_QUOTE)) return parse_quoted(c);
    if (take(c, '{')) return parse_members(c, depth);
    if (take(c, '[')) return parse_elements(c, depth);
    return parse_scalar(c);
}

static bool parse_name(cursor *c, buf *name)
{
    skip_blanks(c);
    if (c->end - c->s >= 5 && memcmp(c->s, "call:", 5) == 0) c->s += 5;
    skip_blanks(c);
    const char *last = c->s, *start = c->s;
    for (; c->s < c->end && *c->s != '{'; c->s++) {
        if (*c->s == CALL_QUOTE) return false;
        if (!is_blank(*c->s)) last = c->s + 1;
    }
    return last > start && take(c, '{') && buf_append(name, start, (size_t)(last - start));
}

bool chat_parse_call(const char *s, size_t n, bool is_closed, buf *name, buf *arguments)
{
    cursor c = {.s = s, .end = s + n, .is_closed = is_closed, .out = arguments};
    if (n == 0 || !parse_name(&c, name) || !parse_members(&c, 0)) return false;
    skip_blanks(&c);
    return c.s == c.end && !arguments->failed;
}
