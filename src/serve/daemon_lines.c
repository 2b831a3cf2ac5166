/* daemon_lines.c: the line protocol that existing clients speak: words, one command at a time, replies as lines, token
 * ids as int32 on a stream of their own, which -1 ends. docs/protocol.md. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_map.h"
#include "base/log.h"
#include "base/mem.h"
#include "decode/engine.h"
#include "serve/daemon_internal.h"
#include "serve/daemon_samp.h"

#define NO_MEMORY "prefill_failed reason=out_of_memory"

enum { MAX_FIELDS = 8 };

/* What a generating command looked like: the reply depends on it. */
typedef enum form { FORM_BARE, FORM_FILES, FORM_RESTORE } form;

typedef struct pending_line {
    inlet_item what;
    char *text; /* owned, NUL-terminated; NULL: there was no memory for it */
    size_t n;
} pending_line;

typedef struct lines_state {
    pending_line *queue; /* a ring [n_queue] */
    int first, n;
    /* of the generation under way */
    form form;
    int slot;
    char *out_path; /* FORM_FILES */
    buf tokens;     /* FORM_FILES: int32 each */
} lines_state;

/* The words of a line, cut up in place. */
typedef struct words {
    char *word[MAX_FIELDS];
    int n; /* MAX_FIELDS + 1: there were more */
} words;

/* ---- replies ---- */

static void put_token(server_daemon *d, int32_t token)
{
    const uint32_t t = (uint32_t)token;
    const uint8_t bytes[4] = {(uint8_t)t, (uint8_t)(t >> 8), (uint8_t)(t >> 16), (uint8_t)(t >> 24)};
    outlet_put(&d->stream, bytes, sizeof bytes);
}

static void put_end(server_daemon *d)
{
    put_token(d, -1);
}

/* An error of a command whose client waits on the stream, too. */
static void refuse(server_daemon *d, const char *code)
{
    outlet_printf(&d->out, "err %s\n", code);
    put_end(d);
}

/* ---- fields ---- */

static words split(char *line)
{
    words w = {.n = 0};
    for (char *save, *word = strtok_r(line, " \t", &save); word; word = strtok_r(NULL, " \t", &save)) {
        if (w.n < MAX_FIELDS) w.word[w.n] = word;
        if (w.n <= MAX_FIELDS) w.n++;
    }
    return w;
}

static bool parse_int(const char *text, long long min, long long max, int *out)
{
    char *end;
    errno = 0;
    const long long v = strtoll(text, &end, 10);
    if (errno || end == text || *end || v < min || v > max) return false;
    *out = (int)v;
    return true;
}

/* Cuts " NAME=VALUE" out of a line; returns the value (mem_free), or NULL when there is none. */
static char *cut_suffix(char *line, const char *name)
{
    char *at = strstr(line, name);
    if (!at) return NULL;
    const size_t skip = strlen(name), n = strcspn(at + skip, " \t");
    char *value = mem_strndup(at + skip, n);
    memmove(at, at + skip + n, strlen(at + skip + n) + 1);
    return value;
}

/* ---- files of token ids ---- */

static facet_status no_ids(facet_error *err, const char *path, const char *why)
{
    return error_set(err, FACET_ERR_IO, "%s: no token ids: %s", path, why);
}

static bool read_all(int fd, void *data, size_t n)
{
    char *at = data;
    while (n > 0) {
        const ssize_t got = read(fd, at, n);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        at += got;
        n -= (size_t)got;
    }
    return true;
}

/* Opens a regular file of raw ids, or (is_counted) of a count and as many ids; *n of them. */
static facet_status open_ids(const char *path, bool is_counted, int *fd, size_t *n, facet_error *err)
{
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer must not hold the daemon up */
    if (*fd < 0) return no_ids(err, path, strerror(errno));
    if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode)) return no_ids(err, path, "not a regular file");
    *n = (size_t)st.st_size / sizeof(int32_t);
    if (!is_counted) return FACET_OK;
    uint8_t head[4];
    if (!read_all(*fd, head, sizeof head)) return no_ids(err, path, "too short for a count");
    const uint32_t count = head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16 | (uint32_t)head[3] << 24;
    if (count > *n - 1) return no_ids(err, path, "the count is larger than the file");
    *n = count;
    return FACET_OK;
}

/* A prompt that is longer than the context is not read, only counted: it is refused anyway. */
static facet_status read_ids(server_daemon *d, const char *path, bool is_counted, command *c, facet_error *err)
{
    int fd = -1;
    size_t n = 0;
    facet_status status = open_ids(path, is_counted, &fd, &n, err);
    if (status == FACET_OK && n == 0) status = no_ids(err, path, "it is empty");
    if (status == FACET_OK && n <= (size_t)facet_engine_n_ctx(core_engine(d->core))) {
        c->prompt = mem_resize_array(NULL, n, sizeof *c->prompt);
        if (!c->prompt) status = error_memory(err, path, n * sizeof *c->prompt);
        if (c->prompt && !read_all(fd, c->prompt, n * sizeof *c->prompt)) status = no_ids(err, path, strerror(errno));
    }
    c->n_prompt = n;
    if (fd >= 0) close(fd);
    return status;
}

static facet_status write_ids(const char *path, const buf *ids, facet_error *err)
{
    file_writer w = {0};
    const uint32_t n = (uint32_t)(ids->len / sizeof(int32_t));
    const uint8_t head[4] = {(uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16), (uint8_t)(n >> 24)};
    FACET_TRY(file_writer_open(path, &w, err));
    facet_status status = file_writer_put(&w, head, sizeof head, err);
    if (status == FACET_OK && ids->len) status = file_writer_put(&w, ids->data, ids->len, err);
    if (status == FACET_OK) status = file_writer_commit(&w, err);
    file_writer_abort(&w);
    return status;
}

/* ---- generations ---- */

/* A complaint before anything ran, in the order that the form has for it. */
static void refuse_form(server_daemon *d, form f, const char *code)
{
    outlet_printf(&d->out, "err %s\n", code);
    if (f != FORM_FILES) put_end(d);
}

/* `line` without its suffixes is words already; samp is the value of its suffix or NULL. */
static void generate(server_daemon *d, form f, const char *path, int n_gen, const char *samp)
{
    lines_state *s = d->state;
    facet_error err;
    command *c = command_new(COMMAND_GENERATE, 0);
    if (!c || !command_inherit(c, &d->config->sampling, &d->config->generate)) {
        command_free(c);
        refuse_form(d, f, NO_MEMORY);
        return;
    }
    c->n_predict = n_gen;
    s->form = f;
    facet_status status = FACET_OK;
    if (samp) status = samp_parse(samp, &c->sampling, &err);
    if (status != FACET_OK) {
        log_line(FACET_LOG_WARN, "%s", err.message);
        refuse_form(d, f, "bad_args");
    } else if ((status = read_ids(d, path, f == FORM_FILES, c, &err)) != FACET_OK) {
        log_line(FACET_LOG_WARN, "%s", err.message);
        refuse_form(d, f, status == FACET_ERR_MEMORY ? NO_MEMORY : "empty_prompt");
    } else {
        core_submit(d->core, c);
        return;
    }
    command_free(c);
}

static void do_generate(server_daemon *d, words *w, const char *samp)
{
    lines_state *s = d->state;
    int n_gen;
    if (w->n != 4 || !parse_int(w->word[2], 1, INT32_MAX, &n_gen)) {
        refuse_form(d, FORM_FILES, "bad_args");
        return;
    }
    mem_free(s->out_path);
    s->out_path = mem_strdup(w->word[3]);
    buf_clear(&s->tokens);
    if (s->out_path)
        generate(d, FORM_FILES, w->word[1], n_gen, samp);
    else
        refuse_form(d, FORM_FILES, NO_MEMORY);
}

static void do_bare(server_daemon *d, words *w, const char *samp)
{
    int n_gen;
    if (w->n != 2 || !parse_int(w->word[1], 1, INT32_MAX, &n_gen))
        refuse_form(d, FORM_BARE, "bad_args");
    else if (d->stream.fd < 0 || d->stream.is_broken)
        outlet_printf(&d->out, "err no_stream_fd\n");
    else
        generate(d, FORM_BARE, w->word[0], n_gen, samp);
}

static void on_tokens(void *ud, command *c)
{
    server_daemon *d = ud;
    lines_state *s = d->state;
    for (size_t i = 0; i < c->n_fresh; i++) {
        if (s->form == FORM_FILES)
            buf_append(&s->tokens, &c->fresh[i], sizeof c->fresh[i]);
        else
            put_token(d, c->fresh[i]);
    }
}

/* "CODE key=value ..." of a generation that failed. */
static void error_words(server_daemon *d, const command *c, int n_gen, char *out, size_t size)
{
    switch (c->code) {
    case CORE_BAD_REQUEST: snprintf(out, size, "bad_args"); break;
    case CORE_CONTEXT_OVERFLOW:
        snprintf(out, size, "context_overflow limit=%d prompt=%zu requested=%zu",
                 facet_engine_n_ctx(core_engine(d->core)), c->n_prompt, c->n_prompt + (size_t)c->n_predict);
        break;
    case CORE_CANCELLED:
    case CORE_SLOW_READER: snprintf(out, size, "%s gen=%d", core_code_name(c->code), n_gen); break;
    case CORE_IO: snprintf(out, size, "io errno=%d fd=%d gen=%d", d->stream.error, d->stream.fd, n_gen); break;
    case CORE_BAD_TOKEN:
    case CORE_EMPTY_PROMPT: snprintf(out, size, "%s", core_code_name(c->code)); break;
    default:
        snprintf(out, size, "%s reason=%s", c->first_token_ms > 0 ? "decode_failed" : "prefill_failed",
                 core_code_name(c->code));
        break;
    }
}

static void reply_failed(server_daemon *d, const command *c, int n_gen)
{
    const lines_state *s = d->state;
    char text[128];
    log_line(FACET_LOG_WARN, "%s", c->err.message);
    error_words(d, c, n_gen, text, sizeof text);
    if (s->form == FORM_BARE) put_end(d);
    outlet_printf(&d->out, "err %s\n", text);
    if (s->form == FORM_RESTORE) put_end(d);
}

static void reply_ok(server_daemon *d, const command *c, int n_gen)
{
    const lines_state *s = d->state;
    const double prefill_s = c->result.prefill_ms * 1e-3, decode_s = c->result.decode_ms * 1e-3,
                 rate = n_gen / (decode_s > 1e-9 ? decode_s : 1e-9);
    char times[128];
    snprintf(times, sizeof times, "prefill_s=%.3f decode_s=%.3f decode_tok_s=%.1f", prefill_s, decode_s, rate);
    switch (s->form) {
    case FORM_BARE:
        outlet_printf(&d->out, "ok N=%zu gen=%d %s stream_fd=%d\n", c->n_prompt, n_gen, times, d->stream.fd);
        break;
    case FORM_FILES:
        outlet_printf(&d->out, "ok N=%zu gen=%d %s out=%s\n", c->n_prompt, n_gen, times, s->out_path);
        break;
    case FORM_RESTORE:
        outlet_printf(&d->out, "ok N=%zu gen=%d prefix_len=%d (RESTORE slot=%d) stream_fd=%d\n", c->n_prompt, n_gen,
                      (int)c->n_prompt - c->result.n_prefill, s->slot, d->stream.fd);
        break;
    }
}

/* The end token is counted and sent like the others. */
static void on_end(void *ud, command *c)
{
    server_daemon *d = ud;
    lines_state *s = d->state;
    facet_error err;
    const bool has_end = c->result.end_token >= 0;
    const int n_gen = c->result.n_tokens + has_end;
    if (c->code != CORE_OK) {
        reply_failed(d, c, n_gen);
        return;
    }
    if (has_end && s->form != FORM_FILES) put_token(d, c->result.end_token);
    if (has_end && s->form == FORM_FILES) buf_append(&s->tokens, &c->result.end_token, sizeof c->result.end_token);
    if (s->form != FORM_FILES) put_end(d);
    if (s->form == FORM_FILES && (s->tokens.failed || write_ids(s->out_path, &s->tokens, &err) != FACET_OK)) {
        log_line(FACET_LOG_WARN, "%s", s->tokens.failed ? "out of memory for generated tokens" : err.message);
        outlet_printf(&d->out, "err write_out\n");
        return;
    }
    reply_ok(d, c, n_gen);
}

/* ---- lines ---- */

static void drop(server_daemon *d, core_code reason);

static bool is_path(const char *word)
{
    return *word == '.' || strchr(word, '/');
}

static void run_words(server_daemon *d, words *w, const char *samp, const char *snap)
{
    (void)snap;
    const char *first = w->n ? w->word[0] : "";
    if (strcmp(first, "generate") == 0)
        do_generate(d, w, samp);
    else if (is_path(first))
        do_bare(d, w, samp);
    else
        refuse(d, "unknown_command");
}

/* `line` is cut up. */
static void run_line(server_daemon *d, char *line)
{
    if (strcmp(line, "quit") == 0 || strcmp(line, "exit") == 0) {
        d->is_ending = true;
        drop(d, CORE_OK);
        return;
    }
    char *samp = cut_suffix(line, " samp="), *snap = cut_suffix(line, " snap=");
    words w = split(line);
    run_words(d, &w, samp, snap);
    mem_free(samp);
    mem_free(snap);
}

static void run_pending(server_daemon *d, const pending_line *l)
{
    if (!l->text) {
        refuse(d, "bad_args");
        log_line(FACET_LOG_WARN, "out of memory for a line of %zu bytes", l->n);
        return;
    }
    if (l->what == INLET_LINE && strlen(l->text) == l->n) {
        run_line(d, l->text);
        return;
    }
    daemon_log_line(l->what == INLET_TOO_LONG ? "a line is too long"
                    : l->what == INLET_CUT    ? "the input ends within a line"
                                              : "a line has a NUL byte",
                    l->text, l->n);
    refuse(d, l->what == INLET_TOO_LONG ? "bad_args" : l->what == INLET_CUT ? "incomplete" : "unknown_command");
}

static void pump(server_daemon *d)
{
    lines_state *s = d->state;
    while (s->n > 0 && core_n_commands(d->core) == 0 && !outlet_is_full(&d->out) && !outlet_is_full(&d->stream)) {
        pending_line l = s->queue[s->first];
        s->first = (s->first + 1) % d->config->n_queue;
        s->n--;
        run_pending(d, &l);
        mem_free(l.text);
    }
}

static bool is_idle(const server_daemon *d)
{
    const lines_state *s = d->state;
    return s->n == 0;
}

static bool wants_line(const server_daemon *d)
{
    const lines_state *s = d->state;
    return s->n < d->config->n_queue;
}

/* A line waits until what was asked before is done; only "cancel" is for that. */
static void take_line(server_daemon *d, inlet_item what, const char *text, size_t n)
{
    lines_state *s = d->state;
    if (what == INLET_LINE && n == 6 && memcmp(text, "cancel", 6) == 0) {
        pump(d); /* what came before has its turn first */
        core_cancel_all(d->core, CORE_CANCELLED);
        return;
    }
    s->queue[(s->first + s->n++) % d->config->n_queue] = (pending_line){what, mem_strndup(text, n), n};
}

static void drop(server_daemon *d, core_code reason)
{
    lines_state *s = d->state;
    (void)reason;
    for (; s->n > 0; s->n--) {
        mem_free(s->queue[s->first].text);
        s->first = (s->first + 1) % d->config->n_queue;
    }
}

static void stream_gone(server_daemon *d)
{
    const lines_state *s = d->state;
    if (s->form != FORM_FILES) core_cancel_all(d->core, CORE_IO);
}

static void ready(server_daemon *d)
{
    const facet_engine *e = core_engine(d->core);
    facet_model_info m;
    facet_model_describe(e->model, &m);
    outlet_printf(&d->out, "[gemma4-daemon] ready n_layer=%d n_embd=%d vocab=%d max_ctx=%d draft=%s sparse_fa=0\n",
                  m.n_layers, m.n_embd, m.n_vocab, facet_engine_n_ctx(e),
                  e->dflash ? "dflash"
                  : e->mtp  ? "mtp"
                            : "none");
}

static facet_status open_lines(server_daemon *d, facet_error *err)
{
    const size_t bytes = (size_t)d->config->n_queue * sizeof(pending_line);
    lines_state *s = mem_calloc(1, sizeof *s);
    if (s && !(s->queue = mem_calloc(1, bytes))) {
        mem_free(s);
        s = NULL;
    }
    if (!s) return error_memory(err, "the line protocol", bytes);
    d->state = s;
    return FACET_OK;
}

static void close_lines(server_daemon *d)
{
    lines_state *s = d->state;
    drop(d, CORE_CANCELLED);
    mem_free(s->queue);
    mem_free(s->out_path);
    buf_free(&s->tokens);
    mem_free(s);
}

const protocol_ops protocol_lines = {.events = {.on_tokens = on_tokens, .on_end = on_end},
                                     .open = open_lines,
                                     .ready = ready,
                                     .wants_line = wants_line,
                                     .line = take_line,
                                     .pump = pump,
                                     .is_idle = is_idle,
                                     .drop = drop,
                                     .stream_gone = stream_gone,
                                     .close = close_lines};
