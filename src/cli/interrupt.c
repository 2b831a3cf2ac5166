/* interrupt.c: Ctrl-C. */
#include <signal.h>
#include <unistd.h>

#include "cli/cli.h"

static facet_session *volatile watched;
static volatile sig_atomic_t interrupts;

static void on_watched(int signal)
{
    (void)signal;
    if (++interrupts > 1) _exit(EXIT_INTERRUPTED);
    facet_session_cancel(watched);
}

static void on_noted(int signal)
{
    (void)signal;
    interrupts = 1;
}

static void set_handler(void (*handler)(int))
{
    interrupts = 0;
    const struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGINT, &action, NULL);
}

void cli_watch_interrupt(facet_session *s)
{
    watched = s;
    set_handler(s ? on_watched : SIG_DFL);
}

void cli_note_interrupt(bool is_on)
{
    set_handler(is_on ? on_noted : SIG_DFL);
}

bool cli_was_interrupted(void)
{
    return interrupts > 0;
}
