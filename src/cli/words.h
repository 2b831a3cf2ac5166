/* words.h: a string cut into words as a shell would. */
#ifndef FACET_CLI_WORDS_H
#define FACET_CLI_WORDS_H

#include "base/error.h"

/* Blanks separate; '…' keeps everything; "…" keeps everything but \" and \\; outside quotes \ keeps the next character.
 * Nothing is expanded. argv[0 .. *argc) point into *storage (owned, mem_free), argv[*argc] is NULL; max counts that
 * end. FACET_ERR_ARG for an open quote, a final backslash, or too many words. */
facet_status words_split(const char *text, char **storage, char **argv, int max, int *argc, facet_error *err);

#endif
