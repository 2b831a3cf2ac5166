/* test_kv.c: the page pool and the tables of sequences against a naive model. */
#include "testing.h"

#include "base/mem.h"
#include "base/rng.h"
#include "compute/kv.h"

enum { WINDOW = 100, DRAFT_WINDOW = 300, N_SEQS = 5, MAX_SLOTS = 1500, MAX_TABLE = MAX_SLOTS / KV_PAGE_LEN + 2 };

static kv_pool *open_pool(int32_t global_pages, int32_t local_pages)
{
    kv_desc d = {.n_groups = 2, .groups = {{.window = 0, .n_pages = global_pages}, {WINDOW, local_pages}}};
    kv_pool *p = NULL;
    facet_error err;
    assert_ok(kv_pool_open(&d, &p, &err), err);
    return p;
}

static void test_types(void **state)
{
    (void)state;
    kv_type t = KV_F16;
    assert_true(kv_type_by_name("Q8_0", &t));
    assert_int_equal(t, KV_Q8_0);
    assert_true(kv_type_by_name("f16", &t));
    assert_int_equal(t, KV_F16);
    assert_true(kv_type_by_name("F32", &t));
    assert_int_equal(t, KV_F32);
    assert_false(kv_type_by_name("q9_9", &t));
    for (int i = 0; i < KV_TYPE_COUNT; i++) assert_non_null(strstr(kv_type_list(), kv_type_get((kv_type)i)->name));
}

/* Donor layers keep q8_0 or better whatever the user chose. */
static void test_pitfall_18_finer_type(void **state)
{
    (void)state;
    static const kv_type falling[] = {KV_F32, KV_F16, KV_Q8_0, KV_Q4_0, KV_TQ3_0};
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 5; j++)
            assert_int_equal(kv_type_is_as_fine(kv_type_get(falling[i]), kv_type_get(falling[j])), i <= j);
    const kv_type_info *q8_0 = kv_type_get(KV_Q8_0);
    for (int t = 0; t < KV_TYPE_COUNT; t++) {
        const kv_type got = kv_type_at_least((kv_type)t, KV_Q8_0);
        assert_true(kv_type_is_as_fine(kv_type_get(got), q8_0));
        assert_int_equal(got, kv_type_is_as_fine(kv_type_get((kv_type)t), q8_0) ? (kv_type)t : KV_Q8_0);
    }
    assert_int_equal(kv_type_at_least(KV_F16, KV_Q8_0), KV_F16);
    assert_int_equal(kv_type_at_least(KV_Q8_0, KV_F16), KV_F16);
}

static void test_sizes(void **state)
{
    (void)state;
    kv_layer_desc layers[2] = {{.group = 0, .n_kv_heads = 1, .head_dim = 512, .k_type = KV_F16, .v_type = KV_Q8_0},
                               {.group = 1, .n_kv_heads = 2, .head_dim = 256, .k_type = KV_F16, .v_type = KV_F16}};
    assert_int_equal(kv_layer_page_bytes(&layers[0]), 64 * (1024 + 544));
    assert_int_equal(kv_layer_page_bytes(&layers[1]), 2 * 64 * 1024);
    const kv_layer_desc exact = {.n_kv_heads = 2, .head_dim = 256, .k_type = KV_F32, .v_type = KV_Q8_0};
    assert_int_equal(kv_layer_page_bytes(&exact), 2 * 64 * (1024 + 272));
    kv_desc d = {.n_groups = 2, .n_layers = 2, .groups = {{0, 10}, {512, 3}}, .layers = layers};
    assert_int_equal(kv_total_bytes(&d), 10 * 64 * 1568 + 3 * 2 * 64 * 1024);
    assert_int_equal(kv_group_page_bytes(&d, 0), 64 * 1568);
    assert_int_equal(kv_group_page_bytes(&d, 1), 2 * 64 * 1024);
    d.groups[0].n_pages = INT32_MAX; /* more than 32 bits of bytes */
    assert_true(kv_total_bytes(&d) > (uint64_t)INT32_MAX * 100000);
}

/* Pages that cover what a step at `base` sees and writes. */
static int32_t live_pages(int window, int32_t base, int rows)
{
    int32_t first = base - window + 1 > 0 ? base - window + 1 : 0;
    return (base + rows - 1) / KV_PAGE_LEN - first / KV_PAGE_LEN + 1;
}

static void test_pages_needed(void **state)
{
    (void)state;
    assert_int_equal(kv_pages_needed(0, 64, 1), 2);
    assert_int_equal(kv_pages_needed(0, 65, 512), 3);
    assert_int_equal(kv_pages_needed(1024, 65, 512), 3); /* never more than a global group */
    for (int window = 1; window < 700; window += 37)
        for (int rows = 1; rows < 200; rows += 13)
            for (int32_t base = 0; base < 1000; base++)
                assert_true(live_pages(window, base, rows) < kv_pages_needed(window, 1 << 20, rows));
}

/* ---- random operations against a model ---- */

/* The model: page contents are labelled by who wrote which slot when; a table entry is a list of labels. */
typedef struct model_page {
    bool held;
    int32_t label[KV_PAGE_LEN];
} model_page;
typedef struct model_seq {
    model_page page[KV_MAX_GROUPS][MAX_TABLE];
    int32_t n_slots;
} model_seq;
typedef struct world {
    kv_pool *pool;
    int32_t capacity[KV_MAX_GROUPS];
    kv_seq seq[N_SEQS];
    model_seq model[N_SEQS];
    int32_t (*store[KV_MAX_GROUPS])[KV_PAGE_LEN]; /* what the backend would hold */
    int32_t next_label;
} world;

static void check_world(const world *w)
{
    for (int g = 0; g < KV_MAX_GROUPS; g++) {
        bool used[256] = {false};
        int32_t n_used = 0;
        for (int s = 0; s < N_SEQS; s++) {
            for (int i = 0; i < MAX_TABLE; i++) {
                const model_page *m = &w->model[s].page[g][i];
                int32_t page = i < w->seq[s].n_table[g] ? w->seq[s].table[g][i] : -1;
                assert_int_equal(page >= 0, m->held);
                if (!m->held) continue;
                n_used += !used[page];
                used[page] = true;
                assert_memory_equal(w->store[g][page], m->label, sizeof m->label);
            }
        }
        assert_int_equal(kv_pool_free_pages(w->pool, g), w->capacity[g] - n_used);
    }
}

static bool try_reserve(world *w, int s, int32_t begin, int32_t end)
{
    kv_copy copies[KV_MAX_GROUPS * MAX_TABLE];
    int n = 0;
    facet_error err;
    facet_status status = kv_seq_reserve(w->pool, &w->seq[s], begin, end, copies, &n, &err);
    assert_true(n <= KV_MAX_GROUPS * ((end - begin) / KV_PAGE_LEN + 2));
    if (status != FACET_OK) {
        assert_int_equal(status, FACET_ERR_LIMIT);
        assert_int_equal(n, 0);
        return false;
    }
    for (int i = 0; i < n; i++)
        memcpy(w->store[copies[i].group][copies[i].dst], w->store[copies[i].group][copies[i].src],
               sizeof w->store[0][0]);
    return true;
}

/* Writes labels through the tables and into the model; a write that reached a page of another sequence shows there. */
static void write_slots(world *w, int s, int32_t begin, int32_t end)
{
    for (int g = 0; g < KV_MAX_GROUPS; g++) {
        for (int32_t slot = begin; slot < end; slot++) {
            model_page *m = &w->model[s].page[g][slot / KV_PAGE_LEN];
            int32_t *page = w->store[g][w->seq[s].table[g][slot / KV_PAGE_LEN]];
            if (!m->held) memcpy(m->label, page, sizeof m->label); /* a new page holds anything */
            m->held = true;
            m->label[slot % KV_PAGE_LEN] = page[slot % KV_PAGE_LEN] = ++w->next_label;
        }
    }
    if (end > w->model[s].n_slots) w->model[s].n_slots = end;
}

static void step_truncate(world *w, int s, int32_t n)
{
    kv_seq_truncate(w->pool, &w->seq[s], n);
    for (int g = 0; g < KV_MAX_GROUPS; g++)
        for (int i = (n + KV_PAGE_LEN - 1) / KV_PAGE_LEN; i < MAX_TABLE; i++) w->model[s].page[g][i].held = false;
    if (w->model[s].n_slots > n) w->model[s].n_slots = n;
}

static void step_release(world *w, int s)
{
    int32_t pos = w->model[s].n_slots;
    bool could = kv_seq_can_resume(w->pool, &w->seq[s], pos); /* not after a cut below a window that was given back */
    kv_seq_release_window(w->pool, &w->seq[s], pos);
    for (int i = 0; i < MAX_TABLE; i++) {
        if ((i + 1) * KV_PAGE_LEN <= pos - WINDOW + 1) w->model[s].page[KV_GROUP_LOCAL][i].held = false;
        if ((i + 1) * KV_PAGE_LEN <= pos - DRAFT_WINDOW + 1) w->model[s].page[KV_GROUP_DRAFT][i].held = false;
    }
    assert_int_equal(kv_seq_can_resume(w->pool, &w->seq[s], pos), could);
}

static void step_fork(world *w, int src, int dst)
{
    facet_error err;
    kv_seq_free(w->pool, &w->seq[dst]);
    assert_ok(kv_seq_fork(w->pool, &w->seq[src], &w->seq[dst], &err), err);
    w->model[dst] = w->model[src];
}

static void random_step(world *w, rng *r, int *n_refused)
{
    int s = (int)rng_below(r, N_SEQS), other = (int)rng_below(r, N_SEQS);
    int32_t n = w->model[s].n_slots;
    switch (rng_below(r, 8)) {
    case 0: step_truncate(w, s, (int32_t)rng_below(r, (uint32_t)n + 1)); break;
    case 1:
        if (s != other) step_fork(w, s, other);
        break;
    case 2:
        if (rng_below(r, 4)) break;
        kv_seq_free(w->pool, &w->seq[s]);
        memset(&w->model[s], 0, sizeof w->model[s]);
        break;
    case 3: step_release(w, s); break;
    default: {
        int32_t end = n + 1 + (int32_t)rng_below(r, 150);
        if (end > MAX_SLOTS || !kv_seq_can_resume(w->pool, &w->seq[s], n)) break;
        if (try_reserve(w, s, n, end))
            write_slots(w, s, n, end);
        else
            (*n_refused)++;
    }
    }
}

static void test_random(void **state)
{
    (void)state;
    world *w = calloc(1, sizeof *w);
    const kv_desc d = {.n_groups = 3, .groups = {{0, 60}, {WINDOW, 25}, {DRAFT_WINDOW, 40}}};
    facet_error err;
    assert_ok(kv_pool_open(&d, &w->pool, &err), err);
    for (int g = 0; g < KV_MAX_GROUPS; g++) w->capacity[g] = d.groups[g].n_pages;
    for (int g = 0; g < KV_MAX_GROUPS; g++) w->store[g] = calloc((size_t)w->capacity[g], sizeof w->store[0][0]);
    rng r;
    rng_seed(&r, 7);
    int n_refused = 0;
    for (int i = 0; i < 20000; i++) {
        random_step(w, &r, &n_refused);
        check_world(w); /* also after a refusal: nothing has changed */
    }
    assert_true(n_refused > 100);
    for (int s = 0; s < N_SEQS; s++) kv_seq_free(w->pool, &w->seq[s]);
    for (int g = 0; g < KV_MAX_GROUPS; g++) assert_int_equal(kv_pool_free_pages(w->pool, g), w->capacity[g]);
    kv_pool_close(w->pool);
    for (int g = 0; g < KV_MAX_GROUPS; g++) free(w->store[g]);
    free(w);
}

/* ---- named cases ---- */

static void test_exhausted(void **state)
{
    (void)state;
    kv_pool *p = open_pool(10, 3);
    kv_seq s = {0};
    kv_copy copies[32];
    int n = 0;
    facet_error err;
    assert_ok(kv_seq_reserve(p, &s, 0, 128, copies, &n, &err), err);
    assert_int_equal(kv_seq_reserve(p, &s, 128, 257, copies, &n, &err), FACET_ERR_LIMIT);
    assert_non_null(strstr(err.message, "group 1 (local, window 100): 3 pages wanted, 1 of 3 free"));
    assert_int_equal(s.n_table[0], 2);
    assert_int_equal(s.n_table[1], 2);
    assert_int_equal(kv_pool_free_pages(p, 0), 8);
    assert_int_equal(kv_pool_free_pages(p, 1), 1);
    assert_ok(kv_seq_reserve(p, &s, 128, 192, copies, &n, &err), err);
    assert_int_equal(n, 0);
    kv_seq_free(p, &s);
    kv_pool_close(p);
}

static void test_window_resume(void **state)
{
    (void)state;
    kv_pool *p = open_pool(20, 20);
    kv_seq s = {0};
    kv_copy copies[64];
    int n = 0;
    facet_error err;
    assert_ok(kv_seq_reserve(p, &s, 0, 640, copies, &n, &err), err);
    /* 291 sees 192..291: pages 0, 1 and 2 go exactly when slot 191 is out of the window */
    kv_seq_release_window(p, &s, 290);
    assert_int_equal(kv_pool_free_pages(p, 1), 12);
    assert_true(kv_seq_can_resume(p, &s, 290));
    kv_seq_release_window(p, &s, 291);
    assert_int_equal(kv_pool_free_pages(p, 1), 13);
    assert_true(kv_seq_can_resume(p, &s, 291));
    assert_false(kv_seq_can_resume(p, &s, 290)); /* sees slot 191 */
    assert_true(kv_seq_can_resume(p, &s, 640));
    assert_false(kv_seq_can_resume(p, &s, 641 + KV_PAGE_LEN));
    assert_true(kv_seq_can_resume(p, &s, 0));
    kv_seq_free(p, &s);
    kv_pool_close(p);
}

/* A step that failed before it made its copies: the next one asks for them again. */
static void test_undone_copies(void **state)
{
    (void)state;
    kv_pool *p = open_pool(20, 20);
    kv_seq a = {0}, b = {0};
    kv_copy copies[32];
    facet_error err;
    for (int begin = 130; begin < 200; begin += 30) { /* the shared page, and new ones behind it */
        int n = 0;
        assert_ok(kv_seq_reserve(p, &a, 0, 192, copies, &n, &err), err);
        assert_ok(kv_seq_fork(p, &a, &b, &err), err);
        for (int try = 0; try < 3; try++) {
            n = 0;
            assert_ok(kv_seq_reserve(p, &b, begin, 300, copies, &n, &err), err);
            assert_int_equal(n, begin < 192 ? 2 : 0);
            for (int g = 0; g < 2 && begin < 192; g++) assert_int_not_equal(b.table[g][2], a.table[g][2]);
            if (try == 2) break;
            kv_seq_undo_copies(p, &b, copies, n);
            for (int g = 0; g < 2; g++) {
                for (int i = 0; i < 3; i++) assert_int_equal(b.table[g][i], a.table[g][i]);
                assert_int_equal(kv_pool_free_pages(p, g), 20 - 5);
            }
        }
        kv_seq_free(p, &a);
        kv_seq_free(p, &b);
        for (int g = 0; g < 2; g++) assert_int_equal(kv_pool_free_pages(p, g), 20);
    }
    kv_pool_close(p);
}

static void test_allocation_faults(void **state)
{
    (void)state;
    kv_desc d = {.n_groups = 2, .groups = {{0, 40}, {WINDOW, 40}}};
    facet_error err;
    kv_copy copies[64];
    for (uint64_t k = 1; k <= 5; k++) {
        kv_pool *p = NULL;
        mem_fail_at(k);
        assert_int_equal(kv_pool_open(&d, &p, &err), FACET_ERR_MEMORY);
        assert_null(p);
    }
    mem_fail_at(0);
    kv_pool *p = open_pool(40, 40);
    kv_seq s = {0}, f = {0};
    int n = 0;
    for (uint64_t k = 1; k <= 2; k++) {
        mem_fail_at(k);
        assert_int_equal(kv_seq_reserve(p, &s, 0, 1280, copies, &n, &err), FACET_ERR_MEMORY);
        assert_int_equal(s.n_table[0] + s.n_table[1] + n, 0);
        assert_int_equal(kv_pool_free_pages(p, 0), 40);
        kv_seq_free(p, &s);
    }
    mem_fail_at(0);
    assert_ok(kv_seq_reserve(p, &s, 0, 1280, copies, &n, &err), err);
    for (uint64_t k = 1; k <= 2; k++) {
        mem_fail_at(k);
        assert_int_equal(kv_seq_fork(p, &s, &f, &err), FACET_ERR_MEMORY);
        assert_null(f.table[0]);
    }
    mem_fail_at(0);
    kv_seq_free(p, &s);
    assert_int_equal(kv_pool_free_pages(p, 1), 40);
    kv_pool_close(p);
}

/* Tables put together from parts: what a snapshot file is read into, and what a chain of snapshots becomes. */
static void test_parts_of_tables(void **state)
{
    (void)state;
    enum { GLOBAL = 12, LOCAL = 12 };
    kv_pool *p = open_pool(GLOBAL, LOCAL);
    facet_error err;
    kv_copy copies[16];
    int n_copies = 0;
    kv_seq a = {0}, b = {0}, c = {0};

    assert_ok(kv_seq_take(p, &a, 0, 0, 3, &err), err);
    assert_ok(kv_seq_take(p, &a, 1, 1, 3, &err), err);
    assert_int_equal(a.n_table[0], 3);
    assert_int_equal(a.n_table[1], 3);
    assert_int_equal(a.table[1][0], -1);
    for (int i = 1; i < 3; i++) assert_int_equal(kv_pool_refs(p, 1, a.table[1][i]), 1);
    assert_int_equal(kv_pool_free_pages(p, 0), GLOBAL - 3);
    assert_int_equal(kv_pool_free_pages(p, 1), LOCAL - 2);
    assert_int_equal(kv_seq_take(p, &b, 0, 0, GLOBAL - 2, &err), FACET_ERR_LIMIT);
    assert_int_equal(b.n_table[0], 0);
    assert_int_equal(kv_pool_free_pages(p, 0), GLOBAL - 3);
    assert_ok(kv_seq_take(p, &b, 0, 5, 5, &err), err);

    /* b: the same text, further on; of which the first pages are given back */
    assert_ok(kv_seq_fork(p, &a, &b, &err), err);
    assert_ok(kv_seq_reserve(p, &b, 150, 300, copies, &n_copies, &err), err);
    assert_int_equal(n_copies, 2); /* the page of slot 150, in both groups */
    kv_seq_drop_before(p, &b, 150);
    assert_int_equal(b.table[0][0], -1);
    assert_int_equal(b.table[0][1], -1);
    assert_true(b.table[0][2] >= 0 && b.table[0][2] != a.table[0][2]);
    assert_int_equal(kv_pool_refs(p, 0, a.table[0][1]), 1);

    /* c: a, and b on top of it from slot 150 on */
    assert_ok(kv_seq_fork(p, &a, &c, &err), err);
    assert_ok(kv_seq_join(p, &c, &b, 150, &err), err);
    assert_int_equal(c.n_table[0], 5);
    for (int i = 0; i < 2; i++) assert_int_equal(c.table[0][i], a.table[0][i]);
    for (int i = 2; i < 5; i++) {
        assert_int_equal(c.table[0][i], b.table[0][i]);
        assert_int_equal(kv_pool_refs(p, 0, c.table[0][i]), 2);
    }
    assert_int_equal(c.table[1][0], -1);
    assert_true(kv_seq_can_resume(p, &c, 300));
    assert_false(kv_seq_can_resume(p, &b, 300));
    kv_seq_free(p, &a);
    kv_seq_free(p, &b);
    kv_seq_free(p, &c);
    assert_int_equal(kv_pool_free_pages(p, 0), GLOBAL);
    assert_int_equal(kv_pool_free_pages(p, 1), LOCAL);
    kv_pool_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),           cmocka_unit_test(test_pitfall_18_finer_type),
        cmocka_unit_test(test_sizes),           cmocka_unit_test(test_pages_needed),
        cmocka_unit_test(test_random),          cmocka_unit_test(test_exhausted),
        cmocka_unit_test(test_window_resume),   cmocka_unit_test(test_undone_copies),
        cmocka_unit_test(test_parts_of_tables), cmocka_unit_test(test_allocation_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
