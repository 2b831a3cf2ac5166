#include "serve/daemon_core.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "decode/scheduler.h"

struct core {
    facet_engine *engine;
    scheduler *scheduler;
    const core_events *events;
    void *ud;
    facet_session **sessions; /* [n_sessions] */
    int n_sessions;
    command *first, *last; /* in the order in which they came */
    int n_commands;
};

const char *core_code_name(core_code c)
{
#define X(name, text) text,
    static const char *const names[] = {CORE_CODES(X)};
#undef X
    return names[c];
}

/* ---- commands ---- */

command *command_new(command_kind kind, int scope)
{
    command *c = mem_calloc(1, sizeof *c);
    if (!c) return NULL;
    c->kind = kind;
    c->scope = scope;
    c->n_predict = -1;
    c->sampling = facet_sampling_default();
    c->params = facet_generate_params_default();
    c->result.end_token = -1;
    return c;
}

void command_free(command *c)
{
    if (!c) return;
    for (size_t i = 0; i < c->params.n_stop; i++) mem_free((void *)(uintptr_t)c->params.stop[i]);
    mem_free((void *)(uintptr_t)c->params.stop);
    mem_free((void *)(uintptr_t)c->sampling.bias);
    mem_free(c->prompt);
    mem_free(c->fresh);
    buf_free(&c->fresh_text);
    mem_free(c);
}

bool command_set_prompt(command *c, const int32_t *tokens, size_t n)
{
    c->prompt = mem_resize_array(NULL, n, sizeof *tokens);
    if (!c->prompt) return false;
    if (n) memcpy(c->prompt, tokens, n * sizeof *tokens);
    c->n_prompt = n;
    return true;
}

bool command_add_stop(command *c, const char *text)
{
    const size_t n = c->params.n_stop;
    const char **list = mem_resize_array((void *)(uintptr_t)c->params.stop, n + 1, sizeof *list);
    if (!list) return false;
    c->params.stop = list;
    if (!(list[n] = mem_strdup(text))) return false;
    c->params.n_stop++;
    return true;
}

bool command_add_bias(command *c, int32_t token, float bias)
{
    const size_t n = c->sampling.n_bias;
    facet_logit_bias *list = mem_resize_array((void *)(uintptr_t)c->sampling.bias, n + 1, sizeof *list);
    if (!list) return false;
    c->sampling.bias = list;
    list[n] = (facet_logit_bias){token, bias};
    c->sampling.n_bias++;
    return true;
}

bool command_inherit(command *c, const facet_sampling *sampling, const facet_generate_params *params)
{
    c->sampling = *sampling;
    c->sampling.bias = NULL;
    c->sampling.n_bias = 0;
    c->params = *params;
    c->params.stop = NULL;
    c->params.n_stop = 0;
    bool ok = true;
    for (size_t i = 0; i < sampling->n_bias; i++)
        ok = ok && command_add_bias(c, sampling->bias[i].token, sampling->bias[i].bias);
    for (size_t i = 0; i < params->n_stop; i++) ok = ok && command_add_stop(c, params->stop[i]);
    return ok;
}

/* ---- the core ---- */

facet_status core_open(facet_engine *e, int n_sessions, const core_events *events, void *ud, core **out,
                       facet_error *err)
{
    if (n_sessions < 1 || n_sessions > CORE_MAX_SESSIONS)
        return error_set(err, FACET_ERR_ARG, "sessions: %d, wanted 1 to %d", n_sessions, CORE_MAX_SESSIONS);
    core *c = mem_calloc(1, sizeof *c);
    if (!c) return error_memory(err, "the daemon", sizeof *c);
    c->engine = e;
    c->events = events;
    c->ud = ud;
    facet_status status = scheduler_open(e, 0, &c->scheduler, err);
    if (status == FACET_OK && !(c->sessions = mem_calloc((size_t)n_sessions, sizeof *c->sessions)))
        status = error_memory(err, "sessions", (size_t)n_sessions * sizeof *c->sessions);
    while (status == FACET_OK && c->n_sessions < n_sessions) {
        status = facet_session_open(e, &c->sessions[c->n_sessions], err);
        if (status == FACET_OK) c->n_sessions++;
    }
    if (status != FACET_OK) {
        core_close(c);
        return status;
    }
    *out = c;
    return FACET_OK;
}

void core_close(core *c)
{
    if (!c) return;
    scheduler_close(c->scheduler);
    for (int i = 0; i < c->n_sessions; i++) facet_session_close(c->sessions[i]);
    for (command *next; c->first; c->first = next) {
        next = c->first->next;
        command_free(c->first);
    }
    mem_free(c->sessions);
    mem_free(c);
}

facet_engine *core_engine(const core *c)
{
    return c->engine;
}

const facet_session *core_session(const core *c, int number)
{
    return c->sessions[number];
}

int core_n_commands(const core *c)
{
    return c->n_commands;
}

command *core_find(const core *c, bool (*matches)(const command *c, const void *key), const void *key)
{
    command *cmd = c->first;
    while (cmd && !matches(cmd, key)) cmd = cmd->next;
    return cmd;
}

static void unlink_command(core *c, command *cmd)
{
    command **at = &c->first, *before = NULL;
    while (*at != cmd) {
        before = *at;
        at = &before->next;
    }
    *at = cmd->next;
    if (c->last == cmd) c->last = before;
    c->n_commands--;
}

static void hand_out(core *c, command *cmd)
{
    if (!cmd->n_fresh && !cmd->fresh_text.len) return;
    c->events->on_tokens(c->ud, cmd);
    cmd->n_fresh = 0;
    buf_clear(&cmd->fresh_text);
}

static void end(core *c, command *cmd)
{
    hand_out(c, cmd);
    unlink_command(c, cmd);
    c->events->on_end(c->ud, cmd);
    command_free(cmd);
}

static void fail(core *c, command *cmd, core_code code, facet_status status, const char *message)
{
    cmd->code = code;
    error_set(&cmd->err, status, "%s", message);
    end(c, cmd);
}

/* ---- generations ---- */

static core_code code_of(facet_status status)
{
    switch (status) {
    case FACET_OK: return CORE_OK;
    case FACET_ERR_ARG: return CORE_BAD_REQUEST;
    case FACET_ERR_IO:
    case FACET_ERR_FORMAT: return CORE_IO;
    case FACET_ERR_UNSUPPORTED: return CORE_UNSUPPORTED;
    case FACET_ERR_MEMORY:
    case FACET_ERR_LIMIT: return CORE_OUT_OF_MEMORY; /* of pages; the context was checked before */
    case FACET_ERR_DEVICE: return CORE_DEVICE;
    case FACET_ERR_NUMERIC: return CORE_NONFINITE;
    case FACET_ERR_CANCELLED: return CORE_CANCELLED;
    default: return CORE_INTERNAL;
    }
}

static const char *reason_text(core_code c)
{
    return c == CORE_DEADLINE      ? "the deadline has passed"
           : c == CORE_SLOW_READER ? "nobody took what was generated"
           : c == CORE_IO          ? "the reader of the token stream is gone"
                                   : "cancelled";
}

static bool on_token(void *ud, int32_t token, const char *text, size_t n)
{
    command *cmd = ud;
    if (token >= 0) {
        if (cmd->n_fresh == cmd->cap_fresh) {
            const size_t cap = 2 * cmd->cap_fresh + 64;
            int32_t *list = mem_resize_array(cmd->fresh, cap, sizeof *list);
            if (!list) cmd->cancelled_by = CORE_OUT_OF_MEMORY;
            if (!list) return false;
            cmd->fresh = list;
            cmd->cap_fresh = cap;
        }
        cmd->fresh[cmd->n_fresh++] = token;
        if (!cmd->first_token_ms) cmd->first_token_ms = (double)(clock_ns() - cmd->submitted_at) * 1e-6;
    }
    if (n && !buf_append(&cmd->fresh_text, text, n)) cmd->cancelled_by = CORE_OUT_OF_MEMORY;
    return cmd->cancelled_by != CORE_OUT_OF_MEMORY;
}

static bool on_progress(void *ud, const char *phase, uint64_t done, uint64_t total)
{
    command *cmd = ud;
    (void)phase;
    if (cmd->core->events->on_progress) cmd->core->events->on_progress(cmd->core->ud, cmd, done, total);
    return true;
}

static void on_done(void *ud, facet_status status, const facet_generate_result *result, const facet_error *err)
{
    command *cmd = ud;
    cmd->result = *result;
    cmd->code = code_of(status);
    if (err) cmd->err = *err;
    if (cmd->cancelled_by && (status == FACET_ERR_CANCELLED || result->stop == FACET_STOP_CANCELLED)) {
        cmd->code = cmd->cancelled_by;
        error_set(&cmd->err, FACET_ERR_CANCELLED, "%s",
                  cmd->code == CORE_OUT_OF_MEMORY ? "out of memory for generated tokens" : reason_text(cmd->code));
    }
    end(cmd->core, cmd);
}

/* What the engine would find out late, or less clearly. */
static bool check_generation(core *c, command *cmd)
{
    const int32_t n_ctx = facet_engine_n_ctx(c->engine), n_vocab = (int32_t)c->engine->model->h.n_vocab;
    const size_t wanted = cmd->n_predict < 0 ? 0 : (size_t)cmd->n_predict;
    char text[128];
    if (cmd->n_prompt == 0) {
        fail(c, cmd, CORE_EMPTY_PROMPT, FACET_ERR_ARG, "an empty prompt: give at least one token");
        return false;
    }
    if (cmd->n_prompt + wanted > (size_t)n_ctx) {
        snprintf(text, sizeof text, "%zu prompt tokens and %zu to generate: the context holds %d", cmd->n_prompt,
                 wanted, n_ctx);
        fail(c, cmd, CORE_CONTEXT_OVERFLOW, FACET_ERR_LIMIT, text);
        return false;
    }
    for (size_t i = 0; i < cmd->n_prompt; i++) {
        if (cmd->prompt[i] >= 0 && cmd->prompt[i] < n_vocab) continue;
        snprintf(text, sizeof text, "token %zu of the prompt is %d: the vocabulary has %d entries", i, cmd->prompt[i],
                 n_vocab);
        fail(c, cmd, CORE_BAD_TOKEN, FACET_ERR_ARG, text);
        return false;
    }
    return true;
}

static void start_generation(core *c, command *cmd)
{
    if (!check_generation(c, cmd)) return;
    cmd->params.n_predict = cmd->n_predict;
    cmd->params.on_token = on_token;
    cmd->params.ud = cmd;
    cmd->params.progress = on_progress;
    cmd->params.progress_ud = cmd;
    const scheduler_request r = {.session = c->sessions[cmd->scope],
                                 .prompt = cmd->prompt,
                                 .n_prompt = cmd->n_prompt,
                                 .sampling = cmd->sampling,
                                 .params = cmd->params,
                                 .done = on_done,
                                 .done_ud = cmd};
    facet_error err;
    const facet_status status = scheduler_add(c->scheduler, &r, &err);
    if (status != FACET_OK) fail(c, cmd, code_of(status), status, err.message);
}

/* ---- in and out ---- */

static void start(core *c, command *cmd)
{
    cmd->is_running = true;
    cmd->started_at = clock_ns();
    cmd->queue_ms = (double)(cmd->started_at - cmd->submitted_at) * 1e-6;
    if (c->events->on_start) c->events->on_start(c->ud, cmd);
    switch (cmd->kind) {
    case COMMAND_GENERATE: start_generation(c, cmd); break;
    }
}

/* Ending a command changes the list, so the search begins anew after each one that starts. */
static bool start_next(core *c)
{
    uint64_t busy = 0; /* sessions that something earlier concerns */
    for (command *cmd = c->first; cmd; cmd = cmd->next) {
        const uint64_t mine = cmd->scope == SCOPE_ALL ? UINT64_MAX : (uint64_t)1 << cmd->scope;
        if (!cmd->is_running && !(busy & mine)) {
            start(c, cmd);
            return true;
        }
        busy |= mine;
    }
    return false;
}

void core_submit(core *c, command *cmd)
{
    cmd->core = c;
    cmd->submitted_at = clock_ns();
    cmd->next = NULL;
    if (c->last)
        c->last->next = cmd;
    else
        c->first = cmd;
    c->last = cmd;
    c->n_commands++;
    while (start_next(c)) continue;
}

void core_cancel(core *c, command *cmd, core_code reason)
{
    if (cmd->cancelled_by) return;
    if (!cmd->is_running) {
        fail(c, cmd, reason, FACET_ERR_CANCELLED, reason_text(reason));
        return;
    }
    cmd->cancelled_by = reason;
    facet_session_cancel(c->sessions[cmd->scope]);
}

bool core_is_cancelling(const core *c)
{
    const command *cmd = c->first;
    while (cmd && !cmd->cancelled_by) cmd = cmd->next;
    return cmd != NULL;
}

void core_cancel_all(core *c, core_code reason)
{
    for (command *cmd = c->first, *next; cmd; cmd = next) {
        next = cmd->next;
        core_cancel(c, cmd, reason);
    }
}

/* ms until the command's deadline, 0 = it has passed. */
static uint64_t ms_left(const command *cmd, uint64_t now)
{
    const uint64_t at = cmd->submitted_at + cmd->deadline_ms * 1000000u;
    return now < at ? (at - now + 999999) / 1000000 : 0;
}

static void check_deadlines(core *c)
{
    const uint64_t now = clock_ns();
    for (command *cmd = c->first, *next; cmd; cmd = next) {
        next = cmd->next;
        if (cmd->deadline_ms && ms_left(cmd, now) == 0) core_cancel(c, cmd, CORE_DEADLINE);
    }
}

int core_next_deadline_ms(const core *c)
{
    const uint64_t now = clock_ns(), most = INT32_MAX;
    uint64_t least = UINT64_MAX;
    for (const command *cmd = c->first; cmd; cmd = cmd->next)
        if (cmd->deadline_ms && ms_left(cmd, now) < least) least = ms_left(cmd, now);
    return least == UINT64_MAX ? -1 : (int)(least < most ? least : most);
}

bool core_step(core *c)
{
    check_deadlines(c);
    while (start_next(c)) continue;
    scheduler_step(c->scheduler);
    for (command *cmd = c->first; cmd; cmd = cmd->next) hand_out(c, cmd);
    while (start_next(c)) continue;
    return c->n_commands > 0;
}
