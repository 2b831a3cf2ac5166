/* daemon_testing.h: the daemon as a child process, with pipes to its descriptors. */
#ifndef FACET_TESTS_SERVE_DAEMON_TESTING_H
#define FACET_TESTS_SERVE_DAEMON_TESTING_H

#include "testing.h"

#include "file/temp_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#define FACET FACET_BINARY_DIR "/facet"
#define MODEL FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf"
#define MTP FACET_SOURCE_DIR "/models/facet-small-mtp-Q8_0.gguf"
#define DFLASH FACET_SOURCE_DIR "/models/facet-small-dflash-Q8_0.gguf"
#define QUESTION "<bos><|turn>user\nWhat is 82 - 61?<turn|>\n<|turn>model\n"

enum { PATIENCE_MS = 600000, STREAM_FD = 9, END = -1, NO_STREAM = -2, STDERR_FILE = -1, STDERR_CLOSED = -2 };

typedef struct child {
    pid_t pid;
    int in, out, stream; /* our ends; -1 when closed */
    char log[64];        /* file of its standard error */
    char rest[1 << 16];  /* of `out`, after the line that was read last */
    size_t n_rest;
} child;

/* Starts `facet args...` (NULL at the end); with_stream: descriptor STREAM_FD of the child is a pipe. environment:
 * "NAME=VALUE" or NULL. err: a descriptor for its standard error, STDERR_FILE or STDERR_CLOSED. */
static inline child child_start_err(bool with_stream, const char *environment, const char *const *args, int err)
{
    child c = {.in = -1, .out = -1, .stream = -1, .log = "/tmp/facet-daemon-log-XXXXXX"};
    int in[2], out[2], stream[2] = {-1, -1};
    const int log = mkstemp(c.log);
    assert_true(log >= 0 && pipe(in) == 0 && pipe(out) == 0 && (!with_stream || pipe(stream) == 0));
    c.pid = fork();
    assert_true(c.pid >= 0);
    if (c.pid == 0) {
        /* away from the numbers that are about to be used */
        const int i = fcntl(in[0], F_DUPFD, 20), o = fcntl(out[1], F_DUPFD, 20),
                  e = fcntl(err >= 0 ? err : log, F_DUPFD, 20), s = with_stream ? fcntl(stream[1], F_DUPFD, 20) : -1;
        dup2(i, 0);
        dup2(o, 1);
        dup2(e, 2);
        if (err == STDERR_CLOSED) close(2);
        for (int fd = 3; fd < 20; fd++) close(fd);
        if (with_stream) dup2(s, STREAM_FD);
        for (int fd = 20; fd < 64; fd++) close(fd);
        if (environment) putenv((char *)(uintptr_t)environment);
        unsetenv("FACET_MODEL");
        execv(FACET, (char *const *)(uintptr_t)args);
        _exit(127);
    }
    close(log);
    close(in[0]);
    close(out[1]);
    if (with_stream) close(stream[1]);
    c.in = in[1];
    c.out = out[0];
    c.stream = stream[0];
    return c;
}

static inline child child_start(bool with_stream, const char *environment, const char *const *args)
{
    return child_start_err(with_stream, environment, args, STDERR_FILE);
}

static inline void child_write(const child *c, const void *data, size_t n)
{
    for (const char *at = data; n > 0;) {
        const ssize_t k = write(c->in, at, n);
        if (k < 0 && errno == EPIPE) return;
        assert_true(k > 0);
        at += k;
        n -= (size_t)k;
    }
}

__attribute__((format(printf, 2, 3))) static inline void child_send(const child *c, const char *fmt, ...)
{
    char line[4096];
    va_list ap;
    va_start(ap, fmt);
    const int n = vsnprintf(line, sizeof line - 1, fmt, ap);
    va_end(ap);
    assert_true(n >= 0 && (size_t)n < sizeof line - 1);
    line[n] = '\n';
    child_write(c, line, (size_t)n + 1);
}

static inline bool wait_readable(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, ms) > 0;
}

/* The next line of its standard output, without the LF; false at the end. */
static inline bool child_line(child *c, char *line, size_t size)
{
    for (;;) {
        char *lf = memchr(c->rest, '\n', c->n_rest);
        if (lf) {
            const size_t n = (size_t)(lf - c->rest);
            assert_true(n < size);
            memcpy(line, c->rest, n);
            line[n] = 0;
            c->n_rest -= n + 1;
            memmove(c->rest, lf + 1, c->n_rest);
            return true;
        }
        assert_true(c->n_rest < sizeof c->rest);
        if (!wait_readable(c->out, PATIENCE_MS)) fail_msg("no reply within %d s", PATIENCE_MS / 1000);
        const ssize_t n = read(c->out, c->rest + c->n_rest, sizeof c->rest - c->n_rest);
        if (n <= 0) {
            assert_int_equal(c->n_rest, 0); /* no half lines */
            return false;
        }
        c->n_rest += (size_t)n;
    }
}

/* Fails unless the next line begins with `want`. */
static inline void child_expect(child *c, const char *want)
{
    char line[4096];
    if (!child_line(c, line, sizeof line)) fail_msg("the end, wanted '%s'", want);
    if (strncmp(line, want, strlen(want)) != 0) fail_msg("'%s', wanted '%s'", line, want);
}

/* One id of the stream; NO_STREAM at its end. */
static inline int32_t child_token(const child *c)
{
    uint8_t b[4];
    for (size_t n = 0; n < sizeof b;) {
        if (!wait_readable(c->stream, PATIENCE_MS)) fail_msg("no token within %d s", PATIENCE_MS / 1000);
        const ssize_t k = read(c->stream, b + n, sizeof b - n);
        if (k == 0) {
            assert_int_equal(n, 0);
            return NO_STREAM;
        }
        assert_true(k > 0);
        n += (size_t)k;
    }
    return (int32_t)(b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24);
}

/* Tokens up to the end marker. Returns how many. */
static inline int child_tokens(const child *c, int32_t *out, int most)
{
    int n = 0;
    for (int32_t t; (t = child_token(c)) != END; out[n++] = t) {
        assert_true(t != NO_STREAM);
        assert_true(n < most);
    }
    return n;
}

/* True when nothing stands on the stream now. */
static inline bool child_stream_is_quiet(const child *c)
{
    return !wait_readable(c->stream, 50);
}

static inline void close_fd(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* Waits for its end; returns the exit status, or 128 + the signal. */
static inline int child_wait(child *c)
{
    int status = 0;
    for (int ms = 0; waitpid(c->pid, &status, WNOHANG) == 0; ms += 10) {
        if (ms > PATIENCE_MS) {
            kill(c->pid, SIGKILL);
            fail_msg("the daemon does not end");
        }
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    close_fd(&c->in);
    close_fd(&c->out);
    close_fd(&c->stream);
    unlink(c->log);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Closes its input and waits: the way in which it is meant to end. */
static inline int child_finish(child *c)
{
    char line[4096];
    close_fd(&c->in);
    while (child_line(c, line, sizeof line)) continue;
    return child_wait(c);
}

static inline long child_rss_kb(const child *c)
{
    char path[64];
    long size = 0, resident = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)c->pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld %ld", &size, &resident), 2);
    fclose(f);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Processor time so far, in clock ticks. */
static inline long child_ticks(const child *c)
{
    char path[64];
    long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)c->pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld", &user, &system), 2);
    fclose(f);
    return user + system;
}

static inline int child_n_fds(const child *c)
{
    char path[64];
    int n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)c->pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

/* True when its standard error has the words. */
static inline bool child_has_logged(const child *c, const char *words)
{
    static char text[1 << 20];
    FILE *f = fopen(c->log, "r");
    assert_non_null(f);
    const size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    return strstr(text, words) != NULL;
}

#endif
