#include "model/drafter.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "model/bind.h"
#include "model/convert.h"
#include "model/dflash.h"
#include "model/mtp.h"

const char *drafter_kind_name(drafter_kind k)
{
    return k == DRAFTER_MTP ? "mtp" : "dflash";
}

/* ---- files ---- */

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static facet_status open_file(drafter *d, facet_error *err)
{
    if (!is_folder(d->path)) return gguf_open(d->path, &d->file, err);
    FACET_TRY(convert_drafter_in_memory(d->path, &d->image, &d->image_bytes, err));
    return gguf_open_memory(d->image, d->image_bytes, d->path, &d->file, err);
}

static facet_status find_kind(drafter *d, facet_error *err)
{
    gguf_str arch = {0};
    FACET_TRY(gguf_get_str(d->file, "general.architecture", true, &arch, err));
    d->kind = dflash_is_architecture(arch) ? DRAFTER_DFLASH : DRAFTER_MTP;
    if (dflash_is_architecture(arch) || mtp_is_architecture(arch)) return FACET_OK;
    return error_set(err, FACET_ERR_UNSUPPORTED,
                     "%s: general.architecture is '%.*s'; drafters are gemma4-assistant, gemma4_assistant, dflash and "
                     "gemma4-dflash-draft",
                     d->path, (int)(arch.n < 64 ? arch.n : 64), arch.s);
}

/* ---- vocabulary ---- */

static facet_status compare_tokens(const gguf_file *f, const gguf_kv *ours, const gguf_kv *theirs, gguf_str *a,
                                   gguf_str *b, facet_error *err)
{
    if (!gguf_array_strings(ours, a) || !gguf_array_strings(theirs, b))
        return error_set(err, FACET_ERR_FORMAT, "%s: tokenizer.ggml.tokens is no list of strings", f->path);
    for (uint64_t i = 0; i < ours->count; i++)
        if (a[i].n != b[i].n || memcmp(a[i].s, b[i].s, a[i].n) != 0)
            return error_set(err, FACET_ERR_UNSUPPORTED,
                             "%s: tokenizer.ggml.tokens[%llu] is '%.*s', the target's is '%.*s': this drafter is of "
                             "another vocabulary",
                             f->path, (unsigned long long)i, (int)(a[i].n < 40 ? a[i].n : 40), a[i].s,
                             (int)(b[i].n < 40 ? b[i].n : 40), b[i].s);
    return FACET_OK;
}

/* Files that bring tokens must have the target's. */
static facet_status check_vocabulary(const gguf_file *f, const facet_model *target, facet_error *err)
{
    const gguf_kv *ours = gguf_find(f, "tokenizer.ggml.tokens"),
                  *theirs = gguf_find(target->file, "tokenizer.ggml.tokens");
    if (!ours || !theirs) return FACET_OK;
    if (ours->count != target->h.n_vocab)
        return error_set(err, FACET_ERR_UNSUPPORTED, "%s: tokenizer.ggml.tokens has %llu entries, the target has %u",
                         f->path, (unsigned long long)ours->count, target->h.n_vocab);
    gguf_str *a = mem_calloc((size_t)ours->count, sizeof *a), *b = mem_calloc((size_t)theirs->count, sizeof *b);
    facet_status status = a && b && ours->count == theirs->count
                              ? compare_tokens(f, ours, theirs, a, b, err)
                              : error_memory(err, "the vocabularies", (size_t)ours->count * sizeof *a);
    mem_free(a);
    mem_free(b);
    return status;
}

/* ---- tensors ---- */

static bool is_factor_of_bound(const weights *w, const char *name)
{
    const size_t n = strlen(name), end = sizeof ".scale" - 1;
    if (n < end || strcmp(name + n - end, ".scale") != 0) return false;
    char matrix[80];
    snprintf(matrix, sizeof matrix, "%.*s.weight", (int)(n - end), name);
    for (int i = 0; i < w->n; i++)
        if (strcmp(w->list[i].name, matrix) == 0) return true;
    return false;
}

static bool is_used(const drafter *d, const char *name)
{
    static const char *const heads[] = {"masked_embd_centroids.weight", "mtp.centroids.weight", "masked_embd_ordering",
                                        "mtp.token_ordering.weight"}; /* left alone where the head is dense */
    for (size_t i = 0; d->kind == DRAFTER_MTP && i < sizeof heads / sizeof *heads; i++)
        if (strcmp(name, heads[i]) == 0) return true;
    for (int i = 0; i < d->w.n; i++)
        if (strcmp(d->w.list[i].name, name) == 0) return true;
    return is_factor_of_bound(&d->w, name);
}

/* A tensor without a role means another kind of model: dropping it would draft nonsense. */
static facet_status check_all_used(const drafter *d, facet_error *err)
{
    for (uint64_t i = 0; i < d->file->n_tensors; i++) {
        const char *name = d->file->tensors[i].name;
        if (is_used(d, name)) continue;
        if (strcmp(name, "d2t") == 0)
            return error_set(err, FACET_ERR_UNSUPPORTED,
                             "%s: tensor d2t: drafters with a vocabulary of their own are not supported", d->path);
        return error_set(err, FACET_ERR_UNSUPPORTED, "%s: tensor %s has no role in %s", d->path, name,
                         d->kind == DRAFTER_MTP
                             ? "an MTP assistant"
                             : "a DFlash drafter (it belongs to a successor, DSpark or DFlash2, or to another family)");
    }
    return FACET_OK;
}

/* ---- open, close ---- */

static facet_status open_into(drafter *d, const facet_model *target, facet_error *err)
{
    FACET_TRY(open_file(d, err));
    FACET_TRY(find_kind(d, err));
    FACET_TRY(d->kind == DRAFTER_MTP ? mtp_read(d, target, err) : dflash_read(d, target, err));
    for (int i = 0; i < d->w.n && d->image; i++) d->w.list[i].map = NULL; /* no pages of a file to let go */
    FACET_TRY(check_all_used(d, err));
    return check_vocabulary(d->file, target, err);
}

facet_status drafter_open(const char *path, const facet_model *target, drafter **out, facet_error *err)
{
    drafter *d = mem_calloc(1, sizeof *d);
    if (!d) return error_memory(err, "a drafter", sizeof *d);
    d->path = mem_strndup(path, strlen(path));
    facet_status status = d->path ? open_into(d, target, err) : error_memory(err, "a path", strlen(path));
    if (status != FACET_OK) {
        drafter_close(d);
        return status;
    }
    *out = d;
    return FACET_OK;
}

void drafter_close(drafter *d)
{
    if (!d) return;
    if (d->kind == DRAFTER_MTP) mem_free(d->mtp.order);
    weights_free(&d->w);
    gguf_close(d->file);
    mem_unmap(d->image, d->image_bytes);
    mem_free(d->path);
    mem_free(d);
}

/* ---- beside the target ---- */

static facet_status append_layers(drafter *d, kv_type k, kv_type v, int draft_ctx, kv_desc *desc, facet_error *err)
{
    const dflash_hparams *p = &d->dflash;
    if (draft_ctx < 1 || draft_ctx > 1 << 24)
        return error_set(err, FACET_ERR_ARG, "draft context of %d tokens: wanted 1 to %d", draft_ctx, 1 << 24);
    const size_t n = (size_t)desc->n_layers + (size_t)p->n_layers;
    kv_layer_desc *layers = mem_resize_array(desc->layers, n, sizeof *layers);
    if (!layers) return error_memory(err, "the cache layout", n * sizeof *layers);
    desc->layers = layers;
    d->first_kv_layer = desc->n_layers;
    d->draft_ctx = draft_ctx;
    for (int l = 0; l < p->n_layers; l++)
        layers[desc->n_layers++] = (kv_layer_desc){.group = KV_GROUP_DRAFT,
                                                   .n_kv_heads = p->layer[l].n_kv_heads,
                                                   .head_dim = p->head_dim,
                                                   .k_type = k,
                                                   .v_type = v};
    desc->n_groups = KV_GROUP_DRAFT + 1;
    desc->groups[KV_GROUP_DRAFT] = (kv_group_desc){.window = draft_ctx};
    return FACET_OK;
}

facet_status drafter_extend_kv(drafter *d, const hparams *h, kv_type k, kv_type v, int draft_ctx, kv_desc *desc,
                               facet_error *err)
{
    if (d->kind == DRAFTER_DFLASH) return append_layers(d, k, v, draft_ctx, desc, err);
    for (int l = 0; l < d->mtp.n_layers; l++) {
        kv_layer_desc *donor = &desc->layers[gemma4_kv_layer(h, d->mtp.layer[l].donor)];
        donor->k_type = kv_type_at_least(donor->k_type, KV_Q8_0);
        donor->v_type = kv_type_at_least(donor->v_type, KV_Q8_0);
    }
    return FACET_OK;
}

facet_status drafter_join_weights(const facet_model *target, drafter *const *drafters, int n, weight **out,
                                  int *n_weights, facet_error *err)
{
    int total = target->w.n;
    for (int i = 0; i < n; i++) total += drafters[i]->w.n;
    weight *list = mem_resize_array(NULL, (size_t)total, sizeof *list);
    if (!list) return error_memory(err, "the weight table", (size_t)total * sizeof *list);
    memcpy(list, target->w.list, (size_t)target->w.n * sizeof *list);
    int at = target->w.n;
    for (int i = 0; i < n; i++) {
        drafters[i]->first_weight = at;
        memcpy(list + at, drafters[i]->w.list, (size_t)drafters[i]->w.n * sizeof *list);
        for (int j = 0; j < drafters[i]->w.n; j++) list[at + j].part = i + 1;
        at += drafters[i]->w.n;
    }
    *out = list;
    *n_weights = total;
    return FACET_OK;
}

facet_status facet_drafter_open(const char *path, const facet_model *target, facet_drafter **out, facet_error *err)
{
    return drafter_open(path, target, out, err);
}

void facet_drafter_close(facet_drafter *d)
{
    drafter_close(d);
}

const char *facet_drafter_kind(const facet_drafter *d)
{
    return drafter_kind_name(d->kind);
}
