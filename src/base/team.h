/* team.h: the thread team. Created once; team_run is one parallel region; barriers inside it. */
#ifndef FACET_BASE_TEAM_H
#define FACET_BASE_TEAM_H

#include <stdatomic.h>

#include "base/error.h"

typedef struct team team;
typedef void (*team_fn)(void *arg, int thread, int n_threads);

/* n_threads >= 1 including the caller, who is thread 0 of every region. Workers are pinned to one processor each when
 * the process may use at least n_threads of them; they spin for about 2 ms after a region and then sleep. */
facet_status team_open(int n_threads, team **out, facet_error *err);
void team_close(team *t);
int team_size(const team *t);

/* Runs fn on every thread and returns when all have returned. One region at a time. */
void team_run(team *t, team_fn fn, void *arg);

/* Waits for all threads of the current region. */
void team_barrier(team *t);

#endif
