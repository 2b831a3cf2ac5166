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

/* Token text with each U+2581 as a blank. */
static void put_normal(detokenizer *d, const char *s, size_t n, buf *out)
{
    size_t from = 0;
    for (size_t i = 0; i + 3 <= n;) {
        if (memcmp(s + i, blank, 3) != 0) {
            i++;
            continue;
        }
        put_bytes(d, s + from, i - from, out);
        put_bytes(d, " ", 1, out);
        from = i += 3;
    }
    put_bytes(d, s + from, n - from, out);
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
        byte = (char)vocab_byte_value(s, n);
        put_bytes(d, &byte, 1, out);
        break;
    }
}

void detokenizer_finish(detokenizer *d, buf *out)
{
    if (d->n_pending) put_replacement(out);
    d->n_pending = 0;
}
