/* progress_line.h: one line of progress on a terminal's stderr, and Ctrl-C as a cancellation, for long commands. */
#ifndef FACET_CLI_PROGRESS_LINE_H
#define FACET_CLI_PROGRESS_LINE_H

#include "facet.h"

/* From now on SIGINT makes progress_line return false, so that unfinished files are removed. */
void progress_line_begin(void);
/* A facet_progress_fn. */
bool progress_line(void *ud, const char *phase, uint64_t done, uint64_t total);
/* Wipes the line. */
void progress_line_end(void);

/* Exit status of a command: 0, 1, 2 for a wrong argument, 130 when interrupted; prints the error. */
int progress_line_exit(const char *command, facet_status status, const facet_error *err);

#endif
