#include "decode/cache_types.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

facet_status cache_type_read(const char *name, const char *option, kv_type *out, facet_error *err)
{
    if (kv_type_by_name(name, out)) return FACET_OK;
    return error_set(err, FACET_ERR_ARG, "%s '%s': supported are %s", option, name, kv_type_list());
}

#define PRESET(name, k, v, help) {name, k, v, help},
static const cache_preset presets[] = {CACHE_PRESETS(PRESET)};
#define PRESET_NAME(name, k, v, help) " " name

const cache_preset *cache_preset_at(int i)
{
    return i >= 0 && (size_t)i < sizeof presets / sizeof *presets ? &presets[i] : NULL;
}

static const cache_preset *find_preset(const char *name)
{
    for (int i = 0; cache_preset_at(i); i++)
        if (strcmp(name, presets[i].name) == 0) return &presets[i];
    return NULL;
}

facet_status cache_types_read(const facet_engine_params *p, kv_type *k, kv_type *v, facet_error *err)
{
    const cache_preset *preset = find_preset(p->cache_preset ? p->cache_preset : "exact");
    if (!preset)
        return error_set(err, FACET_ERR_ARG, "cache preset '%s': there are" CACHE_PRESETS(PRESET_NAME),
                         p->cache_preset);
    *k = preset->k;
    *v = preset->v;
    if (p->cache_type_k) FACET_TRY(cache_type_read(p->cache_type_k, "cache type of K", k, err));
    if (p->cache_type_v) FACET_TRY(cache_type_read(p->cache_type_v, "cache type of V", v, err));
    return FACET_OK;
}

enum { ENTRY_MAX = 64 };

typedef struct entry {
    int first, end; /* layers; all of them where a group is named */
    int group;      /* -1: any */
    kv_type k, v;
} entry;

static bool read_number(const char **p, int *out)
{
    char *end;
    if (**p < '0' || **p > '9') return false;
    const long n = strtol(*p, &end, 10);
    if (n > 1 << 20) return false;
    *out = (int)n;
    *p = end;
    return true;
}

static bool read_selector(const char *text, int n_layers, entry *e)
{
    *e = (entry){.end = n_layers, .group = -1};
    if (strcmp(text, "global") == 0) return e->group = KV_GROUP_GLOBAL, true;
    if (strcmp(text, "local") == 0) return e->group = KV_GROUP_LOCAL, true;
    if (!read_number(&text, &e->first)) return false;
    e->end = e->first;
    if (*text == '-' && (text++, !read_number(&text, &e->end))) return false;
    e->end++;
    return !*text && e->first < e->end && e->end <= n_layers;
}

static facet_status read_entry(const char *text, int n_layers, entry *e, facet_error *err)
{
    char room[ENTRY_MAX];
    snprintf(room, sizeof room, "%s", text);
    char *types = strchr(room, '=');
    if (types) *types++ = 0;
    if (!types || !read_selector(room, n_layers, e))
        return error_set(err, FACET_ERR_ARG,
                         "cache layers: '%s': wanted LAYER=K[/V] with a layer from 0 to %d (those that have a cache of "
                         "their own), a range 2-5, local or global",
                         text, n_layers - 1);
    char *v = strchr(types, '/');
    if (v) *v++ = 0;
    FACET_TRY(cache_type_read(types, "cache layers: type of K", &e->k, err));
    return cache_type_read(v ? v : types, "cache layers: type of V", &e->v, err);
}

facet_status cache_layers_apply(const char *list, kv_desc *d, facet_error *err)
{
    while (list && *list) {
        char text[ENTRY_MAX];
        entry e = {0};
        const size_t n = strcspn(list, ",");
        if (n >= sizeof text)
            return error_set(err, FACET_ERR_ARG, "cache layers: '%.40s...': an entry has %d characters at most", list,
                             ENTRY_MAX - 1);
        memcpy(text, list, n);
        text[n] = 0;
        FACET_TRY(read_entry(text, d->n_layers, &e, err));
        for (int l = e.first; l < e.end; l++) {
            if (e.group >= 0 && d->layers[l].group != e.group) continue;
            d->layers[l].k_type = e.k;
            d->layers[l].v_type = e.v;
        }
        list += n;
        list += *list == ',';
    }
    return FACET_OK;
}
