/* snapshot_header.h: the first bytes of a snapshot file, and whether they are in order. */
#ifndef FACET_DECODE_SNAPSHOT_HEADER_H
#define FACET_DECODE_SNAPSHOT_HEADER_H

#include "decode/snapshot.h"

enum { SNAPSHOT_VERSION = 1 };

typedef struct snapshot_group {
    int32_t window;
    int32_t first_page, n_pages; /* of the pages that hold the text, in order: those that follow, to the last */
    uint32_t zero;
    uint64_t page_bytes;
} snapshot_group;

/* The file's bytes, in this order and without padding (asserted in snapshot_header.c). */
typedef struct snapshot_header {
    char magic[8]; /* FACETSNP */
    uint32_t version, header_bytes;
    uint64_t file_bytes;
    uint64_t model, drafter; /* identity.h; drafter 0: made without DFlash */
    char page_layout[16];    /* backend_info */
    uint32_t page_len, n_vocab;
    int32_t first, n_tokens;
    int32_t gap_begin, gap_end; /* session.h, draft_gap */
    uint32_t n_groups, n_layers;
    char label[SNAPSHOT_LABEL_MAX + 1]; /* the rest of it zeroes */
    snapshot_group groups[KV_MAX_GROUPS];
    uint8_t reserved[88]; /* zeroes */
    uint64_t checksum;    /* of all bytes before it */
} snapshot_header;

enum { SNAPSHOT_K_REBUILT = 0xffff }; /* in place of a type: the layer's pages hold V alone */

typedef struct snapshot_layer {
    uint32_t group, n_kv_heads, head_dim;
    uint16_t k_type, v_type;
} snapshot_layer;

/* Everything that can be said without an engine: magic, version, checksum, the range of every field, and that the parts
 * add up to the file's size. Afterwards no product of its numbers overflows or exceeds the file. Messages begin with
 * `path`. FACET_ERR_FORMAT, or FACET_ERR_UNSUPPORTED for another version. */
facet_status snapshot_header_check(const snapshot_header *h, uint64_t size, const char *path, facet_error *err);
/* Header, layers, tokens, pages and checksum. */
uint64_t snapshot_header_file_bytes(const snapshot_header *h);

#endif
