/* common.c: opening models for the commands, colours, prompts. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file_map.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "decode/cache_types.h"

static const char bundled_name[] = "facet-small-Q4_K_M.gguf";

/* Installed data first, then the source tree that this program was built from. */
static const char *bundled_model(void)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/models/%s", FACET_DATA_DIR, bundled_name);
    if (access(path, R_OK) == 0) return path;
    snprintf(path, sizeof path, "%s/models/%s", FACET_SOURCE_DIR, bundled_name);
    return access(path, R_OK) == 0 ? path : NULL;
}

const char *cli_model_path(const cli_options *o)
{
    return o->model ? o->model : bundled_model();
}

void cli_cache_types(const facet_engine_params *p, const char *name[2])
{
    kv_type k = KV_F16, v = KV_F16;
    (void)cache_types_read(p, &k, &v, NULL);
    name[0] = kv_type_get(k)->name;
    name[1] = kv_type_get(v)->name;
}

facet_status cli_open_model(const cli_options *o, facet_model **out, facet_error *err)
{
    const char *path = cli_model_path(o);
    if (!path) {
        err->status = FACET_ERR_ARG;
        snprintf(err->message, sizeof err->message,
                 "no model: give one with -m FILE or $FACET_MODEL (the bundled model is not installed)");
        return FACET_ERR_ARG;
    }
    if (!o->model)
        fprintf(stderr, "facet: no -m given: using the bundled small model (a toy; see the README for real ones)\n");
    return facet_model_open(path, out, err);
}

/* That the method has its drafter, before anything is loaded. */
static facet_status check_method(const cli_options *o, facet_error *err)
{
    const facet_spec_method method = o->generate.speculation.method;
    if (method != FACET_SPEC_MTP && method != FACET_SPEC_DFLASH) return FACET_OK;
    const char *wanted = method == FACET_SPEC_MTP ? "mtp" : "dflash";
    for (int i = 0; i < o->engine.n_drafters; i++)
        if (strcmp(facet_drafter_kind(o->drafters[i]), wanted) == 0) return FACET_OK;
    if (o->n_drafts == 0)
        return error_set(err, FACET_ERR_ARG, "--spec %s wants a drafter of that kind: give one with -md FILE", wanted);
    return error_set(err, FACET_ERR_ARG, "--spec %s wants a drafter of that kind, and %s is of kind %s", wanted,
                     o->draft[0], facet_drafter_kind(o->drafters[0]));
}

static facet_status open_drafters(cli_options *o, const facet_model *m, facet_error *err)
{
    facet_speculation *s = &o->generate.speculation;
    if (!o->has_spec) s->method = o->n_drafts ? FACET_SPEC_AUTO : FACET_SPEC_NONE;
    if (!o->keeps_drafters && (s->method == FACET_SPEC_NONE || s->method == FACET_SPEC_NGRAM)) return FACET_OK;
    for (int i = 0; i < o->n_drafts; i++) {
        facet_status status = facet_drafter_open(o->draft[i], m, &o->drafters[i], err);
        if (status != FACET_OK) return status;
        o->engine.n_drafters = i + 1;
    }
    o->engine.drafters = o->drafters;
    return check_method(o, err);
}

facet_status cli_open_engine(cli_options *o, facet_model *m, facet_engine **out, facet_error *err)
{
    const facet_status status = open_drafters(o, m, err);
    return status == FACET_OK ? facet_engine_open(m, &o->engine, out, err) : status;
}

void cli_close_engine(cli_options *o, facet_engine *e)
{
    facet_engine_close(e);
    for (int i = 0; i < CLI_MAX_DRAFTERS; i++) {
        facet_drafter_close(o->drafters[i]);
        o->drafters[i] = NULL;
    }
}

bool cli_use_color(int fd)
{
    const char *no_color = getenv("NO_COLOR"), *terminal = getenv("TERM");
    if (no_color && *no_color) return false; /* https://no-color.org */
    return isatty(fd) && terminal && *terminal && strcmp(terminal, "dumb") != 0;
}

facet_status cli_read_prompt(const char *argument, const char *file, char **text, size_t *n, facet_error *err)
{
    if (argument) {
        *text = mem_strdup(argument);
        *n = strlen(argument);
        return *text ? FACET_OK : error_memory(err, "the prompt", *n);
    }
    return file_read_all(file ? file : "-", (size_t)1 << 30, text, n, err);
}
