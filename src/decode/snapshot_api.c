/* snapshot_api.c: snapshots and parking as the public interface shows them. */
#include "decode/park.h"
#include "decode/snapshot_file.h"

facet_status facet_snapshot_store(const facet_session *s, int slot, int32_t first, int32_t n, const char *label,
                                  facet_error *err)
{
    if (first < 0) return error_set(err, FACET_ERR_ARG, "first is %d, wanted 0 or more", first);
    if (first == 0) return snapshot_store(s, slot, n, label, err);
    return snapshot_store_thin(s, slot, first, n < 0 ? s->n_tokens : n, label, err);
}

facet_status facet_snapshot_restore(facet_session *s, int slot, const int *thin, int n_thin, facet_error *err)
{
    return n_thin > 0 ? snapshot_restore_chain(s, slot, thin, n_thin, err) : snapshot_restore(s, slot, err);
}

facet_status facet_snapshot_free(facet_engine *e, int slot, facet_error *err)
{
    return snapshot_free(e, slot, err);
}

int facet_snapshot_list(const facet_engine *e, facet_snapshot_info *out)
{
    return snapshot_list(e, out);
}

const int32_t *facet_snapshot_tokens(const facet_engine *e, int slot, int32_t *n)
{
    return snapshot_tokens(e, slot, n);
}

facet_status facet_snapshot_save(facet_engine *e, int slot, const char *path, facet_error *err)
{
    return snapshot_save(e, slot, path, err);
}

facet_status facet_snapshot_load(facet_engine *e, int slot, const char *path, facet_error *err)
{
    return snapshot_load(e, slot, path, err);
}

facet_status facet_snapshot_describe_file(const char *path, facet_snapshot_info *out, facet_error *err)
{
    return snapshot_file_describe(path, out, err);
}

/* ---- parking ---- */

facet_status facet_engine_park(facet_engine *e, unsigned parts, facet_park_kv kv, facet_park_report *out,
                               facet_error *err)
{
    if ((unsigned)kv > FACET_PARK_KV_DROP)
        return error_set(err, FACET_ERR_ARG, "kv is %d, wanted 0 to %d", (int)kv, (int)FACET_PARK_KV_DROP);
    return engine_park(e, parts, kv, out, err);
}

facet_status facet_engine_unpark(facet_engine *e, unsigned parts, facet_park_report *out, facet_error *err)
{
    return engine_unpark(e, parts, out, err);
}

unsigned facet_engine_parked(const facet_engine *e)
{
    return engine_parked(e);
}
