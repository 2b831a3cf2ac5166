/* mem.h: every allocation of the library. Test builds make the n-th one fail. */
#ifndef FACET_BASE_MEM_H
#define FACET_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All return NULL when memory is short; size 0 gives a unique pointer. mem_free accepts NULL. */
void *mem_alloc(size_t bytes);
void *mem_calloc(size_t n, size_t bytes); /* zeroed; NULL when n * bytes overflows */
void *mem_realloc(void *p, size_t bytes);
void *mem_resize_array(void *p, size_t n, size_t bytes); /* realloc to n * bytes, overflow-checked */
void mem_free(void *p);
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t n);

/* Zeroed memory from the operating system, 64-byte aligned, huge pages asked for when it is large;
 * touched only as it is used. Free with mem_unmap and the same size. */
void *mem_map(size_t bytes);
void mem_unmap(void *p, size_t bytes);

/* Fault injection: the n-th call from now (n >= 1) of any function above that makes memory fails once;
 * 0 switches it off. Returns the number of calls since the last use. For tests. */
uint64_t mem_fail_at(uint64_t n);

/* Blocks and mappings of the functions above that exist at this moment. For tests: what a failed call leaves behind. */
int64_t mem_n_live(void);

/* *out = a * b or a + b; false (out untouched) when it does not fit. */
static inline bool checked_mul(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}
static inline bool checked_add(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

/* Peak resident set of this process in bytes (VmHWM), 0 when unknown. */
uint64_t mem_peak_rss(void);
/* Physical memory that new allocations can take without swapping, in bytes (MemAvailable), 0 when unknown. */
uint64_t mem_available(void);
/* Makes mem_available() answer this number; 0 = the truth again. For tests. */
void mem_pretend_available(uint64_t bytes);

#endif
