/* daemon_core.h: what the daemon does, whatever protocol asks for it: generations in numbered sessions, which share the
 * engine's steps, and what else concerns the engine. Used by one thread, which calls core_step as long as there is
 * something to do.
 *
 * Commands start in the order in which they came, each when nothing before it that concerns the same session (or
 * everything) is left. Every command that is submitted ends exactly once, with core_events.on_end. */
#ifndef FACET_SERVE_DAEMON_CORE_H
#define FACET_SERVE_DAEMON_CORE_H

#include "serve/daemon_command.h"

/* What the protocols hear. They must not call the core from here. */
typedef struct core_events {
    void (*on_start)(void *ud, command *c);    /* may be NULL, like the next two */
    void (*on_restored)(void *ud, command *c); /* the chain of a generation is in place */
    void (*on_progress)(void *ud, command *c, uint64_t done, uint64_t total); /* tokens of the prompt */
    void (*on_tokens)(void *ud, command *c); /* c->fresh and c->fresh_text, once per step and at the end */
    void (*on_end)(void *ud, command *c);    /* the command is freed afterwards */
} core_events;

typedef struct core core;

/* The engine is borrowed; opened for n_sessions sessions or more. A generation that gets no credit for stall_s seconds
 * ends with CORE_SLOW_READER. */
facet_status core_open(facet_engine *e, int n_sessions, int stall_s, const core_events *events, void *ud, core **out,
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
/* Cancels what is past its deadline, or waited too long for credit. */
void core_check_times(core *c);
/* Starts what may start, and runs one step of the engine. False when nothing is left. */
bool core_step(core *c);
int core_n_commands(const core *c);     /* that run or wait */
bool core_is_cancelling(const core *c); /* something ends at the next step */
bool core_wants_step(const core *c);    /* something runs that does not wait for credit */
/* Lets a generation go on for so many tokens more. */
void core_give_credit(command *cmd, int64_t tokens);
/* The first in line that `matches`; NULL: none. */
command *core_find(const core *c, bool (*matches)(const command *c, const void *key), const void *key);
/* Milliseconds until the next deadline of a command that runs or waits, or until one without credit is given up; -1:
 * there is none. */
int core_next_deadline_ms(const core *c);

#endif
