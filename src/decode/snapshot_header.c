#include "decode/snapshot_header.h"

#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"

_Static_assert(sizeof(snapshot_group) == 24 && sizeof(snapshot_layer) == 16, "records of a snapshot file");
_Static_assert(sizeof(snapshot_header) == 320, "the header of a snapshot file");

/* Far above what any engine holds, far below what overflows. */
#define MAX_TOKENS (1 << 24)
#define MAX_LAYERS_IN_FILE (1 << 12)
#define MAX_PAGE_BYTES ((uint64_t)1 << 32)

uint64_t snapshot_header_file_bytes(const snapshot_header *h)
{
    uint64_t n = sizeof *h + (uint64_t)h->n_layers * sizeof(snapshot_layer) + (uint64_t)h->n_tokens * sizeof(int32_t) +
                 sizeof h->checksum;
    for (uint32_t g = 0; g < h->n_groups; g++) n += (uint64_t)h->groups[g].n_pages * h->groups[g].page_bytes;
    return n;
}

static facet_status bad(const char *path, const char *field, int64_t got, int64_t least, int64_t most, facet_error *err)
{
    return error_set(err, FACET_ERR_FORMAT, "%s: snapshot header: %s is %lld, wanted %lld to %lld", path, field,
                     (long long)got, (long long)least, (long long)most);
}

static facet_status check_group(const snapshot_header *h, int g, const char *path, facet_error *err)
{
    const snapshot_group *s = &h->groups[g];
    const int32_t end = (h->n_tokens + KV_PAGE_LEN - 1) / KV_PAGE_LEN;
    if (s->window < 0 || s->window > MAX_TOKENS) return bad(path, "window", s->window, 0, MAX_TOKENS, err);
    if (s->first_page < 0 || s->first_page > end) return bad(path, "first_page", s->first_page, 0, end, err);
    if (s->n_pages != end - s->first_page)
        return bad(path, "n_pages", s->n_pages, end - s->first_page, end - s->first_page, err);
    if (s->page_bytes < 1 || s->page_bytes > MAX_PAGE_BYTES)
        return bad(path, "page_bytes", (int64_t)s->page_bytes, 1, (int64_t)MAX_PAGE_BYTES, err);
    return s->zero == 0 ? FACET_OK : bad(path, "a reserved field", s->zero, 0, 0, err);
}

static facet_status check_texts(const snapshot_header *h, const char *path, facet_error *err)
{
    static const snapshot_header zeroes;
    if (!memchr(h->label, 0, sizeof h->label) || !utf8_valid(h->label, strlen(h->label)))
        return error_set(err, FACET_ERR_FORMAT, "%s: snapshot header: the label is not a text", path);
    if (!memchr(h->page_layout, 0, sizeof h->page_layout))
        return error_set(err, FACET_ERR_FORMAT, "%s: snapshot header: the page layout is not a text", path);
    if (memcmp(h->reserved, zeroes.reserved, sizeof h->reserved) != 0)
        return error_set(err, FACET_ERR_FORMAT, "%s: snapshot header: a reserved field is not zero", path);
    return FACET_OK;
}

static facet_status check_numbers(const snapshot_header *h, const char *path, facet_error *err)
{
    if (h->header_bytes != sizeof *h) return bad(path, "header_bytes", h->header_bytes, sizeof *h, sizeof *h, err);
    if (h->page_len != KV_PAGE_LEN) return bad(path, "page_len", h->page_len, KV_PAGE_LEN, KV_PAGE_LEN, err);
    if (h->n_tokens < 1 || h->n_tokens > MAX_TOKENS) return bad(path, "n_tokens", h->n_tokens, 1, MAX_TOKENS, err);
    if (h->first < 0 || h->first >= h->n_tokens) return bad(path, "first", h->first, 0, h->n_tokens - 1, err);
    if (h->gap_begin < 0 || h->gap_begin > h->n_tokens)
        return bad(path, "gap_begin", h->gap_begin, 0, h->n_tokens, err);
    if (h->gap_end < h->gap_begin || h->gap_end > h->n_tokens)
        return bad(path, "gap_end", h->gap_end, h->gap_begin, h->n_tokens, err);
    if (h->n_groups <= KV_GROUP_LOCAL || h->n_groups > KV_MAX_GROUPS)
        return bad(path, "n_groups", h->n_groups, KV_GROUP_LOCAL + 1, KV_MAX_GROUPS, err);
    if (h->n_layers < 1 || h->n_layers > MAX_LAYERS_IN_FILE)
        return bad(path, "n_layers", h->n_layers, 1, MAX_LAYERS_IN_FILE, err);
    return FACET_OK;
}

facet_status snapshot_header_check(const snapshot_header *h, uint64_t size, const char *path, facet_error *err)
{
    if (memcmp(h->magic, "FACETSNP", sizeof h->magic) != 0)
        return error_set(err, FACET_ERR_FORMAT, "%s: not a snapshot: it does not begin with FACETSNP", path);
    if (h->version != SNAPSHOT_VERSION)
        return error_set(err, FACET_ERR_UNSUPPORTED, "%s: a snapshot of version %u: this program reads version %d",
                         path, h->version, SNAPSHOT_VERSION);
    const uint64_t sum = hash64_of(h, offsetof(snapshot_header, checksum));
    if (sum != h->checksum)
        return error_set(err, FACET_ERR_FORMAT,
                         "%s: the header's checksum is %016llx, its content has %016llx: damaged", path,
                         (unsigned long long)h->checksum, (unsigned long long)sum);
    FACET_TRY(check_numbers(h, path, err));
    FACET_TRY(check_texts(h, path, err));
    for (uint32_t g = 0; g < h->n_groups; g++) FACET_TRY(check_group(h, (int)g, path, err));
    if (h->file_bytes != snapshot_header_file_bytes(h) || h->file_bytes != size)
        return error_set(err, FACET_ERR_FORMAT, "%s: the file has %llu bytes, the snapshot %llu: %s", path,
                         (unsigned long long)size, (unsigned long long)h->file_bytes,
                         size < h->file_bytes ? "cut off" : "damaged");
    return FACET_OK;
}
