/* daemon.h: an engine behind pipes: commands come in as lines, replies go out as lines. docs/protocol.md describes the
 * two protocols. */
#ifndef FACET_SERVE_DAEMON_H
#define FACET_SERVE_DAEMON_H

#include "base/error.h"

typedef enum daemon_protocol {
    DAEMON_LINES, /* words, replies, and token ids on a stream of their own: what existing clients speak */
    DAEMON_JSON   /* an object per line, both ways */
} daemon_protocol;

/* What comes through signal_fd, a byte each. */
enum { DAEMON_INTERRUPT = 'i', DAEMON_TERMINATE = 't' };

/* Descriptors are borrowed. */
typedef struct daemon_config {
    facet_engine *engine; /* opened for n_sessions */
    int n_sessions;       /* numbered conversations; DAEMON_LINES uses the first */
    daemon_protocol protocol;
    int in_fd, out_fd;
    int stream_fd; /* DAEMON_LINES: token ids; -1 = there is none */
    int signal_fd; /* the reading end of a pipe; -1 = there is none */
    /* Of commands that do not say otherwise. */
    facet_sampling sampling;
    facet_generate_params generate;
    int n_queue;         /* commands that wait at most */
    size_t max_line;     /* bytes; 0 = 65536 for DAEMON_LINES, 16 MiB for DAEMON_JSON */
    int stall_timeout_s; /* a reader who takes nothing for so long loses what is being generated */
} daemon_config;

daemon_config daemon_config_default(daemon_protocol protocol);

/* Serves until the input ends (then after what was asked for is done), the reader is gone, or a signal says so. Returns
 * FACET_OK then. *interrupted (may be NULL) tells whether an interrupt ended it while it had nothing to do. */
facet_status daemon_run(const daemon_config *c, bool *interrupted, facet_error *err);

#endif
