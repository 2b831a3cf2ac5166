#define _GNU_SOURCE
#include "base/mem.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static _Atomic uint64_t calls_made;
static _Atomic uint64_t fail_call; /* 0 = never */
static _Atomic int64_t n_live;
static _Atomic uint64_t pretended_available; /* 0 = ask the system */

static bool must_fail(void)
{
    uint64_t call = atomic_fetch_add_explicit(&calls_made, 1, memory_order_relaxed) + 1;
    return call == atomic_load_explicit(&fail_call, memory_order_relaxed);
}

uint64_t mem_fail_at(uint64_t n)
{
    atomic_store(&fail_call, n);
    return atomic_exchange(&calls_made, 0);
}

int64_t mem_n_live(void)
{
    return atomic_load(&n_live);
}

/* Counts p, unless it is NULL. */
static void *made(void *p)
{
    if (p) atomic_fetch_add_explicit(&n_live, 1, memory_order_relaxed);
    return p;
}

static void gone(const void *p)
{
    if (p) atomic_fetch_sub_explicit(&n_live, 1, memory_order_relaxed);
}

void *mem_alloc(size_t bytes)
{
    return must_fail() ? NULL : made(malloc(bytes ? bytes : 1));
}

void *mem_calloc(size_t n, size_t bytes)
{
    size_t total;
    if (must_fail() || !checked_mul(n, bytes, &total)) return NULL;
    return made(calloc(1, total ? total : 1));
}

void *mem_realloc(void *p, size_t bytes)
{
    if (must_fail()) return NULL;
    return p ? realloc(p, bytes ? bytes : 1) : made(malloc(bytes ? bytes : 1));
}

void *mem_resize_array(void *p, size_t n, size_t bytes)
{
    size_t total;
    return checked_mul(n, bytes, &total) ? mem_realloc(p, total) : NULL;
}

void mem_free(void *p)
{
    gone(p);
    free(p);
}

char *mem_strndup(const char *s, size_t n)
{
    char *copy = n == SIZE_MAX ? NULL : mem_alloc(n + 1);
    if (!copy) return NULL;
    memcpy(copy, s, n);
    copy[n] = 0;
    return copy;
}

char *mem_strdup(const char *s)
{
    return mem_strndup(s, strlen(s));
}

void *mem_map(size_t bytes)
{
    if (must_fail()) return NULL;
    void *p = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NULL;
    if (bytes >= (size_t)4 << 20) madvise(p, bytes, MADV_HUGEPAGE);
    return made(p);
}

void mem_unmap(void *p, size_t bytes)
{
    gone(p);
    if (p) munmap(p, bytes ? bytes : 1);
}

/* Value of a "Name:   123 kB" line of a /proc file, in bytes. */
static uint64_t proc_field(const char *path, const char *name)
{
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    char line[256];
    unsigned long long kb = 0;
    size_t n = strlen(name);
    while (fgets(line, sizeof line, f))
        if (strncmp(line, name, n) == 0 && line[n] == ':') {
            kb = strtoull(line + n + 1, NULL, 10);
            break;
        }
    fclose(f);
    return (uint64_t)kb * 1024;
}

uint64_t mem_peak_rss(void)
{
    return proc_field("/proc/self/status", "VmHWM");
}

uint64_t mem_available(void)
{
    const uint64_t pretended = atomic_load(&pretended_available);
    return pretended ? pretended : proc_field("/proc/meminfo", "MemAvailable");
}

void mem_pretend_available(uint64_t bytes)
{
    atomic_store(&pretended_available, bytes);
}
