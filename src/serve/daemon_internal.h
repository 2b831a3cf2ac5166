/* daemon_internal.h: the daemon as its protocols see it. */
#ifndef FACET_SERVE_DAEMON_INTERNAL_H
#define FACET_SERVE_DAEMON_INTERNAL_H

#include "serve/daemon.h"
#include "serve/daemon_core.h"
#include "serve/daemon_inlet.h"
#include "serve/daemon_outlet.h"

typedef struct server_daemon server_daemon;

/* A protocol turns lines into commands for the core, and what comes of them into bytes for the outlets. */
typedef struct protocol_ops {
    core_events events; /* ud is the server_daemon */
    void (*ready)(server_daemon *d);
    bool (*wants_line)(const server_daemon *d);
    void (*line)(server_daemon *d, inlet_item what, const char *text, size_t n);
    /* Of a protocol that keeps something; NULL: it does not. */
    facet_status (*open)(server_daemon *d, facet_error *err);
    void (*close)(server_daemon *d);
    void (*pump)(server_daemon *d);          /* between steps: what waits in the protocol may start */
    bool (*is_idle)(const server_daemon *d); /* nothing waits in the protocol */
    void (*drop)(server_daemon *d);          /* what waits in the protocol is not done any more */
    void (*stream_gone)(server_daemon *d);   /* the reader of the stream closed it */
} protocol_ops;

struct server_daemon {
    const daemon_config *config;
    const protocol_ops *protocol;
    core *core;
    inlet in;
    outlet out, stream;
    bool is_ending; /* no further lines are read: end of input, a command, or a signal */
    bool is_interrupted, has_lost_stream;
    void *state; /* the protocol's */
};

extern const protocol_ops protocol_lines, protocol_json;

/* "what: line" into the log, with what a terminal would take amiss replaced, and cut. */
void daemon_log_line(const char *what, const char *line, size_t n);

#endif
