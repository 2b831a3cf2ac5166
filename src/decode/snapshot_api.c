/* snapshot_api.c: snapshots and parking as the public interface shows them. */
#include <string.h>

#include "decode/park.h"
#include "decode/snapshot_file.h"

_Static_assert((int)FACET_SNAPSHOT_SLOTS == (int)SNAPSHOT_SLOTS && (int)FACET_SNAPSHOT_LABEL == (int)SNAPSHOT_LABEL_MAX,
               "facet.h and snapshot.h agree");
_Static_assert((int)FACET_PART_MTP == (int)PARK_MTP && (int)FACET_PART_DFLASH == (int)PARK_DFLASH &&
                   (int)FACET_PART_TARGET == (int)PARK_TARGET && (int)FACET_PARK_KV_DROP == (int)PARK_KV_DROP,
               "facet.h and park.h agree");

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

static facet_snapshot_info shown(const snapshot_info *in)
{
    facet_snapshot_info out = {
        .slot = in->slot, .first = in->first, .n_tokens = in->n_tokens, .bytes = in->bytes, .own_bytes = in->own_bytes};
    memcpy(out.label, in->label, sizeof out.label);
    return out;
}

int facet_snapshot_list(const facet_engine *e, facet_snapshot_info *out)
{
    snapshot_info list[SNAPSHOT_SLOTS];
    const int n = snapshot_list(e, out ? list : NULL);
    for (int i = 0; out && i < n; i++) out[i] = shown(&list[i]);
    return n;
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
    snapshot_info info;
    FACET_TRY(snapshot_file_describe(path, &info, err));
    *out = shown(&info);
    return FACET_OK;
}

/* ---- parking ---- */

static facet_park_report told(const park_report *r)
{
    return (facet_park_report){.weights = r->weights, .kv = r->kv, .compute = r->compute, .host = r->host, .ms = r->ms};
}

facet_status facet_engine_park(facet_engine *e, unsigned parts, facet_park_kv kv, facet_park_report *out,
                               facet_error *err)
{
    park_report r;
    if ((unsigned)kv > FACET_PARK_KV_DROP)
        return error_set(err, FACET_ERR_ARG, "kv is %d, wanted 0 to %d", (int)kv, (int)FACET_PARK_KV_DROP);
    FACET_TRY(engine_park(e, parts, (park_kv)kv, &r, err));
    if (out) *out = told(&r);
    return FACET_OK;
}

facet_status facet_engine_unpark(facet_engine *e, unsigned parts, facet_park_report *out, facet_error *err)
{
    park_report r;
    FACET_TRY(engine_unpark(e, parts, &r, err));
    if (out) *out = told(&r);
    return FACET_OK;
}

unsigned facet_engine_parked(const facet_engine *e)
{
    return engine_parked(e);
}
