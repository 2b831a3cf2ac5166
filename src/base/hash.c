#include "base/hash.h"

#include <string.h>

static const uint64_t P1 = 0x9E3779B185EBCA87u, P2 = 0xC2B2AE3D27D4EB4Fu, P3 = 0x165667B19E3779F9u,
                      P4 = 0x85EBCA77C2B2AE63u, P5 = 0x27D4EB2F165667C5u;

enum { STRIPE = 32 };

static uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint32_t load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint64_t rotate(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

static uint64_t mix(uint64_t acc, uint64_t input)
{
    return rotate(acc + input * P2, 31) * P1;
}

static const uint8_t *add_stripes(uint64_t lane[4], const uint8_t *p, size_t n)
{
    for (; n > 0; n--, p += STRIPE)
        for (int i = 0; i < 4; i++) lane[i] = mix(lane[i], load64(p + 8 * i));
    return p;
}

static void begin(uint64_t lane[4])
{
    lane[0] = P1 + P2;
    lane[1] = P2;
    lane[2] = 0;
    lane[3] = 0 - P1;
}

void hash64_add(hash64 *h, const void *data, size_t bytes)
{
    const uint8_t *p = data;
    const size_t have = h->n % STRIPE;
    if (bytes == 0) return;
    if (h->n == 0) begin(h->lane);
    h->n += bytes;
    if (have + bytes < STRIPE) {
        memcpy(h->stripe + have, p, bytes);
        return;
    }
    if (have) {
        memcpy(h->stripe + have, p, STRIPE - have);
        add_stripes(h->lane, h->stripe, 1);
        p += STRIPE - have;
        bytes -= STRIPE - have;
    }
    p = add_stripes(h->lane, p, bytes / STRIPE);
    memcpy(h->stripe, p, bytes % STRIPE);
}

static uint64_t join_lanes(const uint64_t lane[4])
{
    uint64_t h = rotate(lane[0], 1) + rotate(lane[1], 7) + rotate(lane[2], 12) + rotate(lane[3], 18);
    for (int i = 0; i < 4; i++) h = (h ^ mix(0, lane[i])) * P1 + P4;
    return h;
}

uint64_t hash64_get(const hash64 *h)
{
    uint64_t x = (h->n < STRIPE ? P5 : join_lanes(h->lane)) + h->n;
    const uint8_t *p = h->stripe, *end = p + h->n % STRIPE;
    for (; end - p >= 8; p += 8) x = rotate(x ^ mix(0, load64(p)), 27) * P1 + P4;
    for (; end - p >= 4; p += 4) x = rotate(x ^ load32(p) * P1, 23) * P2 + P3;
    for (; p < end; p++) x = rotate(x ^ *p * P5, 11) * P1;
    x = (x ^ (x >> 33)) * P2;
    x = (x ^ (x >> 29)) * P3;
    return x ^ (x >> 32);
}

uint64_t hash64_of(const void *data, size_t bytes)
{
    hash64 h = {0};
    hash64_add(&h, data, bytes);
    return hash64_get(&h);
}
