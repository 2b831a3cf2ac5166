#define _GNU_SOURCE
#include "file/name_table.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/mem.h"

enum { FIRST_SLOTS = 32 };

static uint64_t rotate(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

/* SipHash-1-3 (Aumasson, Bernstein 2012). */
static uint64_t hash_name(const uint64_t secret[2], const char *s, size_t n)
{
    uint64_t v[4] = {secret[0] ^ 0x736f6d6570736575u, secret[1] ^ 0x646f72616e646f6du, secret[0] ^ 0x6c7967656e657261u,
                     secret[1] ^ 0x7465646279746573u};
    size_t left = n;
    for (; left >= 8; left -= 8, s += 8) {
        uint64_t word;
        memcpy(&word, s, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    uint64_t tail = (uint64_t)n << 56;
    for (size_t i = 0; i < left; i++) tail |= (uint64_t)(unsigned char)s[i] << (8 * i);
    v[3] ^= tail;
    sip_round(v);
    v[0] ^= tail;
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++) sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* The slot that holds the name, or the free one where it belongs. */
static name_slot *find_slot(const name_table *t, const char *s, size_t n)
{
    size_t i = (size_t)hash_name(t->secret, s, n) & (t->n_slots - 1);
    while (t->slots[i].s && (t->slots[i].n != n || memcmp(t->slots[i].s, s, n) != 0)) i = (i + 1) & (t->n_slots - 1);
    return &t->slots[i];
}

static void choose_secret(uint64_t secret[2])
{
    if (getrandom(secret, 2 * sizeof *secret, GRND_NONBLOCK) == 2 * (int)sizeof *secret) return;
    struct timespec now; /* early boot only: the clock is still hard to guess from inside a file */
    clock_gettime(CLOCK_MONOTONIC, &now);
    secret[0] = (uint64_t)now.tv_nsec;
    secret[1] = (uint64_t)(uintptr_t)secret;
}

static bool grow(name_table *t)
{
    name_table bigger = {.n_slots = t->n_slots ? 2 * t->n_slots : FIRST_SLOTS, .n_used = t->n_used};
    bigger.slots = mem_calloc(bigger.n_slots, sizeof *bigger.slots);
    if (!bigger.slots) return false;
    choose_secret(bigger.secret);
    for (size_t i = 0; i < t->n_slots; i++)
        if (t->slots[i].s) *find_slot(&bigger, t->slots[i].s, t->slots[i].n) = t->slots[i];
    mem_free(t->slots);
    *t = bigger;
    return true;
}

name_result name_table_add(name_table *t, const char *s, size_t n, uint64_t entry)
{
    if (2 * (t->n_used + 1) > t->n_slots && !grow(t)) return NAME_NO_MEMORY;
    name_slot *slot = find_slot(t, s, n);
    if (slot->s) return NAME_DUPLICATE;
    *slot = (name_slot){.s = s, .n = n, .entry = entry};
    t->n_used++;
    return NAME_ADDED;
}

uint64_t name_table_find(const name_table *t, const char *s, size_t n)
{
    if (!t->n_slots) return NAME_NONE;
    const name_slot *slot = find_slot(t, s, n);
    return slot->s ? slot->entry : NAME_NONE;
}

void name_table_free(name_table *t)
{
    mem_free(t->slots);
    *t = (name_table){0};
}
