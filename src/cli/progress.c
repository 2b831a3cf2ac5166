/* progress.c: one line of progress on a terminal's standard error. */
#include <unistd.h>

#include "cli/cli.h"

enum { BAR = 25, SHORT_PROMPT = 128 /* tokens: evaluated before a person could read a bar */ };

static int drawn;          /* characters of the line that stands there; 0 = none */
static int last = -1;      /* percent that it shows */
static const char *phase_; /* what it is about */

void cli_progress_end(void)
{
    if (drawn) fprintf(stderr, "\r%*s\r", drawn, "");
    drawn = 0;
    last = -1;
    phase_ = NULL;
}

static void draw(const char *phase, int percent)
{
    if (percent == last && phase == phase_) return;
    if (phase != phase_) cli_progress_end();
    phase_ = phase;
    last = percent;
    const int full = percent * BAR / 100;
    const int n =
        fprintf(stderr, "\r%s [%.*s%*s] %3d %%", phase, full, "#########################", BAR - full, "", percent);
    if (n > 0) drawn = n - 1;
    fflush(stderr);
}

bool cli_progress(void *ud, const char *phase, uint64_t done, uint64_t total)
{
    (void)ud;
    static int is_terminal = -1;
    if (is_terminal < 0) is_terminal = isatty(STDERR_FILENO);
    if (done >= total)
        cli_progress_end();
    else if (is_terminal)
        draw(phase, (int)((double)done / (double)total * 100));
    return !cli_was_interrupted();
}

bool cli_progress_prefill(void *ud, const char *phase, uint64_t done, uint64_t total)
{
    return total < SHORT_PROMPT ? !cli_was_interrupted() : cli_progress(ud, phase, done, total);
}
