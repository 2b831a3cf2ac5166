/* common.c: opening models for the commands, progress, interruption, prompts. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file_map.h"
#include "base/mem.h"
#include "cli/cli.h"

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

facet_status cli_open_engine(const cli_options *o, facet_model *m, facet_engine **out, facet_error *err)
{
    return facet_engine_open(m, &o->engine, out, err);
}

bool cli_progress(void *ud, const char *phase, uint64_t done, uint64_t total)
{
    (void)ud;
    static int is_terminal = -1, last = -1;
    if (is_terminal < 0) is_terminal = isatty(2);
    if (!is_terminal || !total) return true;
    const int percent = (int)(done * 100 / total);
    if (percent == last) return true;
    last = percent;
    fprintf(stderr, "\r%s [%.*s%*s] %3d %%%s", phase, percent / 4, "#########################", 25 - percent / 4, "",
            percent, done >= total ? "\r\033[K" : "");
    return true;
}

static facet_session *volatile watched;
static volatile sig_atomic_t interrupts;

static void on_interrupt(int sig)
{
    (void)sig;
    if (++interrupts > 1 || !watched) _exit(EXIT_INTERRUPTED);
    facet_session_cancel(watched);
}

void cli_watch_interrupt(facet_session *s)
{
    watched = s;
    interrupts = 0;
    struct sigaction a = {.sa_handler = s ? on_interrupt : SIG_DFL};
    sigaction(SIGINT, &a, NULL);
}

bool cli_was_interrupted(void)
{
    return interrupts > 0;
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
