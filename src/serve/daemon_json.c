/* daemon_json.c: the JSON protocol: an object per line, both ways. Requests have ids; each ends with exactly one event
 * "done", "result" or "error" that carries its id. docs/protocol.md. */
#include <jansson.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "decode/engine.h"
#include "decode/prefix.h"
#include "serve/daemon_fields.h"
#include "serve/daemon_internal.h"
#include "serve/daemon_json_read.h"
#include "serve/spec_json.h"
#include "text/json_read.h"

enum { PROTOCOL_VERSION = 1, MAX_ID = 128, PROGRESS_MS = 100 };

/* What goes with a command. */
typedef struct request {
    json_t *id; /* a string or an integer */
    bool is_streamed, wants_progress;
    size_t n_sent;        /* tokens that were handed out */
    buf text;             /* of a generation that is not streamed */
    json_t *tokens;       /* likewise */
    uint64_t progress_at; /* ns of the last event of progress */
} request;

/* ---- events ---- */

static const char no_memory[] = "{\"id\":null,\"event\":\"error\",\"code\":\"out_of_memory\",\"retryable\":true,"
                                "\"message\":\"out of memory for a reply\"}\n";

/* Takes the reference; NULL: there was no memory to make it. */
static void emit(server_daemon *d, json_t *event)
{
    buf line = {0};
    const bool ok = event && json_print(event, JSON_COMPACT, &line) && buf_putc(&line, '\n') &&
                    outlet_put(&d->out, line.data, line.len);
    if (!ok) outlet_put(&d->out, no_memory, sizeof no_memory - 1);
    buf_free(&line);
    json_decref(event);
}

static bool is_retryable(core_code c)
{
    return c == CORE_BUSY || c == CORE_OUT_OF_MEMORY || c == CORE_PARKED || c == CORE_CANCELLED;
}

/* id may be NULL; more: further fields (its reference is taken), or NULL. */
static void emit_error(server_daemon *d, json_t *id, core_code code, const char *message, json_t *more)
{
    json_t *e = json_pack("{s:O?, s:s, s:s, s:b, s:s}", "id", id, "event", "error", "code", core_code_name(code),
                          "retryable", is_retryable(code), "message", message);
    if (e && more) json_object_update(e, more);
    json_decref(more);
    emit(d, e);
}

/* result: its reference is taken. */
static void emit_result(server_daemon *d, json_t *id, json_t *result)
{
    emit(d, result ? json_pack("{s:O, s:s, s:o}", "id", id, "event", "result", "result", result) : NULL);
}

/* ---- what comes of commands ---- */

static void on_start(void *ud, command *c)
{
    const request *r = c->tag;
    if (c->kind != COMMAND_GENERATE || !r->is_streamed) return;
    emit(ud, json_pack("{s:O, s:s, s:I, s:f}", "id", r->id, "event", "start", "prompt_tokens", (json_int_t)c->n_prompt,
                       "queue_ms", c->queue_ms));
}

static void on_progress(void *ud, command *c, uint64_t n_done, uint64_t total)
{
    request *r = c->tag;
    const uint64_t now = clock_ns();
    if (!r->wants_progress || (r->progress_at && now - r->progress_at < PROGRESS_MS * 1000000ull)) return;
    r->progress_at = now;
    emit(ud, json_pack("{s:O, s:s, s:s, s:I, s:I}", "id", r->id, "event", "progress", "phase", "prefill", "done",
                       (json_int_t)n_done, "total", (json_int_t)total));
}

static json_t *id_array(const int32_t *ids, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n && a; i++)
        if (json_array_append_new(a, json_integer(ids[i])) != 0) {
            json_decref(a);
            a = NULL;
        }
    return a;
}

static void on_tokens(void *ud, command *c)
{
    request *r = c->tag;
    const char *text = c->fresh_text.data ? c->fresh_text.data : "";
    json_t *ids = id_array(c->fresh, c->n_fresh);
    if (r->is_streamed) {
        emit(ud, ids ? json_pack("{s:O, s:s, s:I, s:o, s:s%}", "id", r->id, "event", "tokens", "index",
                                 (json_int_t)r->n_sent, "tokens", ids, "text", text, c->fresh_text.len)
                     : NULL);
    } else {
        if (c->fresh_text.len) buf_append(&r->text, text, c->fresh_text.len);
        if (!ids || json_array_extend(r->tokens, ids) != 0) r->text.failed = true;
        json_decref(ids);
    }
    r->n_sent += c->n_fresh;
}

static const char *reason_of(const command *c)
{
    static const char *const stops[] = {"length", "eos", "stop", "cancelled"};
    return c->code == CORE_OK ? stops[c->result.stop] : core_code_name(c->code);
}

static bool ended_early(const command *c)
{
    return c->code == CORE_CANCELLED || c->code == CORE_DEADLINE || c->code == CORE_SLOW_READER;
}

static void emit_done(server_daemon *d, const command *c)
{
    request *r = c->tag;
    const facet_generate_result *g = &c->result;
    const bool has_prompt = c->code == CORE_OK || g->n_tokens > 0; /* else nothing is known about it */
    const json_int_t n_reused = has_prompt ? (json_int_t)c->n_prompt - g->n_prefill : 0;
    const double per_s = g->decode_ms > 0 ? 1000.0 * g->n_tokens / g->decode_ms : 0;
    json_t *e = json_pack("{s:O, s:s, s:s, s:{s:I, s:I, s:I}, s:{s:f, s:f, s:f, s:f, s:f}, s:o, s:i}", "id", r->id,
                          "event", "done", "reason", reason_of(c), "usage", "prompt_tokens", (json_int_t)c->n_prompt,
                          "reused_tokens", n_reused, "completion_tokens", (json_int_t)r->n_sent, "timings", "queue_ms",
                          c->queue_ms, "prefill_ms", g->prefill_ms, "first_token_ms", c->first_token_ms, "decode_ms",
                          g->decode_ms, "tokens_per_second", per_s, "speculation", spec_json(&g->spec),
                          "session_tokens", facet_session_n_tokens(core_session(d->core, c->scope)));
    if (e && g->end_token >= 0) json_object_set_new(e, "end_token", json_integer(g->end_token));
    if (e && c->store_slot >= 0) json_object_set_new(e, "snapshot_tokens", json_integer(c->n_stored));
    if (e && c->n_chain) json_object_set_new(e, "restored_tokens", json_integer(c->n_restored));
    if (e && !r->is_streamed) {
        json_object_set(e, "tokens", r->tokens);
        json_object_set_new(e, "text", json_stringn(r->text.data ? r->text.data : "", r->text.len));
    }
    if (r->text.failed) {
        json_decref(e);
        e = NULL;
    }
    emit(d, e);
}

static json_t *slot_object(const snapshot_info *s)
{
    return json_pack("{s:i, s:i, s:i, s:I, s:I, s:s}", "slot", s->slot, "first", s->first, "tokens", s->n_tokens,
                     "bytes", (json_int_t)s->bytes, "own_bytes", (json_int_t)s->own_bytes, "label", s->label);
}

static json_t *result_of(const server_daemon *d, const command *c)
{
    snapshot_info info = {.slot = -1};
    switch (c->kind) {
    case COMMAND_STORE:
    case COMMAND_LOAD:
    case COMMAND_SAVE:
        snapshot_describe(core_engine(d->core), c->kind == COMMAND_STORE ? c->store_slot : c->slot, &info);
        return slot_object(&info);
    case COMMAND_RESTORE: return json_pack("{s:i}", "tokens", c->n_restored);
    case COMMAND_FORK: return json_pack("{s:i}", "tokens", facet_session_n_tokens(core_session(d->core, c->slot)));
    case COMMAND_PARK:
    case COMMAND_UNPARK:
        return json_pack("{s:I, s:I, s:I, s:I, s:f}", "weights", (json_int_t)c->report.weights, "kv",
                         (json_int_t)c->report.kv, "compute", (json_int_t)c->report.compute, "host",
                         (json_int_t)c->report.host, "ms", c->report.ms);
    default: return json_object();
    }
}

/* Figures that belong to an error. */
static json_t *detail_of(const server_daemon *d, const command *c)
{
    if (c->code != CORE_CONTEXT_OVERFLOW) return NULL;
    return json_pack("{s:i, s:I, s:I}", "limit", facet_engine_n_ctx(core_engine(d->core)), "prompt",
                     (json_int_t)c->n_prompt, "requested",
                     (json_int_t)c->n_prompt + (c->n_predict > 0 ? c->n_predict : 0));
}

static void request_free(request *r)
{
    if (!r) return;
    json_decref(r->id);
    json_decref(r->tokens);
    buf_free(&r->text);
    mem_free(r);
}

static void on_end(void *ud, command *c)
{
    server_daemon *d = ud;
    request *r = c->tag;
    if (c->kind == COMMAND_GENERATE && (c->code == CORE_OK || ended_early(c)))
        emit_done(d, c);
    else if (c->code != CORE_OK)
        emit_error(d, r->id, c->code, c->err.message, detail_of(d, c));
    else
        emit_result(d, r->id, result_of(d, c));
    request_free(r);
    c->tag = NULL;
}

/* ---- requests ---- */

typedef struct asked {
    server_daemon *d;
    json_t *o;  /* the request's fields but for "id" and "op" */
    json_t *id; /* borrowed */
} asked;

/* A refusal before anything was begun. */
static void refuse(const asked *a, facet_status status, const facet_error *err)
{
    const core_code code = status == FACET_ERR_MEMORY        ? CORE_OUT_OF_MEMORY
                           : status == FACET_ERR_UNSUPPORTED ? CORE_UNSUPPORTED
                           : status == FACET_ERR_IO          ? CORE_IO
                                                             : CORE_BAD_REQUEST;
    emit_error(a->d, a->id, code, err->message, NULL);
}

/* The command goes to the core when `status` is still fine, and no field is left. */
static void submit(const asked *a, command *c, facet_status status, facet_error *err)
{
    request *r = c ? c->tag : NULL;
    if (status == FACET_OK) status = take_nothing(a->o, err);
    if (status == FACET_OK) {
        core_submit(a->d->core, c);
        return;
    }
    refuse(a, status, err);
    request_free(r);
    command_free(c);
}

/* A command with its request; NULL after the refusal. */
static command *new_command(const asked *a, command_kind kind, int scope)
{
    command *c = command_new(kind, scope);
    request *r = mem_calloc(1, sizeof *r);
    if (c && r) {
        r->id = json_incref(a->id);
        r->is_streamed = true;
        c->tag = r;
        return c;
    }
    command_free(c);
    mem_free(r);
    emit_error(a->d, a->id, CORE_OUT_OF_MEMORY, "out of memory: a command", NULL);
    return NULL;
}

static facet_status read_session(const asked *a, const char *name, int *out, facet_error *err)
{
    int32_t session = 0;
    FACET_TRY(take_int32(a->o, name, 0, a->d->config->n_sessions - 1, &session, err));
    *out = session;
    return FACET_OK;
}

static void op_generate(const asked *a)
{
    facet_error err;
    command *c = new_command(a, COMMAND_GENERATE, 0);
    if (!c) return;
    request *r = c->tag;
    facet_engine *e = core_engine(a->d->core);
    facet_status status = command_inherit(c, &a->d->config->sampling, &a->d->config->generate)
                              ? FACET_OK
                              : error_memory(&err, "a command", 1);
    c->n_predict = a->d->config->generate.n_predict ? a->d->config->generate.n_predict : -1;
    if (status == FACET_OK) status = read_session(a, "session", &c->scope, &err);
    if (status == FACET_OK) status = take_bool(a->o, "stream", &r->is_streamed, &err);
    if (status == FACET_OK) status = take_bool(a->o, "progress", &r->wants_progress, &err);
    if (status == FACET_OK && !r->is_streamed && !(r->tokens = json_array()))
        status = error_memory(&err, "a list of tokens", 1);
    if (status == FACET_OK) status = json_read_generation(e->model, e->n_ctx, a->o, c, &err);
    submit(a, c, status, &err);
}

/* One that concerns a session, and slots that `read` reads. */
static void session_command(const asked *a, command_kind kind,
                            facet_status (*read)(json_t *o, command *c, facet_error *err))
{
    facet_error err;
    command *c = new_command(a, kind, 0);
    if (!c) return;
    facet_status status = read_session(a, "session", &c->scope, &err);
    if (status == FACET_OK) status = read(a->o, c, &err);
    submit(a, c, status, &err);
}

static void op_snapshot(const asked *a)
{
    session_command(a, COMMAND_STORE, json_read_store);
}

static void op_restore(const asked *a)
{
    session_command(a, COMMAND_RESTORE, json_read_chain);
}

static void op_free_snapshot(const asked *a)
{
    facet_error err;
    command *c = new_command(a, COMMAND_FREE, SCOPE_ALL);
    if (c) submit(a, c, json_read_slot(a->o, true, &c->slot, &err), &err);
}

static void file_command(const asked *a, command_kind kind)
{
    facet_error err;
    json_t *path = NULL;
    command *c = new_command(a, kind, SCOPE_ALL);
    if (!c) return;
    facet_status status = json_read_slot(a->o, false, &c->slot, &err);
    if (status == FACET_OK) status = take_string(a->o, "path", &path, &err);
    if (status == FACET_OK && (!path || !*json_string_value(path))) status = field_error(path, "path", "a file", &err);
    if (status == FACET_OK && !(c->path = mem_strdup(json_string_value(path))))
        status = error_memory(&err, "a path", json_string_length(path));
    json_decref(path);
    submit(a, c, status, &err);
}

static void op_save_snapshot(const asked *a)
{
    file_command(a, COMMAND_SAVE);
}

static void op_load_snapshot(const asked *a)
{
    file_command(a, COMMAND_LOAD);
}

static void op_fork(const asked *a)
{
    facet_error err;
    command *c = new_command(a, COMMAND_FORK, SCOPE_ALL);
    if (!c) return;
    facet_status status = read_session(a, "from", &c->from, &err);
    if (status == FACET_OK) status = read_session(a, "to", &c->slot, &err);
    submit(a, c, status, &err);
}

static void op_park(const asked *a)
{
    facet_error err;
    command *c = new_command(a, COMMAND_PARK, SCOPE_ALL);
    if (!c) return;
    c->kv = FACET_PARK_KV_HOST;
    facet_status status = json_read_parts(a->o, &c->parts, &err);
    if (status == FACET_OK) status = json_read_kv(a->o, &c->kv, &err);
    submit(a, c, status, &err);
}

static void op_unpark(const asked *a)
{
    facet_error err;
    command *c = new_command(a, COMMAND_UNPARK, SCOPE_ALL);
    if (c) submit(a, c, json_read_parts(a->o, &c->parts, &err), &err);
}

/* ---- requests that are answered at once ---- */

/* result: its reference is taken; NULL with FACET_OK: there was no memory for it. */
static void answer(const asked *a, facet_status status, facet_error *err, json_t *result)
{
    if (status == FACET_OK) status = take_nothing(a->o, err);
    if (status == FACET_OK && !result) status = error_memory(err, "a result", 1);
    if (status == FACET_OK) {
        emit_result(a->d, a->id, result);
        return;
    }
    json_decref(result);
    refuse(a, status, err);
}

static void op_ping(const asked *a)
{
    facet_error err;
    answer(a, FACET_OK, &err, json_object());
}

static void op_list_snapshots(const asked *a)
{
    facet_error err;
    snapshot_info list[SNAPSHOT_SLOTS];
    const int n = snapshot_list(core_engine(a->d->core), list);
    json_t *slots = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(slots, slot_object(&list[i]));
    answer(a, FACET_OK, &err, slots ? json_pack("{s:o}", "snapshots", slots) : NULL);
}

static bool has_id(const command *c, const void *key)
{
    const request *r = c->tag;
    return r && json_equal(r->id, key);
}

static void op_cancel(const asked *a)
{
    facet_error err;
    json_t *target = take_any(a->o, "target");
    facet_status status = target ? FACET_OK : field_error(NULL, "target", "the id of a request", &err);
    if (status == FACET_OK) status = take_nothing(a->o, &err);
    command *c = status == FACET_OK ? core_find(a->d->core, has_id, target) : NULL;
    json_decref(target);
    const bool is_found = c != NULL;
    if (is_found) core_cancel(a->d->core, c, CORE_CANCELLED);
    answer(a, status, &err, json_pack("{s:b}", "found", is_found));
}

static void op_credit(const asked *a)
{
    facet_error err;
    int64_t tokens = 0;
    json_t *target = take_any(a->o, "target");
    facet_status status = target ? FACET_OK : field_error(NULL, "target", "the id of a request", &err);
    if (status == FACET_OK) status = take_int(a->o, "tokens", 1, INT64_MAX, &tokens, &err);
    if (status == FACET_OK && !tokens) status = field_error(NULL, "tokens", "1 or more", &err);
    if (status == FACET_OK) status = take_nothing(a->o, &err);
    command *c = status == FACET_OK ? core_find(a->d->core, has_id, target) : NULL;
    json_decref(target);
    if (c) core_give_credit(c, tokens);
    answer(a, status, &err, json_pack("{s:b}", "found", c != NULL));
}

static void op_tokenize(const asked *a)
{
    facet_error err;
    bool has_text, add_bos, special;
    buf text = {0};
    int32_t *ids = NULL;
    size_t n = 0;
    const facet_model *m = core_engine(a->d->core)->model;
    facet_status status = json_read_text(m, a->o, &text, &has_text, &add_bos, &special, &err);
    if (status == FACET_OK && !has_text) status = field_error(NULL, "text", "a string (or messages)", &err);
    if (status == FACET_OK)
        status = facet_tokenize(m, text.data ? text.data : "", text.len, add_bos, special, &ids, &n, &err);
    answer(a, status, &err, status == FACET_OK ? json_pack("{s:o}", "tokens", id_array(ids, n)) : NULL);
    facet_free(ids);
    buf_free(&text);
}

static void op_detokenize(const asked *a)
{
    facet_error err;
    int32_t *ids = NULL;
    char *text = NULL;
    size_t n = 0, n_text = 0;
    bool show_special = false;
    json_t *list = take_any(a->o, "tokens");
    facet_status status = json_read_ids(list, "tokens", &ids, &n, &err);
    if (status == FACET_OK) status = take_bool(a->o, "show_special", &show_special, &err);
    if (status == FACET_OK)
        status = facet_detokenize(core_engine(a->d->core)->model, ids, n, show_special, &text, &n_text, &err);
    answer(a, status, &err, status == FACET_OK ? json_pack("{s:s%}", "text", text, n_text) : NULL);
    facet_free(text);
    mem_free(ids);
    json_decref(list);
}

static void op_render(const asked *a)
{
    facet_error err;
    bool has_text, add_bos, special;
    buf text = {0};
    facet_status status =
        json_read_text(core_engine(a->d->core)->model, a->o, &text, &has_text, &add_bos, &special, &err);
    if (status == FACET_OK && (!has_text || add_bos)) status = field_error(NULL, "messages", "an array", &err);
    answer(a, status, &err,
           status == FACET_OK ? json_pack("{s:s%}", "text", text.data ? text.data : "", text.len) : NULL);
    buf_free(&text);
}

static json_t *parked_parts(unsigned parts)
{
    static const struct {
        const char *name;
        unsigned part;
    } names[] = {{"target", PARK_TARGET}, {"mtp", PARK_MTP}, {"dflash", PARK_DFLASH}};
    json_t *list = json_array();
    for (int i = 0; i < 3; i++)
        if (parts & names[i].part) json_array_append_new(list, json_string(names[i].name));
    return list;
}

static json_t *session_list(const server_daemon *d)
{
    json_t *list = json_array();
    for (int i = 0; i < d->config->n_sessions; i++)
        json_array_append_new(list, json_pack("{s:i}", "tokens", facet_session_n_tokens(core_session(d->core, i))));
    return list;
}

static void op_status(const asked *a)
{
    facet_error err;
    const facet_engine *e = core_engine(a->d->core);
    facet_engine_info i;
    facet_memory m;
    facet_engine_describe(e, &i);
    facet_engine_memory(e, &m);
    answer(a, FACET_OK, &err,
           json_pack("{s:s, s:s, s:i, s:i, s:I, s:o, s:o, s:{s:I, s:I, s:I, s:I, s:I}, s:{s:i, s:i}, s:{s:i, s:I, s:I, "
                     "s:I}}",
                     "device", i.device, "description", i.description, "commands", core_n_commands(a->d->core),
                     "snapshots", snapshot_list(e, NULL), "steps", (json_int_t)i.n_steps, "parked",
                     parked_parts(engine_parked(e)), "sessions", session_list(a->d), "memory", "weights",
                     (json_int_t)m.weights, "kv", (json_int_t)m.kv, "compute", (json_int_t)m.compute, "peak_rss",
                     (json_int_t)m.peak_rss, "device", (json_int_t)m.device, "pages", "all", i.n_pages, "free",
                     i.n_free_pages, "cached_prompts", "n", i.n_cached_prompts, "bytes", (json_int_t)i.cached_bytes,
                     "hits", (json_int_t)i.n_prompt_hits, "reused_tokens", (json_int_t)i.n_reused_tokens));
}

static void op_shutdown(const asked *a)
{
    facet_error err;
    bool is_now = false;
    facet_status status = take_bool(a->o, "now", &is_now, &err);
    if (status == FACET_OK) status = take_nothing(a->o, &err);
    if (status == FACET_OK) a->d->is_ending = true;
    if (status == FACET_OK && is_now) core_cancel_all(a->d->core, CORE_CANCELLED);
    answer(a, status, &err, json_object());
}

/* ---- lines ---- */

static const struct {
    const char *name;
    void (*run)(const asked *a);
    bool waits; /* it takes a place in the queue */
} ops[] = {{"generate", op_generate, true},
           {"cancel", op_cancel, false},
           {"credit", op_credit, false},
           {"tokenize", op_tokenize, false},
           {"detokenize", op_detokenize, false},
           {"render", op_render, false},
           {"snapshot", op_snapshot, true},
           {"restore", op_restore, true},
           {"free_snapshot", op_free_snapshot, true},
           {"list_snapshots", op_list_snapshots, false},
           {"save_snapshot", op_save_snapshot, true},
           {"load_snapshot", op_load_snapshot, true},
           {"fork", op_fork, true},
           {"park", op_park, true},
           {"unpark", op_unpark, true},
           {"status", op_status, false},
           {"ping", op_ping, false},
           {"shutdown", op_shutdown, false}};
enum { N_OPS = sizeof ops / sizeof *ops };

static bool is_id(const json_t *id)
{
    return json_is_integer(id) ||
           (json_is_string(id) && json_string_length(id) > 0 && json_string_length(id) <= MAX_ID);
}

static void run(const asked *a, const char *op)
{
    int i = 0;
    char message[128];
    while (i < N_OPS && strcmp(op, ops[i].name) != 0) i++;
    if (i == N_OPS) {
        snprintf(message, sizeof message, "op: '%.60s' is not known", op);
        emit_error(a->d, a->id, CORE_UNKNOWN_COMMAND, message, NULL);
    } else if (core_find(a->d->core, has_id, a->id)) {
        emit_error(a->d, a->id, CORE_BAD_REQUEST, "id: a request with this id has not ended yet", NULL);
    } else if (ops[i].waits && core_n_commands(a->d->core) >= a->d->config->n_queue) {
        snprintf(message, sizeof message, "%d requests run or wait: no more are taken", a->d->config->n_queue);
        emit_error(a->d, a->id, CORE_BUSY, message, json_pack("{s:i}", "queue", a->d->config->n_queue));
    } else {
        ops[i].run(a);
    }
}

static void run_object(server_daemon *d, json_t *o)
{
    if (!json_is_object(o)) {
        emit_error(d, NULL, CORE_BAD_REQUEST, "a line is no JSON object", NULL);
        return;
    }
    json_t *id = take_any(o, "id"), *op = take_any(o, "op");
    const asked a = {.d = d, .o = o, .id = id};
    if (!is_id(id))
        emit_error(d, NULL, CORE_BAD_REQUEST, "id: wanted an integer, or a string of 1 to 128 bytes", NULL);
    else if (!json_is_string(op))
        emit_error(d, id, CORE_BAD_REQUEST, "op: wanted the name of an operation", NULL);
    else
        run(&a, json_string_value(op));
    json_decref(id);
    json_decref(op);
}

static void take_line(server_daemon *d, inlet_item what, const char *text, size_t n)
{
    json_t *o = NULL;
    facet_error err;
    char message[96];
    if (what == INLET_TOO_LONG) {
        snprintf(message, sizeof message, "a line is longer than %zu bytes", d->in.max_line);
        emit_error(d, NULL, CORE_BAD_REQUEST, message, NULL);
    } else if (what == INLET_CUT) {
        emit_error(d, NULL, CORE_BAD_REQUEST, "the input ends within a line", NULL);
    } else if (json_read("a line", text, n, JSON_ALLOW_NUL, &o, &err) != FACET_OK) {
        emit_error(d, NULL, err.status == FACET_ERR_MEMORY ? CORE_OUT_OF_MEMORY : CORE_BAD_REQUEST, err.message, NULL);
    } else {
        run_object(d, o);
        json_decref(o);
    }
}

/* ---- the daemon's side ---- */

static bool wants_line(const server_daemon *d)
{
    return !outlet_is_full(&d->out);
}

static json_t *drafters(const facet_engine *e)
{
    json_t *list = json_array();
    if (e->mtp) json_array_append_new(list, json_string("mtp"));
    if (e->dflash) json_array_append_new(list, json_string("dflash"));
    return list;
}

static void ready(server_daemon *d)
{
    const facet_engine *e = core_engine(d->core);
    facet_model_info m;
    facet_engine_info i;
    facet_model_describe(e->model, &m);
    facet_engine_describe(e, &i);
    emit(d,
         json_pack("{s:s, s:i, s:s, s:s, s:{s:s, s:i, s:i, s:i, s:i, s:i, s:i}, s:o, s:{s:s, s:s}, s:{s:i, s:i, s:i, "
                   "s:I, s:i}}",
                   "event", "ready", "protocol", PROTOCOL_VERSION, "version", facet_version(), "device", i.device,
                   "model", "name", m.name, "layers", m.n_layers, "embd", m.n_embd, "vocab", m.n_vocab, "ctx_train",
                   m.n_ctx, "bos", m.bos, "eos", m.eos, "drafters", drafters(e), "cache", "k",
                   kv_type_get(e->kv.layers[0].k_type)->name, "v", kv_type_get(e->kv.layers[0].v_type)->name, "limits",
                   "ctx", e->n_ctx, "sessions", d->config->n_sessions, "queue", d->config->n_queue, "line_bytes",
                   (json_int_t)d->in.max_line, "slots", SNAPSHOT_SLOTS));
}

const protocol_ops protocol_json = {
    .events = {.on_start = on_start, .on_progress = on_progress, .on_tokens = on_tokens, .on_end = on_end},
    .ready = ready,
    .wants_line = wants_line,
    .line = take_line};
