#include "grammar/charset.h"

#include <stdlib.h>

#include "base/utf8.h"

void charset_add(charset *s, uint32_t lo, uint32_t hi)
{
    if (lo > hi) return;
    if (s->n == CHARSET_MAX_RANGES) charset_normalise(s);
    if (s->n == CHARSET_MAX_RANGES) {
        s->is_full = true;
        return;
    }
    s->ranges[s->n++] = (char_range){lo, hi};
}

void charset_add_set(charset *s, const charset *other)
{
    for (int i = 0; i < other->n; i++) charset_add(s, other->ranges[i].lo, other->ranges[i].hi);
    s->is_full |= other->is_full;
}

static int by_lo(const void *a, const void *b)
{
    const char_range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

void charset_normalise(charset *s)
{
    int kept = 0;
    qsort(s->ranges, (size_t)s->n, sizeof *s->ranges, by_lo);
    for (int i = 0; i < s->n; i++) {
        if (kept && s->ranges[i].lo <= s->ranges[kept - 1].hi + 1) {
            if (s->ranges[i].hi > s->ranges[kept - 1].hi) s->ranges[kept - 1].hi = s->ranges[i].hi;
        } else {
            s->ranges[kept++] = s->ranges[i];
        }
    }
    s->n = kept;
}

void charset_negate(charset *s)
{
    const charset old = *s;
    uint32_t next = 0;
    charset_normalise(s);
    const charset sorted = *s;
    s->n = 0;
    s->is_full = old.is_full;
    for (int i = 0; i < sorted.n; i++) {
        if (sorted.ranges[i].lo > next) charset_add(s, next, sorted.ranges[i].lo - 1);
        next = sorted.ranges[i].hi + 1;
    }
    charset_add(s, next, CHARSET_LAST);
}

void charset_intersect(charset *s, uint32_t lo, uint32_t hi)
{
    int kept = 0;
    for (int i = 0; i < s->n; i++) {
        const char_range r = s->ranges[i];
        if (r.hi >= lo && r.lo <= hi) s->ranges[kept++] = (char_range){r.lo < lo ? lo : r.lo, r.hi > hi ? hi : r.hi};
    }
    s->n = kept;
}

bool charset_has(const charset *s, uint32_t c)
{
    for (int i = 0; i < s->n; i++)
        if (c >= s->ranges[i].lo && c <= s->ranges[i].hi) return true;
    return false;
}

/* ---- as UTF-8 ---- */

/* Bytes a[k..n) .. b[k..n) of two encodings of equal length: edges from `from` to `to`. Where the first bytes differ
 * and not all that may follow follows, the range is cut in three: the rest of the first byte, whole ones, the beginning
 * of the last. Depth is at most four. */
static void build_bytes(grammar_builder *b, const char *lo, const char *hi, int n, int32_t from, int32_t to)
{
    const uint8_t first = (uint8_t)lo[0], last = (uint8_t)hi[0];
    if (n == 1) {
        builder_byte(b, from, first, last, to);
        return;
    }
    static const char least[3] = "\x80\x80\x80", most[3] = "\xbf\xbf\xbf";
    bool is_low_whole = true, is_high_whole = true;
    for (int i = 1; i < n; i++) {
        is_low_whole = is_low_whole && (uint8_t)lo[i] == 0x80;
        is_high_whole = is_high_whole && (uint8_t)hi[i] == 0xbf;
    }
    if (first == last || (is_low_whole && is_high_whole)) {
        const int32_t next = builder_node(b);
        builder_byte(b, from, first, last, next);
        build_bytes(b, lo + 1, hi + 1, n - 1, next, to);
        return;
    }
    const uint8_t whole_first = (uint8_t)(first + !is_low_whole), whole_last = (uint8_t)(last - !is_high_whole);
    if (!is_low_whole) {
        const int32_t next = builder_node(b);
        builder_byte(b, from, first, first, next);
        build_bytes(b, lo + 1, most, n - 1, next, to);
    }
    if (whole_first <= whole_last) {
        const int32_t next = builder_node(b);
        builder_byte(b, from, whole_first, whole_last, next);
        build_bytes(b, least, most, n - 1, next, to);
    }
    if (!is_high_whole) {
        const int32_t next = builder_node(b);
        builder_byte(b, from, last, last, next);
        build_bytes(b, least, hi + 1, n - 1, next, to);
    }
}

void charset_build(const charset *s, grammar_builder *b, int32_t from, int32_t to)
{
    /* characters of one length in bytes, none a surrogate */
    static const char_range pieces[] = {
        {0, 0x7f}, {0x80, 0x7ff}, {0x800, 0xd7ff}, {0xe000, 0xffff}, {0x10000, CHARSET_LAST}};
    for (int i = 0; i < s->n; i++)
        for (size_t k = 0; k < sizeof pieces / sizeof *pieces; k++) {
            const char_range r = s->ranges[i], p = pieces[k];
            if (r.hi < p.lo || r.lo > p.hi) continue;
            char lo[4], hi[4];
            const int n = utf8_encode(r.lo < p.lo ? p.lo : r.lo, lo);
            utf8_encode(r.hi > p.hi ? p.hi : r.hi, hi);
            build_bytes(b, lo, hi, n, from, to);
        }
}
