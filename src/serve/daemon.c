#include "serve/daemon.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "serve/daemon_internal.h"

enum {
    LINE_MAX_LINES = 1 << 16,
    LINE_MAX_JSON = 16 << 20,
    OUT_LIMIT = 1 << 18,   /* bytes of replies that wait before the engine does */
    STREAM_LIMIT = 1 << 14 /* 4096 token ids, beside the 16384 that a pipe holds */
};

daemon_config daemon_config_default(daemon_protocol protocol)
{
    return (daemon_config){.n_sessions = 1,
                           .protocol = protocol,
                           .in_fd = STDIN_FILENO,
                           .out_fd = STDOUT_FILENO,
                           .stream_fd = -1,
                           .signal_fd = -1,
                           .sampling = facet_sampling_default(),
                           .generate = facet_generate_params_default(),
                           .n_queue = 64,
                           .stall_timeout_s = 30};
}

void daemon_log_line(const char *what, const char *line, size_t n)
{
    enum { SHOWN = 200 };
    char text[SHOWN + 1];
    const size_t k = n < SHOWN ? n : SHOWN;
    for (size_t i = 0; i < k; i++) text[i] = (unsigned char)line[i] < 0x20 || line[i] == 0x7f ? '?' : line[i];
    text[k] = 0;
    log_line(FACET_LOG_WARN, "%s: %s%s", what, text, k < n ? "..." : "");
}

/* ---- what happens ---- */

static void take_lines(server_daemon *d)
{
    while (!d->is_ending && d->protocol->wants_line(d)) {
        const char *text;
        size_t n;
        const inlet_item what = inlet_next(&d->in, &text, &n);
        if (what == INLET_NONE) break;
        d->protocol->line(d, what, text, n);
    }
    if (d->in.is_over && d->in.at == d->in.data.len) d->is_ending = true;
}

/* Ends soon: what runs ends at its next step, what waits is not begun. */
static void terminate(server_daemon *d, core_code reason)
{
    d->is_ending = true;
    if (d->protocol->drop) d->protocol->drop(d);
    core_cancel_all(d->core, reason);
}

static bool has_work(const server_daemon *d)
{
    return core_n_commands(d->core) > 0 || (d->protocol->is_idle && !d->protocol->is_idle(d));
}

static void take_signal(server_daemon *d)
{
    char what = 0;
    if (read(d->config->signal_fd, &what, 1) != 1) return;
    if (what == DAEMON_INTERRUPT && has_work(d)) {
        core_cancel_all(d->core, CORE_CANCELLED);
        return;
    }
    d->is_interrupted = what == DAEMON_INTERRUPT;
    terminate(d, CORE_CANCELLED);
}

/* ---- waiting ---- */

static bool is_blocked(const server_daemon *d)
{
    return outlet_is_full(&d->out) || outlet_is_full(&d->stream);
}

/* A full pipe holds the engine up, but nothing that was cancelled. */
static bool may_step(const server_daemon *d)
{
    return core_is_cancelling(d->core) || (core_wants_step(d->core) && !is_blocked(d));
}

/* Milliseconds that nothing may happen; -1: until something does. */
static int patience(const server_daemon *d)
{
    const bool may_read = !d->is_ending && !d->in.is_dry && d->protocol->wants_line(d),
               may_pump = core_n_commands(d->core) == 0 && has_work(d) && !is_blocked(d);
    if (may_step(d) || may_read || may_pump) return 0;
    const int deadline = core_next_deadline_ms(d->core), tick = 100; /* stalls are counted in seconds */
    return !is_blocked(d) || (deadline >= 0 && deadline < tick) ? deadline : tick;
}

/* Waits for input, room for output, a signal, or time. Errors on the output's descriptor are looked for even when there
 * is nothing to write, so that a client who is gone is noticed. */
static void wait_for_events(server_daemon *d)
{
    struct pollfd p[4] = {
        {.fd = !d->is_ending && !d->in.is_over && d->protocol->wants_line(d) ? d->in.fd : -1, .events = POLLIN},
        {.fd = d->config->signal_fd, .events = POLLIN},
        {.fd = d->out.fd, .events = outlet_n_waiting(&d->out) ? POLLOUT : 0},
        {.fd = d->stream.is_broken ? -1 : d->stream.fd, .events = outlet_n_waiting(&d->stream) ? POLLOUT : 0},
    };
    if (poll(p, 4, patience(d)) <= 0) return;
    if (p[0].revents) inlet_fill(&d->in);
    if (p[1].revents & POLLIN) take_signal(d);
    if (p[2].revents & (POLLERR | POLLNVAL)) outlet_break(&d->out, EPIPE);
    if (p[3].revents & (POLLERR | POLLNVAL)) outlet_break(&d->stream, EPIPE);
}

static void check_readers(server_daemon *d)
{
    const double most = (double)d->config->stall_timeout_s;
    outlet_flush(&d->out);
    outlet_flush(&d->stream);
    if (d->out.is_broken && !d->is_ending) {
        log_line(FACET_LOG_INFO, "the reader of the replies is gone (%s)", strerror(d->out.error));
        terminate(d, CORE_CANCELLED);
    }
    if (d->stream.is_broken && !d->has_lost_stream) {
        d->has_lost_stream = true;
        if (d->protocol->stream_gone) d->protocol->stream_gone(d);
    }
    if (is_blocked(d) && (outlet_blocked_s(&d->out) >= most || outlet_blocked_s(&d->stream) >= most))
        core_cancel_all(d->core, CORE_SLOW_READER);
}

/* The last replies, as long as somebody takes them. */
static void drain(server_daemon *d)
{
    const uint64_t most = (uint64_t)d->config->stall_timeout_s * 1000000000u, t0 = clock_ns();
    while ((outlet_n_waiting(&d->out) || outlet_n_waiting(&d->stream)) && clock_ns() - t0 < most) {
        struct pollfd p[2] = {
            {.fd = outlet_n_waiting(&d->out) ? d->out.fd : -1, .events = POLLOUT},
            {.fd = outlet_n_waiting(&d->stream) ? d->stream.fd : -1, .events = POLLOUT},
        };
        poll(p, 2, 100);
        outlet_flush(&d->out);
        outlet_flush(&d->stream);
    }
}

static void serve(server_daemon *d)
{
    d->protocol->ready(d);
    for (;;) {
        take_lines(d);
        if (d->protocol->pump) d->protocol->pump(d);
        core_check_times(d->core);
        if (may_step(d)) core_step(d->core);
        check_readers(d);
        if (d->is_ending && !has_work(d)) break;
        wait_for_events(d);
    }
    drain(d);
}

facet_status daemon_run(const daemon_config *c, bool *interrupted, facet_error *err)
{
    const bool is_json = c->protocol == DAEMON_JSON;
    server_daemon d = {.config = c, .protocol = is_json ? &protocol_json : &protocol_lines};
    if (c->n_queue < 1) return error_set(err, FACET_ERR_ARG, "queue: %d, wanted 1 or more", c->n_queue);
    facet_status status =
        core_open(c->engine, c->n_sessions, c->stall_timeout_s, &d.protocol->events, &d, &d.core, err);
    if (status != FACET_OK) return status;
    const bool has_memory = inlet_open(&d.in, c->in_fd,
                                       c->max_line ? c->max_line
                                       : is_json   ? LINE_MAX_JSON
                                                   : LINE_MAX_LINES) &&
                            outlet_open(&d.out, c->out_fd, OUT_LIMIT) &&
                            outlet_open(&d.stream, c->stream_fd, STREAM_LIMIT);
    if (!has_memory) status = error_memory(err, "the daemon's pipes", OUT_LIMIT + STREAM_LIMIT);
    if (status == FACET_OK && d.protocol->open) status = d.protocol->open(&d, err);
    if (status == FACET_OK) {
        serve(&d);
        if (interrupted) *interrupted = d.is_interrupted;
        if (d.protocol->close) d.protocol->close(&d);
    }
    inlet_close(&d.in);
    outlet_close(&d.out);
    outlet_close(&d.stream);
    core_close(d.core);
    return status;
}
