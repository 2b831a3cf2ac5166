#include "serve/daemon_core.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "decode/scheduler.h"
#include "decode/snapshot_file.h"

struct core {
    facet_engine *engine;
    scheduler *scheduler;
    const core_events *events;
    void *ud;
    facet_session **sessions; /* [n_sessions] */
    int n_sessions;
    uint64_t stall_ns;
    command *first, *last; /* in the order in which they came */
    int n_commands;
};

facet_status core_open(facet_engine *e, int n_sessions, int stall_s, const core_events *events, void *ud, core **out,
                       facet_error *err)
{
    if (n_sessions < 1 || n_sessions > CORE_MAX_SESSIONS)
        return error_set(err, FACET_ERR_ARG, "sessions: %d, wanted 1 to %d", n_sessions, CORE_MAX_SESSIONS);
    core *c = mem_calloc(1, sizeof *c);
    if (!c) return error_memory(err, "the daemon", sizeof *c);
    c->engine = e;
    c->events = events;
    c->ud = ud;
    c->stall_ns = (uint64_t)stall_s * 1000000000u;
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
    for (int i = 0; c->sessions && i < c->n_sessions; i++) facet_session_close(c->sessions[i]);
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
    case FACET_ERR_IO: return CORE_IO;
    case FACET_ERR_FORMAT: return CORE_BAD_FILE;
    case FACET_ERR_UNSUPPORTED: return CORE_UNSUPPORTED;
    case FACET_ERR_MEMORY:
    case FACET_ERR_LIMIT: return CORE_OUT_OF_MEMORY; /* of pages; the context was checked before */
    case FACET_ERR_DEVICE: return CORE_DEVICE;
    case FACET_ERR_NUMERIC: return CORE_NONFINITE;
    case FACET_ERR_CANCELLED: return CORE_CANCELLED;
    case FACET_ERR_PARKED: return CORE_PARKED;
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
        if (--cmd->credit <= 0 && cmd->has_credit && !cmd->starved_at) cmd->starved_at = clock_ns();
        if (cmd->first_token_ms == 0) cmd->first_token_ms = (double)(clock_ns() - cmd->submitted_at) * 1e-6;
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

/* The result of the part before is added: a prompt in two parts is one. */
static void take_result(command *cmd, facet_generate_result result)
{
    result.n_prefill += cmd->result.n_prefill;
    result.prefill_ms += cmd->result.prefill_ms;
    cmd->result = result;
}

static bool start_rest(core *c, command *cmd);

static void on_done(void *ud, facet_status status, const facet_generate_result *result, const facet_error *err)
{
    command *cmd = ud;
    take_result(cmd, *result);
    if (status == FACET_OK && cmd->is_storing && !cmd->cancelled_by && start_rest(cmd->core, cmd)) return;
    if (cmd->code == CORE_OK) cmd->code = code_of(status);
    if (err) cmd->err = *err;
    const bool is_cancelled = status == FACET_ERR_CANCELLED ||
                              (status == FACET_OK && (cmd->is_storing || result->stop == FACET_STOP_CANCELLED));
    if (cmd->cancelled_by && is_cancelled) {
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

static bool is_starved(const command *cmd)
{
    return cmd->has_credit && cmd->credit <= 0 && !cmd->cancelled_by;
}

static scheduler_wish wish(void *ud)
{
    return is_starved(ud) ? SCHEDULER_WAIT : SCHEDULER_RUN;
}

void core_give_credit(command *cmd, int64_t tokens)
{
    if (cmd->credit < 0) cmd->credit = 0;
    cmd->credit = tokens < INT64_MAX - cmd->credit ? cmd->credit + tokens : INT64_MAX;
    cmd->starved_at = 0;
}

/* The prompt's first n_prompt tokens, and n_predict further ones. */
static facet_status run(core *c, command *cmd, size_t n_prompt, int32_t n_predict, facet_error *err)
{
    cmd->params.n_predict = n_predict;
    cmd->params.on_token = on_token;
    cmd->params.ud = cmd;
    cmd->params.progress = on_progress;
    cmd->params.progress_ud = cmd;
    const scheduler_request r = {.session = c->sessions[cmd->scope],
                                 .prompt = cmd->prompt,
                                 .n_prompt = n_prompt,
                                 .sampling = cmd->sampling,
                                 .params = cmd->params,
                                 .wish = wish,
                                 .done = on_done,
                                 .done_ud = cmd};
    return scheduler_add(c->scheduler, &r, err);
}

/* A generation goes on without its snapshot, which is a convenience. */
static void store_beginning(core *c, command *cmd)
{
    facet_error err;
    if (snapshot_store(c->sessions[cmd->scope], cmd->store_slot, cmd->store_n, cmd->label, &err) == FACET_OK)
        cmd->n_stored = cmd->store_n;
    else
        log_line(FACET_LOG_WARN, "no snapshot in slot %d: %s", cmd->store_slot, err.message);
}

/* After the beginning of the prompt: it is stored, and the rest comes. False: it cannot, and the command is to end. */
static bool start_rest(core *c, command *cmd)
{
    cmd->is_storing = false;
    store_beginning(c, cmd);
    const facet_status status = run(c, cmd, cmd->n_prompt, cmd->n_predict, &cmd->err);
    cmd->code = code_of(status);
    return status == FACET_OK;
}

/* Tokens that the session holds of the prompt's beginning. */
static int32_t common(const facet_session *s, const command *cmd)
{
    int32_t n = 0;
    while (n < s->n_tokens && (size_t)n < cmd->n_prompt && s->tokens[n] == cmd->prompt[n]) n++;
    return n;
}

static void start_generation(core *c, command *cmd)
{
    const facet_session *s = c->sessions[cmd->scope];
    facet_error err;
    if (!check_generation(c, cmd)) return;
    if (cmd->store_slot >= 0) {
        if (cmd->store_n < 0 || (size_t)cmd->store_n > cmd->n_prompt) cmd->store_n = (int32_t)cmd->n_prompt;
        /* what is there already is not evaluated again for it, where its window is still held */
        if (common(s, cmd) >= cmd->store_n &&
            snapshot_store(s, cmd->store_slot, cmd->store_n, cmd->label, NULL) == FACET_OK)
            cmd->n_stored = cmd->store_n;
        cmd->is_storing = !cmd->n_stored;
    }
    const facet_status status =
        cmd->is_storing ? run(c, cmd, (size_t)cmd->store_n, 0, &err) : run(c, cmd, cmd->n_prompt, cmd->n_predict, &err);
    if (status != FACET_OK) fail(c, cmd, code_of(status), status, err.message);
}

/* ---- slots and parts ---- */

/* Puts the chain into the session; false after the command has failed. */
static bool restore(core *c, command *cmd)
{
    facet_session *s = c->sessions[cmd->scope];
    facet_error err;
    char text[64];
    for (int i = 0; i < cmd->n_chain; i++) {
        snapshot_info info;
        if (snapshot_describe(c->engine, cmd->chain[i], &info)) continue;
        snprintf(text, sizeof text, "slot %d is empty", cmd->chain[i]);
        fail(c, cmd, CORE_SLOT_EMPTY, FACET_ERR_ARG, text);
        return false;
    }
    const facet_status status = snapshot_restore_chain(s, cmd->chain[0], cmd->chain + 1, cmd->n_chain - 1, &err);
    if (status != FACET_OK) {
        fail(c, cmd, status == FACET_ERR_ARG ? CORE_SLOT_MISMATCH : code_of(status), status, err.message);
        return false;
    }
    cmd->n_restored = s->n_tokens;
    return true;
}

static facet_status store(core *c, command *cmd, facet_error *err)
{
    const facet_session *s = c->sessions[cmd->scope];
    const int32_t n = cmd->store_n < 0 ? s->n_tokens : cmd->store_n;
    const facet_status status = cmd->store_first > 0
                                    ? snapshot_store_thin(s, cmd->store_slot, cmd->store_first, n, cmd->label, err)
                                    : snapshot_store(s, cmd->store_slot, n, cmd->label, err);
    if (status == FACET_OK) cmd->n_stored = n;
    return status;
}

static facet_status fork_session(core *c, command *cmd, facet_error *err)
{
    facet_session *copy;
    if (cmd->from == cmd->slot) return FACET_OK;
    FACET_TRY(facet_session_fork(c->sessions[cmd->from], &copy, err));
    facet_session_close(c->sessions[cmd->slot]);
    c->sessions[cmd->slot] = copy;
    return FACET_OK;
}

static facet_status free_slots(core *c, command *cmd, facet_error *err)
{
    if (cmd->slot >= 0) return snapshot_free(c->engine, cmd->slot, err);
    snapshot_free_all(c->engine);
    return FACET_OK;
}

/* What needs no step of the engine. */
static void run_at_once(core *c, command *cmd)
{
    facet_error err;
    facet_status status = FACET_OK;
    switch (cmd->kind) {
    case COMMAND_STORE: status = store(c, cmd, &err); break;
    case COMMAND_RESTORE:
        if (!restore(c, cmd)) return;
        break;
    case COMMAND_FREE: status = free_slots(c, cmd, &err); break;
    case COMMAND_SAVE: status = snapshot_save(c->engine, cmd->slot, cmd->path, &err); break;
    case COMMAND_LOAD: status = snapshot_load(c->engine, cmd->slot, cmd->path, &err); break;
    case COMMAND_FORK: status = fork_session(c, cmd, &err); break;
    case COMMAND_PARK: status = engine_park(c->engine, cmd->parts, cmd->kv, &cmd->report, &err); break;
    case COMMAND_UNPARK: status = engine_unpark(c->engine, cmd->parts, &cmd->report, &err); break;
    case COMMAND_GENERATE: break;
    }
    if (status == FACET_OK)
        end(c, cmd);
    else
        fail(c, cmd, code_of(status), status, err.message);
}

static void begin_generation(core *c, command *cmd)
{
    if (cmd->n_chain) {
        if (!restore(c, cmd)) return;
        if (c->events->on_restored) c->events->on_restored(c->ud, cmd);
    }
    start_generation(c, cmd);
}

/* ---- in and out ---- */

static void start(core *c, command *cmd)
{
    cmd->is_running = true;
    cmd->started_at = clock_ns();
    cmd->queue_ms = (double)(cmd->started_at - cmd->submitted_at) * 1e-6;
    if (c->events->on_start) c->events->on_start(c->ud, cmd);
    if (cmd->kind == COMMAND_GENERATE) {
        atomic_store(&c->sessions[cmd->scope]->is_cancelled, false); /* a cancellation that came too late for another */
        begin_generation(c, cmd);
    } else {
        run_at_once(c, cmd);
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

bool core_wants_step(const core *c)
{
    const command *cmd = c->first;
    while (cmd && !(cmd->is_running && !is_starved(cmd))) cmd = cmd->next;
    return cmd != NULL;
}

/* When the command is given up (ns), and why; UINT64_MAX: never. */
static uint64_t end_of_patience(const core *c, const command *cmd, core_code *why)
{
    const uint64_t deadline = cmd->deadline_ms ? cmd->submitted_at + cmd->deadline_ms * 1000000u : UINT64_MAX,
                   stall = cmd->starved_at ? cmd->starved_at + c->stall_ns : UINT64_MAX;
    *why = deadline < stall ? CORE_DEADLINE : CORE_SLOW_READER;
    return deadline < stall ? deadline : stall;
}

void core_check_times(core *c)
{
    const uint64_t now = clock_ns();
    for (command *cmd = c->first, *next; cmd; cmd = next) {
        core_code why;
        next = cmd->next;
        if (end_of_patience(c, cmd, &why) <= now) core_cancel(c, cmd, why);
    }
}

int core_next_deadline_ms(const core *c)
{
    const uint64_t now = clock_ns(), most = 1000000; /* a quarter of an hour is a long sleep */
    uint64_t least = UINT64_MAX;
    for (const command *cmd = c->first; cmd; cmd = cmd->next) {
        core_code why;
        const uint64_t at = end_of_patience(c, cmd, &why);
        if (at < least) least = at;
    }
    if (least == UINT64_MAX) return -1;
    const uint64_t ms = least > now ? (least - now + 999999) / 1000000 : 0;
    return (int)(ms < most ? ms : most);
}

bool core_step(core *c)
{
    while (start_next(c)) continue;
    scheduler_step(c->scheduler);
    for (command *cmd = c->first; cmd; cmd = cmd->next) hand_out(c, cmd);
    while (start_next(c)) continue;
    return c->n_commands > 0;
}
