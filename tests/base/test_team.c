/* test_team.c: regions, barriers, sleeping workers, more threads than processors. */
#include "testing.h"

#include "base/mem.h"
#include "base/team.h"

enum { MAX_THREADS = 24 };

typedef struct shared {
    team *team;
    int n_barriers;
    long plain[MAX_THREADS]; /* each thread writes its own; read by all between barriers: a race shows under TSan */
    long wrong[MAX_THREADS];
    int n_threads_seen[MAX_THREADS];
} shared;

static team *open_team(int n)
{
    team *t = NULL;
    facet_error err;
    assert_ok(team_open(n, &t, &err), err);
    assert_int_equal(team_size(t), n);
    return t;
}

static void count(void *arg, int thread, int n_threads)
{
    shared *s = arg;
    s->plain[thread]++;
    s->n_threads_seen[thread] = n_threads;
}

/* Between two barriers everybody reads what everybody wrote before the first one. */
static void ping(void *arg, int thread, int n_threads)
{
    shared *s = arg;
    for (int b = 0; b < s->n_barriers; b++) {
        s->plain[thread] = b;
        team_barrier(s->team);
        for (int i = 0; i < n_threads; i++) s->wrong[thread] += s->plain[i] != b;
        team_barrier(s->team);
    }
}

static void check_regions(int n_threads, int n_regions)
{
    team *t = open_team(n_threads);
    shared s = {.team = t};
    for (int r = 0; r < n_regions; r++) team_run(t, count, &s);
    for (int i = 0; i < n_threads; i++) {
        assert_int_equal(s.plain[i], n_regions);
        assert_int_equal(s.n_threads_seen[i], n_threads);
    }
    team_close(t);
}

static void check_barriers(int n_threads, int n_barriers)
{
    team *t = open_team(n_threads);
    shared s = {.team = t, .n_barriers = n_barriers};
    for (int r = 0; r < 3; r++) team_run(t, ping, &s);
    for (int i = 0; i < n_threads; i++) assert_int_equal(s.wrong[i], 0);
    team_close(t);
}

static void test_regions(void **state)
{
    (void)state;
    check_regions(1, 1000);
    check_regions(2, 20000);
    check_regions(3, 2000);
}

static void test_barriers(void **state)
{
    (void)state;
    check_barriers(1, 100);
    check_barriers(2, 10000);
}

static void test_more_threads_than_processors(void **state)
{
    (void)state;
    check_regions(MAX_THREADS, 300);
    check_barriers(MAX_THREADS, 100);
    check_barriers(5, 500);
}

/* Workers that fell asleep in a barrier's team come back for the next region. */
static void test_sleep_after_barriers(void **state)
{
    (void)state;
    team *t = open_team(4);
    shared s = {.team = t, .n_barriers = 100};
    team_run(t, ping, &s);
    usleep(20000); /* long enough for the workers to fall asleep */
    team_run(t, ping, &s);
    usleep(20000);
    for (int i = 0; i < 4; i++) assert_int_equal(s.wrong[i], 0);
    team_close(t);
}

static void test_sleep_between_regions(void **state)
{
    (void)state;
    team *t = open_team(2);
    shared s = {.team = t};
    for (int r = 0; r < 30; r++) {
        team_run(t, count, &s);
        usleep((unsigned)(r % 6) * 700); /* around the point where spinning ends */
    }
    assert_int_equal(s.plain[1], 30);
    team_close(t);
}

static void test_open_close(void **state)
{
    (void)state;
    facet_error err;
    team *t = NULL;
    assert_int_equal(team_open(0, &t, &err), FACET_ERR_ARG);
    for (int i = 0; i < 50; i++) team_close(open_team(1 + i % 4)); /* without any region */
    team_close(NULL);
    for (uint64_t k = 1; k <= 2; k++) {
        mem_fail_at(k);
        assert_int_equal(team_open(3, &t, &err), FACET_ERR_MEMORY);
        assert_null(t);
    }
    mem_fail_at(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_regions),
        cmocka_unit_test(test_barriers),
        cmocka_unit_test(test_more_threads_than_processors),
        cmocka_unit_test(test_sleep_after_barriers),
        cmocka_unit_test(test_sleep_between_regions),
        cmocka_unit_test(test_open_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
