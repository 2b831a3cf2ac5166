/* daemon_command.h: one thing that a client asked the daemon for, and what came of it. */
#ifndef FACET_SERVE_DAEMON_COMMAND_H
#define FACET_SERVE_DAEMON_COMMAND_H

#include "base/buf.h"
#include "decode/park.h"
#include "decode/snapshot.h"

/* Why a command failed; the names are part of the protocols. */
#define CORE_CODES(X)                                                                                                  \
    X(OK, "ok")                                                                                                        \
    X(BAD_REQUEST, "bad_request") /* a field is missing, malformed or out of its range */                              \
    X(UNKNOWN_COMMAND, "unknown_command")                                                                              \
    X(BAD_TOKEN, "bad_token") /* a token id outside the vocabulary */                                                  \
    X(EMPTY_PROMPT, "empty_prompt")                                                                                    \
    X(CONTEXT_OVERFLOW, "context_overflow") /* prompt and wanted tokens are more than the context */                   \
    X(SLOT_EMPTY, "slot_empty")                                                                                        \
    X(SLOT_MISMATCH, "slot_mismatch") /* the slots of a chain do not fit together */                                   \
    X(PARKED, "parked")               /* a part of the engine that is needed */                                        \
    X(BUSY, "busy")                   /* too many commands wait */                                                     \
    X(OUT_OF_MEMORY, "out_of_memory")                                                                                  \
    X(UNSUPPORTED, "unsupported")                                                                                      \
    X(CANCELLED, "cancelled")                                                                                          \
    X(DEADLINE, "deadline")                                                                                            \
    X(SLOW_READER, "slow_reader") /* nobody took what was generated */                                                 \
    X(BAD_FILE, "bad_file")       /* damaged, or not what it should be */                                              \
    X(IO, "io")                                                                                                        \
    X(DEVICE, "device")                                                                                                \
    X(NONFINITE, "nonfinite_logits")                                                                                   \
    X(INTERNAL, "internal")
#define X(name, text) CORE_##name,
typedef enum core_code { CORE_CODES(X) CORE_N_CODES } core_code;
#undef X
const char *core_code_name(core_code c);

typedef enum command_kind {
    COMMAND_GENERATE,
    COMMAND_STORE,   /* the session's content into a slot */
    COMMAND_RESTORE, /* slots into the session */
    COMMAND_FREE,
    COMMAND_SAVE, /* a slot to a file */
    COMMAND_LOAD,
    COMMAND_FORK, /* another session's content becomes this one's */
    COMMAND_PARK,
    COMMAND_UNPARK
} command_kind;

enum { CORE_MAX_SESSIONS = 64, CORE_MAX_CHAIN = 16 };
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
    facet_generate_params params; /* stop, grammar: owned; n_predict and callbacks are the core's */
    uint64_t deadline_ms;         /* from submission on, 1 << 40 at most; 0 = none */
    bool has_credit;              /* it waits when its credit is used up */
    int64_t credit;               /* tokens; a step's last ones may take it below 0 */
    /* COMMAND_RESTORE, and first of all in COMMAND_GENERATE: a slot and thin ones on top of it */
    int chain[CORE_MAX_CHAIN];
    int n_chain; /* 0 = none */
    /* COMMAND_STORE, and in COMMAND_GENERATE when the prompt's first store_n tokens are evaluated */
    int store_slot;               /* -1 = none */
    int32_t store_first, store_n; /* store_first > 0: thin; store_n -1: all that there is */
    char label[SNAPSHOT_LABEL_MAX + 1];
    int slot;       /* COMMAND_FREE (-1: all), COMMAND_SAVE, COMMAND_LOAD */
    char *path;     /* COMMAND_SAVE, COMMAND_LOAD: owned */
    int from;       /* COMMAND_FORK */
    unsigned parts; /* COMMAND_PARK, COMMAND_UNPARK */
    park_kv kv;

    /* Tokens since on_tokens was called last, and the text that became complete. */
    int32_t *fresh;
    size_t n_fresh, cap_fresh;
    buf fresh_text;

    /* What came of it. err: unless code is CORE_OK. */
    core_code code;
    facet_error err;
    facet_generate_result result; /* of a generation, also of one that was cancelled while it decoded */
    int32_t n_restored;           /* tokens that the chain brought */
    int32_t n_stored;             /* tokens of store_slot; 0: it could not be stored, which fails no generation */
    park_report report;
    double queue_ms, first_token_ms; /* since it was submitted; 0 = there was none */

    /* the core's */
    struct core *core;
    bool is_running, is_storing; /* storing: the part of the prompt that is to be stored is under way */
    core_code cancelled_by;      /* CORE_OK: not */
    uint64_t submitted_at, started_at;
    uint64_t starved_at; /* since when it waits for credit; 0 = it does not */
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

#endif
