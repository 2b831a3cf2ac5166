#include "cli/progress_line.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static volatile sig_atomic_t is_interrupted;
static int last_percent = -1;

static void on_interrupt(int signal)
{
    (void)signal;
    is_interrupted = 1;
}

void progress_line_begin(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &action, NULL);
}

bool progress_line(void *ud, const char *phase, uint64_t done, uint64_t total)
{
    (void)ud;
    int percent = total ? (int)((double)done / (double)total * 100) : 100;
    if (percent != last_percent && isatty(STDERR_FILENO)) {
        fprintf(stderr, "\r%s %3d %% of %" PRIu64 " MiB", phase, percent, total >> 20);
        fflush(stderr);
        last_percent = percent;
    }
    return !is_interrupted;
}

void progress_line_end(void)
{
    if (last_percent >= 0) fputs("\r\033[K", stderr);
    last_percent = -1;
}

int progress_line_exit(const char *command, facet_status status, const facet_error *err)
{
    progress_line_end();
    if (status == FACET_OK) return 0;
    fprintf(stderr, "facet %s: %s\n", command, err->message);
    if (status == FACET_ERR_CANCELLED) return 130;
    return status == FACET_ERR_ARG ? 2 : 1;
}
