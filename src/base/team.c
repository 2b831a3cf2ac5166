/* team.c: the thread team. A region begins when `epoch` moves and ends at a barrier of all threads. Every wait is the
 * same: look at a word until it changes, first in a tight loop, then between yields, at last asleep in the kernel. */
#define _GNU_SOURCE
#include "base/team.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/mem.h"

enum {
    TIGHT_SPINS = 2000,      /* tens of microseconds: longer than threads of one region drift apart */
    SPIN_NS = 2000000,       /* then yields, until this much time has passed */
    CROWDED_SPINS = 100,     /* with more threads than processors the awaited one may need this processor */
    CROWDED_SPIN_NS = 50000, /* so give it up soon, and sleep soon */
    LINE = 64
};

/* A word that threads wait on. Padding keeps each on its own cache line. */
typedef struct event {
    atomic_uint word;
    atomic_int n_sleepers;
    char pad[LINE - sizeof(atomic_uint) - sizeof(atomic_int)];
} event;

typedef struct worker {
    team *team;
    pthread_t id;
    int index;
} worker;

struct team {
    event epoch;      /* number of the region; moved by the caller */
    event generation; /* number of barriers passed; moved by the last thread that arrives */
    atomic_int n_arrived;
    char pad[LINE - sizeof(atomic_int)];
    team_fn fn; /* of this region; NULL tells the workers to end. Published by epoch. */
    void *arg;
    int n_threads, n_started; /* n_started: workers that exist */
    int tight_spins;
    uint64_t spin_ns;
    worker *workers; /* [n_threads]; the caller's entry is unused */
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void futex(atomic_uint *word, int op, unsigned value)
{
    syscall(SYS_futex, (void *)word, op, value, NULL, NULL, 0);
}

/* Sequential consistency pairs with event_move: either the sleeper sees the new word, or the mover sees the sleeper. */
static void event_sleep(event *e, unsigned old)
{
    atomic_fetch_add(&e->n_sleepers, 1);
    while (atomic_load(&e->word) == old) futex(&e->word, FUTEX_WAIT_PRIVATE, old);
    atomic_fetch_sub(&e->n_sleepers, 1);
}

static void event_wait(const team *t, event *e, unsigned old)
{
    for (int i = 0; i < t->tight_spins; i++) {
        if (atomic_load_explicit(&e->word, memory_order_acquire) != old) return;
        relax();
    }
    uint64_t end = clock_ns() + t->spin_ns;
    do {
        sched_yield();
        if (atomic_load_explicit(&e->word, memory_order_acquire) != old) return;
    } while (clock_ns() < end);
    event_sleep(e, old);
}

static void event_move(event *e)
{
    atomic_fetch_add(&e->word, 1);
    if (atomic_load(&e->n_sleepers) > 0) futex(&e->word, FUTEX_WAKE_PRIVATE, INT_MAX);
}

void team_barrier(team *t)
{
    if (t->n_threads == 1) return;
    unsigned old = atomic_load_explicit(&t->generation.word, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&t->n_arrived, 1, memory_order_acq_rel) < t->n_threads - 1) {
        event_wait(t, &t->generation, old);
        return;
    }
    atomic_store_explicit(&t->n_arrived, 0, memory_order_relaxed);
    event_move(&t->generation);
}

static void *work(void *arg)
{
    const worker *w = arg;
    team *t = w->team;
    for (unsigned seen = 0;; seen++) {
        event_wait(t, &t->epoch, seen);
        if (!t->fn) return NULL;
        t->fn(t->arg, w->index, t->n_threads);
        team_barrier(t);
    }
}

void team_run(team *t, team_fn fn, void *arg)
{
    t->fn = fn;
    t->arg = arg;
    if (t->n_threads > 1) event_move(&t->epoch);
    fn(arg, 0, t->n_threads);
    team_barrier(t);
}

/* ---- placing ---- */

/* True when another thread of the same core has a lower number. Unknown counts as false. */
static bool is_second_thread(int cpu)
{
    char path[96], list[32] = "", *end; /* such as "0,64" or "0-1" */
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *f = fopen(path, "re");
    if (!f) return false;
    const bool has_list = fgets(list, sizeof list, f);
    fclose(f);
    const long first = strtol(list, &end, 10);
    return has_list && end != list && first != cpu;
}

/* The allowed processors, one thread of every core before the second ones; returns how many (at most max). */
static int list_processors(int *cpus, int max)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 0;
    int n = 0;
    for (int second = 0; second < 2; second++)
        for (int cpu = 0; cpu < CPU_SETSIZE && n < max; cpu++)
            if (CPU_ISSET((size_t)cpu, &allowed) && is_second_thread(cpu) == (second == 1)) cpus[n++] = cpu;
    return n;
}

/* Best effort: a worker that cannot be pinned still works. The first processor is left to the caller. */
static void pin_workers(team *t)
{
    int cpus[CPU_SETSIZE];
    if (list_processors(cpus, t->n_threads) < t->n_threads) return;
    for (int i = 1; i < t->n_threads; i++) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET((size_t)cpus[i], &one);
        pthread_setaffinity_np(t->workers[i].id, sizeof one, &one);
    }
}

/* ---- life ---- */

static facet_status start_workers(team *t, facet_error *err)
{
    for (int i = 1; i < t->n_threads; i++) {
        worker *w = &t->workers[i];
        *w = (worker){.team = t, .index = i};
        int code = pthread_create(&w->id, NULL, work, w);
        if (code)
            return error_set(err, FACET_ERR_LIMIT, "thread %d of %d could not be started: %s", i, t->n_threads,
                             strerror(code));
        t->n_started++;
    }
    return FACET_OK;
}

facet_status team_open(int n_threads, team **out, facet_error *err)
{
    if (n_threads < 1) return error_set(err, FACET_ERR_ARG, "%d threads wanted; the least is 1", n_threads);
    team *t = mem_calloc(1, sizeof *t);
    if (!t) return error_memory(err, "thread team", sizeof *t);
    bool crowded = n_threads > cpu_count();
    t->n_threads = n_threads;
    t->tight_spins = crowded ? CROWDED_SPINS : TIGHT_SPINS;
    t->spin_ns = crowded ? CROWDED_SPIN_NS : SPIN_NS;
    t->workers = mem_calloc((size_t)n_threads, sizeof *t->workers);
    facet_status s =
        t->workers ? start_workers(t, err) : error_memory(err, "thread team", (size_t)n_threads * sizeof *t->workers);
    if (s != FACET_OK) {
        team_close(t);
        return s;
    }
    if (n_threads > 1 && !crowded) pin_workers(t);
    *out = t;
    return FACET_OK;
}

void team_close(team *t)
{
    if (!t) return;
    t->fn = NULL;
    event_move(&t->epoch);
    for (int i = 1; i <= t->n_started; i++) pthread_join(t->workers[i].id, NULL);
    mem_free(t->workers);
    mem_free(t);
}

int team_size(const team *t)
{
    return t->n_threads;
}
