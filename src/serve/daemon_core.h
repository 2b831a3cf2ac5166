/* daemon_core.h: what the daemon does, whatever protocol asks for it: generations in numbered sessions, which share the
 * engine's steps, and what else concerns the engine. Used by one thread, which calls core_step as long as there is
 * something to do.
 *
 * Commands start in the order in which they came, each when nothing before it that concerns the same session (or
 * everything) is left. Every command that is submitted ends exactly once, with core_events.on_end. */
#ifndef FACET_SERVE_DAEMON_CORE_H
#define FACET_SERVE_DAEMON_CORE_H

#include "base/buf.h"
#include "base/error.h"

/* Why a command failed; the names are part of the protocols. */
#define CORE_CODES(X)                                                                                                  \
    X(OK, "ok")                                                                                                        \
    X(BAD_REQUEST, "bad_request") /* a field is missing, malformed or out of its range */                              \
    X(UNKNOWN_COMMAND, "unknown_command")                                                                              \
    X(BAD_TOKEN, "bad_token") /* a token id outside the vocabulary */                                                  \
    X(EMPTY_PROMPT, "empty_prompt")                                                                                    \
    X(CONTEXT_OVERFLOW, "context_overflow") /* prompt and wanted tokens are more than the context */                   \
    X(BUSY, "busy")                         /* too many commands wait */                                               \
    X(OUT_OF_MEMORY, "out_of_memory")                                                                                  \
    X(UNSUPPORTED, "unsupported")                                                                                      \
    X(CANCELLED, "cancelled")                                                                                          \
    X(DEADLINE, "deadline")                                                                                            \
    X(SLOW_READER, "slow_reader") /* nobody took what was generated */                                                 \
    X(IO, "io")                                                                                                        \
    X(DEVICE, "device")                                                                                                \
    X(NONFINITE, "nonfinite_logits")                                                                                   \
    X(INTERNAL, "internal")
#define X(name, text) CORE_##name,
typedef enum core_code { CORE_CODES(X) CORE_N_CODES } core_code;
#undef X
const char *core_code_name(core_code c);

typedef enum command_kind { COMMAND_GENERATE } command_kind;

enum { CORE_MAX_SESSIONS = 64 };
/* Which session a command concerns, if not one. */
enum { SCOPE_ALL = -1 };

typedef struct command {
    command_kind kind;
    int scope; /* a session's number or SCOPE_ALL */
    void *tag; /* the protocol's */
    /* COMMAND_GENERATE */
    int32_t *prompt; /* [n_prompt], owned; the complete text, of which the session's cache may hold the beginning */
    size_t n_prompt;
    int32_t n_predict;            /* -1: to the end of the context */
    facet_sampling sampling;      /* bias: owned */
    facet_generate_params params; /* stop: owned texts; n_predict and callbacks are the core's */
    uint64_t deadline_ms;         /* from submission on; 0 = none */

    /* Tokens since on_tokens was called last, and the text that became complete. */
    int32_t *fresh;
    size_t n_fresh, cap_fresh;
    buf fresh_text;

    /* What came of it. err: unless code is CORE_OK. */
    core_code code;
    facet_error err;
    facet_generate_result result;    /* of a generation, also of a cancelled one (its code is not CORE_OK) */
    double queue_ms, first_token_ms; /* since it was submitted; 0 = there was none */

    /* the core's */
    struct core *core;
    bool is_running;
    core_code cancelled_by; /* CORE_OK: not */
    uint64_t submitted_at, started_at;
    struct command *next;
} command;

/* A zeroed command, or NULL; greedy, to the end of the context. Its owner until core_submit. */
command *command_new(command_kind kind, int scope);
void command_free(command *c);
/* Sampling and parameters to begin with. Copies, like the others; false when memory is short. */
bool command_inherit(command *c, const facet_sampling *sampling, const facet_generate_params *params);
bool command_set_prompt(command *c, const int32_t *tokens, size_t n);
bool command_add_stop(command *c, const char *text);
bool command_add_bias(command *c, int32_t token, float bias);

/* What the protocols hear. They must not call the core from here. */
typedef struct core_events {
    void (*on_start)(void *ud, command *c);
    void (*on_progress)(void *ud, command *c, uint64_t done, uint64_t total); /* tokens of the prompt */
    void (*on_tokens)(void *ud, command *c); /* c->fresh and c->fresh_text, once per step and at the end */
    void (*on_end)(void *ud, command *c);    /* the command is freed afterwards */
} core_events;

typedef struct core core;

/* The engine is borrowed; opened for n_sessions sessions or more. */
facet_status core_open(facet_engine *e, int n_sessions, const core_events *events, void *ud, core **out,
                       facet_error *err);
/* Commands that have not ended are freed without on_end. */
void core_close(core *c);
facet_engine *core_engine(const core *c);
const facet_session *core_session(const core *c, int number);

/* Takes the command, which may end before the call returns. */
void core_submit(core *c, command *cmd);
/* Ends a command by the reason at the next step; one that waits, too. */
void core_cancel(core *c, command *cmd, core_code reason);
void core_cancel_all(core *c, core_code reason);
/* Starts what may start, and runs one step of the engine. False when nothing is left. */
bool core_step(core *c);
int core_n_commands(const core *c);     /* that run or wait */
bool core_is_cancelling(const core *c); /* something ends at the next step */
/* The first in line that `matches`; NULL: none. */
command *core_find(const core *c, bool (*matches)(const command *c, const void *key), const void *key);
/* Milliseconds until the next deadline of a command that runs or waits; -1: there is none. */
int core_next_deadline_ms(const core *c);

#endif
