#include "decode/park.h"

#include "base/clock.h"
#include "base/mem.h"
#include "decode/engine_draft.h"
#include "decode/prefix.h"
#include "decode/snapshot.h"
#include "model/identity.h"

/* ---- pages in host memory ---- */

static void free_away(struct parked_pages *p)
{
    mem_free(p->pages);
    mem_unmap(p->bytes, p->n_bytes);
    *p = (struct parked_pages){0};
}

void engine_parking_close(facet_engine *e)
{
    for (int g = 0; g < KV_MAX_GROUPS; g++) free_away(&e->parking.group[g]);
}

/* Copies the pages in use to host memory. */
static facet_status copy_away(facet_engine *e, int group, facet_error *err)
{
    const int32_t n_pages = e->kv.groups[group].n_pages;
    struct parked_pages p = {.n = n_pages - kv_pool_free_pages(e->pool, group)};
    if (!checked_mul((size_t)p.n, kv_group_page_bytes(&e->kv, group), &p.n_bytes))
        return error_memory(err, "parked pages", SIZE_MAX);
    p.pages = mem_alloc((size_t)p.n * sizeof *p.pages);
    p.bytes = mem_map(p.n_bytes);
    facet_status status = p.pages && p.bytes ? FACET_OK : error_memory(err, "parked pages", p.n_bytes);
    for (int32_t page = 0, i = 0; page < n_pages && status == FACET_OK; page++)
        if (kv_pool_refs(e->pool, group, page) > 0) p.pages[i++] = page;
    if (status == FACET_OK) status = e->be->ops->kv_read(e->be, group, p.pages, p.n, p.bytes, err);
    if (status == FACET_OK)
        e->parking.group[group] = p;
    else
        free_away(&p);
    return status;
}

static facet_status bring_back(facet_engine *e, int group, facet_error *err)
{
    struct parked_pages *p = &e->parking.group[group];
    if (!p->is_away) return FACET_OK;
    FACET_TRY(e->be->ops->kv_renew(e->be, group, err));
    facet_status status = FACET_OK;
    if (p->pages) status = e->be->ops->kv_write(e->be, group, p->pages, p->n, p->bytes, err);
    if (status != FACET_OK) e->be->ops->kv_drop(e->be, group);
    return status;
}

/* ---- parts ---- */

static unsigned parts_present(const facet_engine *e)
{
    return PARK_TARGET | (e->mtp ? PARK_MTP : 0u) | (e->dflash ? PARK_DFLASH : 0u);
}

static unsigned part_of_group(int group)
{
    return group == KV_GROUP_DRAFT ? PARK_DFLASH : PARK_TARGET;
}

static int weights_of(const facet_engine *e, unsigned part)
{
    return part == PARK_TARGET ? 0 : part == PARK_MTP ? e->mtp_part : e->dflash_part;
}

static facet_status check_parts(unsigned parts, facet_error *err)
{
    if (parts && !(parts & ~(unsigned)PARK_ALL)) return FACET_OK;
    return error_set(err, FACET_ERR_ARG, "parts to park: %u, wanted a sum of 1 (MTP), 2 (DFlash) and 4 (target)",
                     parts);
}

/* What the backend holds; host pages in `host`. */
static park_report account(const facet_engine *e)
{
    backend_info info;
    e->be->ops->info(e->be, &info);
    park_report r = {.weights = info.weight_bytes, .kv = info.kv_bytes, .compute = info.compute_bytes};
    for (int g = 0; g < KV_MAX_GROUPS; g++) r.host += e->parking.group[g].n_bytes;
    return r;
}

static void report(park_report a, park_report b, uint64_t t0, park_report *out)
{
    if (!out) return;
    *out = (park_report){.weights = a.weights - b.weights,
                         .kv = a.kv - b.kv,
                         .compute = a.compute - b.compute,
                         .host = b.host,
                         .ms = (double)(clock_ns() - t0) * 1e-6};
}

/* Of each part's file, as it is now. */
static void identify(const facet_engine *e, unsigned parts, uint64_t id[WEIGHT_MAX_PARTS])
{
    if (parts & PARK_TARGET) id[0] = identity_of_model(e->model);
    if (parts & PARK_MTP) id[e->mtp_part] = identity_of_drafter(e->mtp);
    if (parts & PARK_DFLASH) id[e->dflash_part] = identity_of_drafter(e->dflash);
}

/* ---- parking ---- */

/* Pages that nobody holds any more need no place. */
static void forget_texts(facet_engine *e, unsigned parts)
{
    if (parts & PARK_TARGET) {
        for (facet_session *s = e->sessions; s; s = s->next) session_clear(s);
        snapshot_free_all(e);
        prefix_clear(e);
        e->n_drops++;
        return;
    }
    for (facet_session *s = e->sessions; s; s = s->next) {
        draft_feed_reset(&s->feed, (draft_gap){0, s->n_tokens}, s->n_tokens);
        s->mark_gap = (draft_gap){0, s->n_mark};
    }
    snapshot_forget_drafts(e);
    prefix_forget_drafts(e);
}

static void give_pages(facet_engine *e, unsigned parts)
{
    for (int g = 0; g < e->kv.n_groups; g++) {
        if (!(part_of_group(g) & parts)) continue;
        e->be->ops->kv_drop(e->be, g);
        e->parking.group[g].is_away = true;
    }
}

static facet_status copy_pages(facet_engine *e, unsigned parts, facet_error *err)
{
    facet_status status = FACET_OK;
    for (int g = 0; g < e->kv.n_groups && status == FACET_OK; g++)
        if (part_of_group(g) & parts) status = copy_away(e, g, err);
    for (int g = 0; g < e->kv.n_groups && status != FACET_OK; g++)
        if (part_of_group(g) & parts) free_away(&e->parking.group[g]);
    return status;
}

static void unload(facet_engine *e, unsigned parts)
{
    for (unsigned part = PARK_MTP; part <= PARK_TARGET; part <<= 1)
        if (part & parts) e->be->ops->unload(e->be, weights_of(e, part));
}

facet_status engine_park(facet_engine *e, unsigned parts, park_kv kv, park_report *out, facet_error *err)
{
    const uint64_t t0 = clock_ns();
    FACET_TRY(check_parts(parts, err));
    if ((unsigned)kv > FACET_PARK_KV_DROP)
        return error_set(err, FACET_ERR_ARG, "rule for parked pages: %d, wanted 0 to %d", (int)kv,
                         (int)FACET_PARK_KV_DROP);
    parts &= parts_present(e) & ~e->parking.parked;
    const park_report before = account(e);
    if (kv == FACET_PARK_KV_HOST) FACET_TRY(copy_pages(e, parts, err));
    identify(e, parts, e->parking.id);
    if (parts & PARK_TARGET)
        engine_release(e);
    else
        engine_draft_release(e, parts);
    unload(e, parts);
    if (kv == FACET_PARK_KV_DROP && (parts & (PARK_TARGET | PARK_DFLASH))) forget_texts(e, parts);
    if (kv != FACET_PARK_KV_KEEP) give_pages(e, parts);
    if (parts & PARK_TARGET) e->n_runs++; /* its outputs are gone */
    e->parking.parked |= parts;
    report(before, account(e), t0, out);
    return FACET_OK;
}

/* ---- unparking ---- */

/* A file that somebody wrote to meanwhile holds another model. */
static facet_status check_files(const facet_engine *e, unsigned parts, facet_error *err)
{
    uint64_t now[WEIGHT_MAX_PARTS];
    identify(e, parts, now);
    for (unsigned part = PARK_MTP; part <= PARK_TARGET; part <<= 1) {
        const int i = weights_of(e, part);
        if (!(part & parts) || now[i] == e->parking.id[i]) continue;
        const char *path = part == PARK_TARGET ? e->model->file->path
                           : part == PARK_MTP  ? e->mtp->path
                                               : e->dflash->path;
        return error_set(err, FACET_ERR_IO, "%s: the file was changed while its model was parked", path);
    }
    return FACET_OK;
}

static facet_status load_parts(facet_engine *e, unsigned parts, facet_error *err)
{
    FACET_TRY(check_files(e, parts, err));
    for (unsigned part = PARK_MTP; part <= PARK_TARGET; part <<= 1)
        if (part & parts) FACET_TRY(e->be->ops->reload(e->be, weights_of(e, part), err));
    for (int g = 0; g < e->kv.n_groups; g++)
        if (part_of_group(g) & parts) FACET_TRY(bring_back(e, g, err));
    if (parts & PARK_TARGET) return engine_compile(e, err);
    if (e->parking.parked & PARK_TARGET) return FACET_OK; /* drafters wait for it */
    if (parts & PARK_MTP) FACET_TRY(engine_draft_compile(e, PARK_MTP, err));
    return parts & PARK_DFLASH ? engine_draft_compile(e, PARK_DFLASH, err) : FACET_OK;
}

static void fall_back(facet_engine *e, unsigned parts)
{
    e->parking.parked |= parts;
    if (parts & PARK_TARGET)
        engine_release(e);
    else
        engine_draft_release(e, parts);
    unload(e, parts);
    for (int g = 0; g < e->kv.n_groups; g++)
        if ((part_of_group(g) & parts) && e->parking.group[g].is_away) e->be->ops->kv_drop(e->be, g);
}

facet_status engine_unpark(facet_engine *e, unsigned parts, park_report *out, facet_error *err)
{
    const uint64_t t0 = clock_ns();
    FACET_TRY(check_parts(parts, err));
    parts &= e->parking.parked;
    const park_report before = account(e);
    e->parking.parked &= ~parts;
    const facet_status status = load_parts(e, parts, err);
    if (status != FACET_OK) {
        fall_back(e, parts);
        return status;
    }
    for (int g = 0; g < e->kv.n_groups; g++)
        if (part_of_group(g) & parts) free_away(&e->parking.group[g]);
    report(account(e), before, t0, out);
    if (out) out->host = before.host - account(e).host;
    return FACET_OK;
}

unsigned engine_parked(const facet_engine *e)
{
    return e->parking.parked;
}

void engine_set_auto_unpark(facet_engine *e, bool is_on)
{
    e->parking.is_auto = is_on;
}

static const char *part_name(unsigned part)
{
    return part & PARK_TARGET ? "target" : part & PARK_MTP ? "MTP drafter" : "DFlash drafter";
}

facet_status engine_need(facet_engine *e, unsigned parts, facet_error *err)
{
    parts &= e->parking.parked;
    if (!parts) return FACET_OK;
    if (e->parking.is_auto) return engine_unpark(e, parts, NULL, err);
    return error_set(err, FACET_ERR_PARKED, "the %s is parked: unpark it first", part_name(parts));
}

bool engine_has_drafter(const facet_engine *e, unsigned part)
{
    return (part == PARK_MTP ? e->mtp : e->dflash) && !(e->parking.parked & (part | PARK_TARGET));
}
