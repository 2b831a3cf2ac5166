/* command.h: runs a shell command of a test. */
#ifndef FACET_TESTS_API_COMMAND_H
#define FACET_TESTS_API_COMMAND_H

#include "testing.h"

#include <sys/wait.h>

/* Standard output (and what the command joins to it) into out [n], NUL-terminated, cut; returns the exit status, -1
 * when a signal ended it. */
__attribute__((format(printf, 3, 4))) static inline int run_command(char *out, size_t n, const char *fmt, ...)
{
    char command[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(command, sizeof command, fmt, ap);
    va_end(ap);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    const size_t got = fread(out, 1, n - 1, p);
    out[got] = 0;
    while (fgetc(p) != EOF) continue;
    const int status = pclose(p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#endif
