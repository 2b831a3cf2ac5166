/* Each allocation in keeping, restoring, saving and loading a snapshot, and in reusing a prompt, fails once; and so
 * does writing to a full disk. Each time: an error, nothing lost, nothing left behind, and the same answers afterwards.
 */
#define _GNU_SOURCE
#include "snapshot_world.h"

#include <signal.h>
#include <sys/resource.h>

#include "../file/temp_dir.h"
#include "base/mem.h"

enum { N = 200, N_ANSWER = 12 };

typedef struct world {
    spec_world w;
    facet_session *s; /* at text */
    int32_t text[N + 100], other[N];
    snap_answer want;
} world;

typedef struct subject {
    const char *name;
    int least;
    bool may_do_without; /* caches and marks are not needed */
    facet_status (*call)(world *, facet_error *);
} subject;

static facet_status store(world *x, facet_error *err)
{
    return snapshot_store(x->s, 1, -1, "label", err);
}

static facet_status store_thin(world *x, facet_error *err)
{
    return snapshot_store_thin(x->s, 2, 100, N, NULL, err);
}

static facet_status restore(world *x, facet_error *err)
{
    return snapshot_restore(x->s, 0, err);
}

static facet_status restore_chain(world *x, facet_error *err)
{
    return snapshot_restore_chain(x->s, 3, (int[]){4}, 1, err);
}

static facet_status save(world *x, facet_error *err)
{
    return snapshot_save(x->w.engine, 0, temp_file("a"), err);
}

static facet_status load(world *x, facet_error *err)
{
    return snapshot_load(x->w.engine, 1, temp_file("a"), err);
}

/* A prompt that begins with a cached one, in a session that has another text. */
static facet_status reuse(world *x, facet_error *err)
{
    facet_session *s;
    FACET_TRY(facet_session_open(x->w.engine, &s, err));
    const facet_status status = facet_session_sync(s, x->text, N + 100, err);
    facet_session_close(s);
    return status;
}

static void check(world *x, const char *what)
{
    const snap_answer a = snap_say(x->s, x->text, N, N_ANSWER, NULL, NULL);
    snap_assert_ids(a.ids, x->want.ids, N_ANSWER, what);
    facet_error err;
    assert_ok(facet_session_sync(x->s, x->text, N, &err), err);
}

/* False when the call made fewer than k allocations, and succeeded. */
static bool fail_allocation(world *x, const subject *s, uint64_t k)
{
    facet_error err = {0};
    snapshot_info before, after;
    int32_t n_free[KV_MAX_GROUPS], now[KV_MAX_GROUPS];
    assert_ok(snapshot_free(x->w.engine, 2, &err), err);
    assert_ok(snapshot_restore(x->s, 0, &err), err);
    assert_ok(store(x, &err), err);
    assert_true(snapshot_describe(x->w.engine, 1, &before));
    snap_count_free(x->w.engine, n_free);
    const int64_t live = mem_n_live();
    mem_fail_at(k);
    const facet_status status = s->call(x, &err);
    const bool is_past = mem_fail_at(0) < k;
    const bool is_ok = is_past || (s->may_do_without && status == FACET_OK);
    if (status != (is_ok ? FACET_OK : FACET_ERR_MEMORY) || (!is_ok && !strstr(err.message, "out of memory")))
        fail_msg("%s, allocation %d: status %d: %s", s->name, (int)k, (int)status, err.message);
    if (!is_ok) {
        snap_count_free(x->w.engine, now);
        assert_memory_equal(now, n_free, sizeof *now * (size_t)x->w.engine->kv.n_groups);
        if (mem_n_live() != live) fail_msg("%s, allocation %d: blocks are left", s->name, (int)k);
    }
    assert_true(snapshot_describe(x->w.engine, 1, &after)); /* what it held, or the same anew */
    assert_int_equal(after.n_tokens, before.n_tokens);
    if (k < 6 || is_past) check(x, s->name);
    return !is_past;
}

static void fail_each(world *x, const subject *s)
{
    uint64_t k = 1;
    while (fail_allocation(x, s, k)) k++;
    print_message("%s: %d allocations\n", s->name, (int)k - 1);
    assert_true(k - 1 >= (uint64_t)s->least);
}

static world begin(bool reuses)
{
    world x = {.w = snap_open_bundled("q8_0", 16 << 20, reuses)};
    facet_error err;
    snap_text(x.text, N + 100, 1);
    snap_text(x.other, N, 2);
    x.s = snap_session(x.w.engine, x.text, N - 50);
    assert_ok(snapshot_store(x.s, 3, -1, NULL, &err), err);
    assert_ok(facet_session_sync(x.s, x.text, N, &err), err);
    assert_ok(snapshot_store_thin(x.s, 4, N - 60, N, NULL, &err), err);
    x.want = snap_say(x.s, x.text, N, N_ANSWER, NULL, NULL);
    assert_ok(facet_session_sync(x.s, x.text, N, &err), err);
    assert_ok(snapshot_store(x.s, 0, -1, NULL, &err), err);
    assert_ok(snapshot_save(x.w.engine, 0, temp_file("a"), &err), err);
    return x;
}

static void end(world *x)
{
    facet_session_close(x->s);
    snap_close(&x->w);
}

static void every_allocation_fails_once(void **state)
{
    (void)state;
    static const subject calls[] = {
        {.name = "store", .least = 4, .call = store},     {.name = "store_thin", .least = 4, .call = store_thin},
        {.name = "restore", .least = 6, .call = restore}, {.name = "restore_chain", .least = 6, .call = restore_chain},
        {.name = "save", .least = 6, .call = save},       {.name = "load", .least = 7, .call = load},
    };
    const subject reusing = {.name = "reuse", .least = 8, .may_do_without = true, .call = reuse};
    const int64_t live = mem_n_live();
    world x = begin(false);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) fail_each(&x, &calls[i]);
    end(&x);
    x = begin(true);
    fail_each(&x, &reusing);
    prefix_stats s;
    prefix_describe(x.w.engine, &s);
    assert_true(s.n_hits > 0);
    end(&x);
    assert_int_equal(mem_n_live(), live);
}

/* Writes beyond a limit of bytes fail, as on a full disk; the old file stays, and nothing else. */
static void a_full_disk_leaves_the_old_file(void **state)
{
    (void)state;
    facet_error err;
    struct rlimit old, small;
    snapshot_info info;
    world x = begin(false);
    assert_ok(facet_session_sync(x.s, x.other, N, &err), err);
    assert_ok(snapshot_store(x.s, 1, -1, NULL, &err), err);
    assert_ok(snapshot_file_describe(temp_file("a"), &info, &err), err);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    for (uint64_t at = 0; at < info.bytes; at += info.bytes / 7) {
        small = (struct rlimit){.rlim_cur = at, .rlim_max = old.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        const facet_status status = snapshot_save(x.w.engine, 1, temp_file("a"), &err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        snap_assert_error(status, FACET_ERR_IO, &err, "cannot write");
        assert_ok(snapshot_load(x.w.engine, 2, temp_file("a"), &err), err);
        int32_t n;
        assert_memory_equal(snapshot_tokens(x.w.engine, 2, &n), x.text, N * sizeof *x.text);
    }
    assert_ok(snapshot_save(x.w.engine, 1, temp_file("a"), &err), err);
    end(&x);
    assert_int_equal(temp_dir_empty(), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_fails_once),
        cmocka_unit_test(a_full_disk_leaves_the_old_file),
    };
    return cmocka_run_group_tests_name("faults of snapshots", tests, temp_dir_make, temp_dir_remove);
}
