#include "base/utf8.h"

/* Number of bytes that the lead byte announces and the range of the second byte (Unicode table 3-7). */
static int lead_info(unsigned char b, unsigned char *lo, unsigned char *hi)
{
    *lo = 0x80;
    *hi = 0xbf;
    if (b < 0x80) return 1;
    if (b < 0xc2) return 0;
    if (b < 0xe0) return 2;
    if (b < 0xf0) {
        if (b == 0xe0) *lo = 0xa0;
        if (b == 0xed) *hi = 0x9f;
        return 3;
    }
    if (b > 0xf4) return 0;
    if (b == 0xf0) *lo = 0x90;
    if (b == 0xf4) *hi = 0x8f;
    return 4;
}

/* Bytes at s that belong to one well-formed character or to the beginning of one; *want = its full length. */
static int well_formed(const unsigned char *s, size_t n, int *want)
{
    unsigned char lo, hi;
    *want = lead_info(s[0], &lo, &hi);
    if (*want == 0) return 0;
    int have = 1;
    while (have < *want && (size_t)have < n && s[have] >= lo && s[have] <= hi) {
        have++;
        lo = 0x80;
        hi = 0xbf;
    }
    return have;
}

int utf8_decode(const char *text, size_t n, uint32_t *cp)
{
    const unsigned char *s = (const unsigned char *)text;
    int want, have = well_formed(s, n, &want);
    if (have == 0 || have < want) return 0;
    static const unsigned char lead_mask[5] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t c = s[0] & lead_mask[want];
    for (int i = 1; i < want; i++) c = c << 6 | (s[i] & 0x3fu);
    *cp = c;
    return want;
}

int utf8_invalid_length(const char *text, size_t n)
{
    int want, have = well_formed((const unsigned char *)text, n, &want);
    return have ? have : 1;
}

int utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    int n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    static const unsigned char lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int i = n - 1; i > 0; i--, cp >>= 6) out[i] = (char)(0x80u | (cp & 0x3fu));
    out[0] = (char)(lead[n] | cp);
    return n;
}

bool utf8_valid(const char *s, size_t n)
{
    uint32_t cp;
    for (size_t i = 0; i < n;) {
        int k = utf8_decode(s + i, n - i, &cp);
        if (!k) return false;
        i += (size_t)k;
    }
    return true;
}

bool utf8_is_prefix(const char *s, size_t n)
{
    int want, have = well_formed((const unsigned char *)s, n, &want);
    return have > 0 && (size_t)have == n && have < want;
}
