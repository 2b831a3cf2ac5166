/* daemon_lines.c: the line protocol that existing clients speak: words, one command at a time, replies as lines, token
 * ids as int32 on a stream of their own, which -1 ends. docs/protocol.md. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "decode/engine.h"
#include "serve/daemon_ids.h"
#include "serve/daemon_internal.h"
#include "serve/daemon_samp.h"

#define NO_MEMORY "prefill_failed reason=out_of_memory"

enum { MAX_FIELDS = 8 };

/* What a generating command looked like: the reply depends on it. */
typedef enum form { FORM_BARE, FORM_FILES, FORM_RESTORE, FORM_CHAIN, FORM_OTHER /* no generation */ } form;

typedef struct pending_line {
    inlet_item what;
    char *text; /* owned, NUL-terminated; NULL: there was no memory for it */
    size_t n;
    bool has_end; /* the client waits for -1 on the stream behind an error */
} pending_line;

typedef struct lines_state {
    pending_line *queue; /* a ring [n_queue] */
    int head, n;
    /* of the generation under way */
    form form;
    int slot;       /* of RESTORE and of the snapshot commands; the thick one of RESTORE_CHAIN, -1 = none */
    int first, end; /* SNAPSHOT_THIN */
    char *out_path; /* FORM_FILES */
    buf tokens;     /* FORM_FILES: int32 each */
} lines_state;

/* The words of a line, cut up in place. */
typedef struct words {
    char *word[MAX_FIELDS];
    int n;                   /* MAX_FIELDS + 1: there were more */
    const char *samp, *snap; /* values of the suffixes, which are not among the words; NULL: there is none */
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

/* Takes "NAME=VALUE" behind the first field as a suffix, the first time that it comes. */
static bool take_suffix(const char *word, const char *name, int n_words, const char **value)
{
    const size_t n = strlen(name);
    if (n_words == 0 || *value || strncmp(word, name, n) != 0) return false;
    *value = word + n;
    return true;
}

static words split(char *line)
{
    words w = {.n = 0};
    for (char *save, *word = strtok_r(line, " \t", &save); word; word = strtok_r(NULL, " \t", &save)) {
        if (take_suffix(word, "samp=", w.n, &w.samp) || take_suffix(word, "snap=", w.n, &w.snap)) continue;
        if (w.n < MAX_FIELDS) w.word[w.n] = word;
        if (w.n <= MAX_FIELDS) w.n++;
    }
    return w;
}

/* A number in min .. max at *text, which moves behind it. */
static bool take_int(const char **text, long long min, long long max, int *out)
{
    char *end;
    errno = 0;
    const long long v = strtoll(*text, &end, 10);
    if (errno || end == *text || v < min || v > max) return false;
    *text = end;
    *out = (int)v;
    return true;
}

static bool parse_int(const char *text, long long min, long long max, int *out)
{
    int v;
    if (!take_int(&text, min, max, &v) || *text) return false;
    *out = v;
    return true;
}

/* ---- generations ---- */

/* A complaint before anything ran, in the order that the form has for it. */
static void refuse_form(server_daemon *d, form f, const char *code)
{
    outlet_printf(&d->out, "err %s\n", code);
    if (f != FORM_FILES) put_end(d);
}

/* What a generating command says beside its prompt and length; the suffixes' values are NULL where there are none. */
typedef struct wishes {
    const char *samp, *snap;
    const int *chain; /* [n_chain] */
    int n_chain;
} wishes;

/* "L:S"; what is malformed counts as not there. */
static void take_snap(const char *snap, command *c)
{
    int label, slot;
    if (!snap || !take_int(&snap, 1, INT32_MAX, &label) || *snap++ != ':') return;
    if (!parse_int(snap, 0, SNAPSHOT_SLOTS - 1, &slot)) return;
    c->store_slot = slot;
    c->store_n = label;
}

static facet_status fill(server_daemon *d, form f, const char *path, const wishes *w, command *c, facet_error *err)
{
    if (!command_inherit(c, &d->config->sampling, &d->config->generate)) return error_memory(err, "a command", 1);
    if (w->samp) FACET_TRY(samp_parse(w->samp, &c->sampling, err));
    take_snap(w->snap, c);
    for (int i = 0; i < w->n_chain; i++) c->chain[i] = w->chain[i];
    c->n_chain = w->n_chain;
    const size_t most = (size_t)facet_engine_n_ctx(core_engine(d->core));
    return ids_read(path, f == FORM_FILES, most, &c->prompt, &c->n_prompt, err);
}

static void generate(server_daemon *d, form f, const char *path, int n_gen, const wishes *w)
{
    lines_state *s = d->state;
    facet_error err;
    command *c = command_new(COMMAND_GENERATE, 0);
    const facet_status status = c ? fill(d, f, path, w, c, &err) : error_memory(&err, "a command", 1);
    if (status == FACET_OK) {
        c->n_predict = n_gen;
        s->form = f;
        core_submit(d->core, c);
        return;
    }
    command_free(c);
    log_line(FACET_LOG_WARN, "%s", err.message);
    refuse_form(d, f, status == FACET_ERR_ARG ? "bad_args" : status == FACET_ERR_MEMORY ? NO_MEMORY : "empty_prompt");
}

/* False, after the reply, while the target is parked and nobody unparks it. */
static bool has_target(server_daemon *d, form f)
{
    const facet_engine *e = core_engine(d->core);
    if (!(engine_parked(e) & PARK_TARGET) || e->parking.is_auto) return true;
    refuse_form(d, f, "target_parked");
    return false;
}

static void do_generate(server_daemon *d, const words *w, const wishes *more)
{
    lines_state *s = d->state;
    int n_gen;
    if (!has_target(d, FORM_FILES)) return;
    if (w->n != 4 || !parse_int(w->word[2], 1, INT32_MAX, &n_gen)) {
        refuse_form(d, FORM_FILES, "bad_args");
        return;
    }
    mem_free(s->out_path);
    s->out_path = mem_strdup(w->word[3]);
    buf_clear(&s->tokens);
    if (s->out_path)
        generate(d, FORM_FILES, w->word[1], n_gen, more);
    else
        refuse_form(d, FORM_FILES, NO_MEMORY);
}

static void do_bare(server_daemon *d, const words *w, const wishes *more)
{
    int n_gen;
    if (!has_target(d, FORM_BARE)) return;
    if (w->n != 2 || !parse_int(w->word[1], 1, INT32_MAX, &n_gen))
        refuse_form(d, FORM_BARE, "bad_args");
    else if (d->stream.fd < 0 || d->stream.is_broken)
        outlet_printf(&d->out, "err no_stream_fd\n");
    else
        generate(d, FORM_BARE, w->word[0], n_gen, more);
}

/* Generation on top of slots, if they are not empty. */
static void generate_on(server_daemon *d, form f, const int *chain, int n_chain, const char *path, int n_gen,
                        const wishes *more)
{
    const wishes w = {.samp = more->samp, .snap = more->snap, .chain = chain, .n_chain = n_chain};
    snapshot_info info;
    for (int i = 0; i < n_chain; i++) {
        if (snapshot_describe(core_engine(d->core), chain[i], &info)) continue;
        refuse_form(d, f, "empty_slot");
        return;
    }
    generate(d, f, path, n_gen, &w);
}

static void do_restore(server_daemon *d, const words *w, const wishes *more)
{
    lines_state *s = d->state;
    int n_gen;
    if (!has_target(d, FORM_RESTORE)) return;
    if (w->n != 4 || !parse_int(w->word[1], 0, SNAPSHOT_SLOTS - 1, &s->slot) ||
        !parse_int(w->word[3], 1, INT32_MAX, &n_gen))
        refuse_form(d, FORM_RESTORE, "bad_args");
    else
        generate_on(d, FORM_RESTORE, &s->slot, 1, w->word[2], n_gen, more);
}

/* The numbers of a comma-separated list, cut up in place, behind those that `chain` has; false when malformed. */
static bool parse_thins(char *list, int *chain, int *n)
{
    if (strcmp(list, "-") == 0) return true;
    char *save;
    for (char *at = strtok_r(list, ",", &save); at; at = strtok_r(NULL, ",", &save))
        if (*n == CORE_MAX_CHAIN || !parse_int(at, 0, SNAPSHOT_SLOTS - 1, &chain[(*n)++])) return false;
    return true;
}

/* Without a thick slot (-1) the first thin one must begin at the first token. */
static void do_restore_chain(server_daemon *d, const words *w, const wishes *more)
{
    lines_state *s = d->state;
    int chain[CORE_MAX_CHAIN], n = 0, n_gen;
    if (!has_target(d, FORM_CHAIN)) return;
    bool ok = w->n == 5 && parse_int(w->word[1], -1, SNAPSHOT_SLOTS - 1, &s->slot) &&
              parse_int(w->word[4], 1, INT32_MAX, &n_gen);
    if (ok && s->slot >= 0) chain[n++] = s->slot;
    ok = ok && parse_thins(w->word[2], chain, &n) && n > 0;
    if (!ok)
        refuse_form(d, FORM_CHAIN, "bad_args");
    else
        generate_on(d, FORM_CHAIN, chain, n, w->word[3], n_gen, more);
}

static void on_restored(void *ud, command *c)
{
    server_daemon *d = ud;
    const lines_state *s = d->state;
    if (s->form == FORM_CHAIN)
        outlet_printf(&d->out, "[snap] chain restored thick=%d thins=%d cur_pos=%d\n", s->slot,
                      c->n_chain - (s->slot >= 0), c->n_restored);
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
    case CORE_PARKED: snprintf(out, size, "target_parked"); break;
    case CORE_SLOT_EMPTY: snprintf(out, size, "empty_slot"); break;
    case CORE_SLOT_MISMATCH:
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
    if (s->form == FORM_RESTORE || s->form == FORM_CHAIN) put_end(d);
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
    case FORM_CHAIN: /* its line came when the chain was in place */
    case FORM_OTHER: break;
    }
}

/* The end token is counted and sent like the others. */
static void on_generated(server_daemon *d, command *c)
{
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
    if (s->form == FORM_FILES && (s->tokens.failed || ids_write(s->out_path, s->tokens.data,
                                                                s->tokens.len / sizeof(int32_t), &err) != FACET_OK)) {
        log_line(FACET_LOG_WARN, "%s", s->tokens.failed ? "out of memory for generated tokens" : err.message);
        outlet_printf(&d->out, "err write_out\n");
        return;
    }
    reply_ok(d, c, n_gen);
}

/* ---- slots, parts ---- */

static void do_snapshot(server_daemon *d, const words *w, const wishes *more)
{
    (void)more;
    lines_state *s = d->state;
    command *c = command_new(COMMAND_STORE, 0);
    if (!c || w->n != 2 || !parse_int(w->word[1], INT32_MIN, INT32_MAX, &s->slot)) {
        outlet_printf(&d->out, "err %s\n", c ? "bad_args" : NO_MEMORY);
        command_free(c);
        return;
    }
    c->store_slot = s->slot;
    core_submit(d->core, c);
}

static void do_snapshot_thin(server_daemon *d, const words *w, const wishes *more)
{
    (void)more;
    lines_state *s = d->state;
    command *c = command_new(COMMAND_STORE, 0);
    if (!c || w->n != 4 || !parse_int(w->word[1], 0, SNAPSHOT_SLOTS - 1, &s->slot) ||
        !parse_int(w->word[2], 0, INT32_MAX, &s->first) || !parse_int(w->word[3], s->first + 1LL, INT32_MAX, &s->end)) {
        outlet_printf(&d->out, "err %s\n", c ? "bad_args" : NO_MEMORY);
        command_free(c);
        return;
    }
    c->store_slot = s->slot;
    c->store_first = s->first;
    c->store_n = s->end;
    c->tag = s; /* thin */
    core_submit(d->core, c);
}

static void do_free_snapshot(server_daemon *d, const words *w, const wishes *more)
{
    (void)more;
    int slot;
    if (w->n != 2 || !parse_int(w->word[1], INT32_MIN, INT32_MAX, &slot)) {
        outlet_printf(&d->out, "err bad_args\n");
        return;
    }
    snapshot_free(core_engine(d->core), slot, NULL);
    outlet_printf(&d->out, "[snap] freed slot=%d\n", slot);
}

static void do_list_slots(server_daemon *d, const words *w, const wishes *more)
{
    (void)more;
    if (w->n != 1) {
        outlet_printf(&d->out, "err bad_args\n");
        return;
    }
    snapshot_info list[SNAPSHOT_SLOTS];
    const int n = snapshot_list(core_engine(d->core), list);
    outlet_printf(&d->out, "[snap] slots=");
    for (int i = 0; i < n; i++) outlet_printf(&d->out, "%s%d", i ? "," : "", list[i].slot);
    outlet_printf(&d->out, "\n");
}

static bool parse_parts(const words *w, unsigned *out)
{
    const char *what = w->n > 1 ? w->word[1] : "all";
    const bool is_draft = strcmp(what, "draft") == 0 || strcmp(what, "drafter") == 0;
    *out = is_draft ? PARK_DRAFTERS : strcmp(what, "target") == 0 ? PARK_TARGET : PARK_ALL;
    return w->n <= 2 && (is_draft || *out == PARK_TARGET || strcmp(what, "all") == 0);
}

static void change_parts(server_daemon *d, command_kind kind, unsigned parts, park_kv kv)
{
    command *c = command_new(kind, SCOPE_ALL);
    if (!c) {
        refuse(d, NO_MEMORY);
        return;
    }
    c->parts = parts;
    c->kv = kv;
    core_submit(d->core, c);
}

/* The cache goes to host memory and comes back, so that conversations survive. */
static void do_park(server_daemon *d, const words *w, const wishes *more)
{
    unsigned parts;
    (void)more;
    if (parse_parts(w, &parts))
        change_parts(d, COMMAND_PARK, parts, FACET_PARK_KV_HOST);
    else
        refuse(d, "bad_args");
}

static void do_unpark(server_daemon *d, const words *w, const wishes *more)
{
    unsigned parts;
    (void)more;
    if (parse_parts(w, &parts))
        change_parts(d, COMMAND_UNPARK, parts, FACET_PARK_KV_HOST);
    else
        refuse(d, "bad_args");
}

/* "free drafter" or "drafter free": its context does not come back. */
static void do_free_drafter(server_daemon *d, const words *w, const wishes *more)
{
    (void)more;
    if (w->n == 2 && strcmp(w->word[1], w->word[0][0] == 'f' ? "drafter" : "free") == 0)
        change_parts(d, COMMAND_PARK, PARK_DRAFTERS, FACET_PARK_KV_DROP);
    else
        refuse(d, "unknown_command");
}

static void on_end(void *ud, command *c)
{
    server_daemon *d = ud;
    const lines_state *s = d->state;
    if (c->kind == COMMAND_GENERATE) {
        on_generated(d, c);
        return;
    }
    if (c->code != CORE_OK) log_line(FACET_LOG_WARN, "%s", c->err.message);
    if (c->kind != COMMAND_STORE) { /* parts */
        if (c->code == CORE_OK)
            put_end(d);
        else
            refuse(d, core_code_name(c->code));
    } else if (!c->tag) {
        outlet_printf(&d->out, "[snap] inline slot=%d cur_pos=%d\n", s->slot, c->code == CORE_OK ? c->n_stored : -1);
    } else if (c->code == CORE_OK) {
        outlet_printf(&d->out, "[snap] thin slot=%d kv=%d,%d\n", s->slot, s->first, s->end);
    } else {
        outlet_printf(&d->out, "err %s\n", c->code == CORE_BAD_REQUEST ? "bad_args" : core_code_name(c->code));
    }
}

/* ---- lines ---- */

static void drop(server_daemon *d);

static bool is_path(const char *word)
{
    return *word == '.' || strchr(word, '/');
}

/* Scores need a model that reads the prompt for this purpose (docs/protocol.md). */
static void do_compress(server_daemon *d, const words *w, const wishes *more)
{
    (void)w, (void)more;
    log_line(FACET_LOG_WARN, "compress: this daemon cannot shorten prompts: give the complete prompt");
    refuse(d, "unsupported feature=compress");
}

static const struct {
    const char *name;
    void (*run)(server_daemon *d, const words *w, const wishes *more);
    bool has_end; /* -1 on the stream behind an error */
} verbs[] = {{"generate", do_generate, false},
             {"RESTORE", do_restore, true},
             {"RESTORE_CHAIN", do_restore_chain, true},
             {"SNAPSHOT", do_snapshot, false},
             {"SNAPSHOT_THIN", do_snapshot_thin, false},
             {"FREE_SNAPSHOT", do_free_snapshot, false},
             {"LIST_SLOTS", do_list_slots, false},
             {"park", do_park, true},
             {"unpark", do_unpark, true},
             {"free", do_free_drafter, true},
             {"drafter", do_free_drafter, true},
             {"compress", do_compress, true}};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Of a line [n] that cannot be kept: whether its client would wait for -1. */
static bool has_end(const char *text, size_t n)
{
    size_t begin = 0, end;
    while (begin < n && is_blank(text[begin])) begin++;
    for (end = begin; end < n && !is_blank(text[end]);) end++;
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (strlen(verbs[i].name) == end - begin && memcmp(text + begin, verbs[i].name, end - begin) == 0)
            return verbs[i].has_end;
    return true;
}

static void run_words(server_daemon *d, const words *w, const wishes *more)
{
    const char *first = w->n ? w->word[0] : "";
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (strcmp(first, verbs[i].name) != 0) continue;
        verbs[i].run(d, w, more);
        return;
    }
    if (is_path(first))
        do_bare(d, w, more);
    else
        refuse(d, "unknown_command");
}

/* `line` is cut up. */
static void run_line(server_daemon *d, char *line)
{
    if (strcmp(line, "quit") == 0 || strcmp(line, "exit") == 0) {
        d->is_ending = true;
        drop(d);
        return;
    }
    const words w = split(line);
    lines_state *s = d->state;
    s->form = FORM_OTHER;
    run_words(d, &w, &(wishes){.samp = w.samp, .snap = w.snap});
}

static void run_pending(server_daemon *d, const pending_line *l)
{
    if (!l->text) {
        outlet_printf(&d->out, "err " NO_MEMORY "\n");
        if (l->has_end) put_end(d);
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
        pending_line l = s->queue[s->head];
        s->head = (s->head + 1) % d->config->n_queue;
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
    s->queue[(s->head + s->n++) % d->config->n_queue] = (pending_line){what, mem_strndup(text, n), n, has_end(text, n)};
}

static void drop(server_daemon *d)
{
    lines_state *s = d->state;
    for (; s->n > 0; s->n--) {
        mem_free(s->queue[s->head].text);
        s->head = (s->head + 1) % d->config->n_queue;
    }
}

static void stream_gone(server_daemon *d)
{
    const lines_state *s = d->state;
    if (s->form != FORM_FILES && s->form != FORM_OTHER) core_cancel_all(d->core, CORE_IO);
}

static void ready(server_daemon *d)
{
    const facet_engine *e = core_engine(d->core);
    facet_model_info m;
    facet_model_describe(e->model, &m);
    outlet_printf(&d->out, "[gemma4-daemon] ready n_layer=%d n_embd=%d vocab=%d max_ctx=%d draft=%s sparse_fa=%d\n",
                  m.n_layers, m.n_embd, m.n_vocab, facet_engine_n_ctx(e),
                  e->dflash ? "dflash"
                  : e->mtp  ? "mtp"
                            : "none",
                  sparse_is_on(&e->plan->sparse));
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
    drop(d);
    mem_free(s->queue);
    mem_free(s->out_path);
    buf_free(&s->tokens);
    mem_free(s);
}

const protocol_ops protocol_lines = {.events = {.on_restored = on_restored, .on_tokens = on_tokens, .on_end = on_end},
                                     .open = open_lines,
                                     .ready = ready,
                                     .wants_line = wants_line,
                                     .line = take_line,
                                     .pump = pump,
                                     .is_idle = is_idle,
                                     .drop = drop,
                                     .stream_gone = stream_gone,
                                     .close = close_lines};
