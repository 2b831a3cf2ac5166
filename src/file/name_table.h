/* name_table.h: a hash set of names, each with a number. The hash is keyed with a random secret, so that a file cannot
 * choose names that collide and make opening quadratic. */
#ifndef FACET_FILE_NAME_TABLE_H
#define FACET_FILE_NAME_TABLE_H

#include <stddef.h>
#include <stdint.h>

typedef struct name_slot {
    const char *s; /* borrowed; NULL marks a free slot */
    size_t n;
    uint64_t entry;
} name_slot;

/* Zero-initialise. */
typedef struct name_table {
    name_slot *slots;
    size_t n_slots, n_used; /* n_slots is 0 or a power of two, at least half of it free */
    uint64_t secret[2];
} name_table;

#define NAME_NONE UINT64_MAX

typedef enum name_result { NAME_ADDED, NAME_DUPLICATE, NAME_NO_MEMORY } name_result;

/* s must outlive the table; it is not NULL. */
name_result name_table_add(name_table *t, const char *s, size_t n, uint64_t entry);
/* The entry of a name, NAME_NONE when it is absent. */
uint64_t name_table_find(const name_table *t, const char *s, size_t n);
void name_table_free(name_table *t);

#endif
