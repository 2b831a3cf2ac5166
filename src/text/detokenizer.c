#include <string.h>

#include "base/utf8.h"
#include "text/vocab.h"

static const char blank[] = "\xe2\x96\x81"; /* U+2581 */

static void put_replacement(buf *out)
{
    buf_append(out, "\xef\xbf\xbd", 3);
}

/* One byte where a character is unfinished: it goes on, is complete, or is given up and the byte starts anew. */
static bool continue_pending(detokenizer *d, char byte, buf *out)
{
    d->pending[d->n_pending] = byte;
    size_t n = (size_t)d->n_pending + 1;
    uint32_t cp;
    if (n < sizeof d->pending && utf8_is_prefix(d->pending, n)) {
        d->n_pending = (int)n;
        return true;
    }
    bool is_whole = utf8_decode(d->pending, n, &cp) == (int)n;
    if (is_whole)
        buf_append(out, d->pending, n);
    else
        put_replacement(out);
    d->n_pending = 0;
    return is_whole;
}

/* Bytes that no character is unfinished before: appends the whole characters and keeps an unfinished last one. */
static void put_bytes(detokenizer *d, const char *s, size_t n, buf *out)
{
    while (n && d->n_pending && continue_pending(d, *s, out)) s++, n--;
    while (n) {
        uint32_t cp;
        size_t k = (size_t)utf8_decode(s, n, &cp);
        if (k) {
            buf_append(out, s, k);
        } else if (n < sizeof d->pending && utf8_is_prefix(s, n)) {
            memcpy(d->pending, s, n);
            d->n_pending = (int)n;
            return;
        } else {
            k = (size_t)utf8_invalid_length(s, n);
            put_replacement(out);
        }
        s += k;
        n -= k;
    }
}

/* Bytes at s before the next U+2581, or all. */
static size_t until_blank(const char *s, size_t n)
{
    for (size_t i = 0; i + 3 <= n; i++)
        if (memcmp(s + i, blank, 3) == 0) return i;
    return n;
}

/* Token text with each U+2581 as a blank. */
static void put_normal(detokenizer *d, const char *s, size_t n, buf *out)
{
    while (n) {
        const size_t k = until_blank(s, n);
        put_bytes(d, s, k, out);
        if (k < n) put_bytes(d, " ", 1, out);
        s += k < n ? k + 3 : k;
        n -= k < n ? k + 3 : k;
    }
}

void detokenizer_push(detokenizer *d, const tokenizer *t, int32_t id, buf *out)
{
    size_t n = 0;
    const char *s = tokenizer_token_text(t, id, &n);
    if (!s) return;
    char byte;
    switch ((token_class)t->class_of[id]) {
    case TOKEN_NORMAL: put_normal(d, s, n, out); break;
    case TOKEN_USER: put_bytes(d, s, n, out); break;
    case TOKEN_CONTROL:
        if (d->show_special) put_bytes(d, s, n, out);
        break;
    case TOKEN_BYTE:
        byte = (char)tokenizer_byte_value(s, n);
        put_bytes(d, &byte, 1, out);
        break;
    }
}

void detokenizer_finish(detokenizer *d, buf *out)
{
    if (d->n_pending) put_replacement(out);
    d->n_pending = 0;
}

/* A marker of chats, which speaks to the program and not to the reader. */
static bool is_marker(const special_ids *ids, int32_t id)
{
    const int32_t all[] = {ids->turn_open,  ids->turn_close,    ids->channel_open,   ids->channel_close, ids->call_open,
                           ids->call_close, ids->response_open, ids->response_close, ids->quote,         ids->think};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] == id) return true;
    return false;
}

void tokenizer_append_text(const tokenizer *t, int32_t id, buf *out)
{
    size_t n = 0;
    const char *s = tokenizer_token_text(t, id, &n);
    if (!s || t->class_of[id] == TOKEN_CONTROL || t->is_end[id] || is_marker(&t->ids, id)) return;
    if (t->class_of[id] == TOKEN_BYTE) {
        buf_putc(out, (char)tokenizer_byte_value(s, n));
        return;
    }
    while (n) {
        const size_t k = t->class_of[id] == TOKEN_NORMAL ? until_blank(s, n) : n;
        buf_append(out, s, k);
        if (k < n) buf_putc(out, ' ');
        s += k < n ? k + 3 : k;
        n -= k < n ? k + 3 : k;
    }
}
