/* test_attn_rebuild.c: attention over pages that hold V alone (attn_rebuild.h): the reference gives the bits of keys
 * that are stored in f32; types differ by their rounding and no more; every kernel set agrees with the reference; a
 * row's bits depend on its own keys alone; the angles hold at the end of the longest context. */
#include "testing.h"

#include "base/rng.h"
#include "compute/attn_sets.h"
#include "compute/cpu/attn_rebuild.h"

enum { MAX_DIM = 512 };

/* ---- a world: the same sequence in pages of V alone, of K and V in f32, and of K and V in the type ---- */

typedef struct shape {
    int head_dim, n_rot, n_kv_heads, heads_per_kv;
    kv_type type;
    int n_slots;
} shape;

typedef struct world {
    shape s;
    attn_layer alone, both, typed;
    int32_t *table; /* [n_pages + pages of the offset], random order */
    int n_pages;
    int32_t first; /* position of the first slot that is filled, a multiple of KV_PAGE_LEN */
    double inv_freq[MAX_DIM / 2];
    float norm[MAX_DIM];
    attn_rebuild rebuild;
    void *tables;
    float *scratch;
} world;

static float *floats(size_t n)
{
    return malloc((n ? n : 1) * sizeof(float));
}

static attn_layer layer_of(const shape *s, kv_type t, bool rebuilds_k, int n_pages)
{
    attn_layer l = {.desc = {.n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim, .k_type = t, .v_type = t}};
    if (rebuilds_k) kv_layer_rebuild_k(&l.desc);
    l.page_bytes = kv_layer_page_bytes(&l.desc);
    l.pages = malloc(l.page_bytes * (size_t)n_pages);
    memset(l.pages, 0xff, l.page_bytes * (size_t)n_pages); /* what is not filled decodes to NaN or to huge values */
    return l;
}

/* A value of rms 1, as the norm leaves it, at position pos in slot `slot`. */
static void put_random(const world *w, rng *r, int32_t slot, int32_t pos)
{
    float v[MAX_DIM], k[MAX_DIM];
    const int32_t page = w->table[slot / KV_PAGE_LEN], at = slot % KV_PAGE_LEN, n = w->s.head_dim;
    for (int h = 0; h < w->s.n_kv_heads; h++) {
        for (int i = 0; i < n; i++) v[i] = (float)rng_normal(r);
        memcpy(k, v, sizeof k);
        for (int i = 0; i < n; i++) k[i] = v[i] * w->norm[i];
        for (int i = 0; i < w->s.n_rot; i++) { /* as op_kv_write turns it: angles in f64, the turn in f32 */
            const double angle = (double)pos * w->inv_freq[i];
            const float a = k[i], b = k[i + n / 2], c = (float)cos(angle), s = (float)sin(angle);
            k[i] = a * c - b * s;
            k[i + n / 2] = b * c + a * s;
        }
        attn_put_v(&w->alone, page, at, h, v);
        attn_put_k(&w->both, page, at, h, k);
        attn_put_v(&w->both, page, at, h, v);
        attn_put_k(&w->typed, page, at, h, k);
        attn_put_v(&w->typed, page, at, h, v);
    }
}

static void shuffle(rng *r, int32_t *x, int n)
{
    for (int i = 0; i < n; i++) x[i] = i;
    for (int i = n - 1; i > 0; i--) {
        const int j = (int)rng_below(r, (uint32_t)i + 1);
        const int32_t t = x[i];
        x[i] = x[j];
        x[j] = t;
    }
}

static void set_rotation(world *w, rng *r)
{
    for (int i = 0; i < w->s.n_rot; i++) w->inv_freq[i] = pow(1e6, -2.0 * i / w->s.head_dim);
    for (int i = 0; i < w->s.head_dim; i++) w->norm[i] = 0.5f + (float)rng_uniform(r);
    w->rebuild = (attn_rebuild){.inv_freq = w->inv_freq,
                                .norm = w->norm,
                                .head_dim = w->s.head_dim,
                                .n_rot = w->s.n_rot,
                                .n_turn = attn_rebuild_turns(w->s.head_dim, w->s.n_rot, w->s.type)};
    w->tables = malloc(attn_rebuild_bytes(w->rebuild.n_turn));
    attn_rebuild_init(&w->rebuild, w->tables);
}

static world *world_open(rng *r, shape s, int32_t first)
{
    world *w = calloc(1, sizeof *w);
    w->s = s;
    w->first = first;
    w->n_pages = (s.n_slots + KV_PAGE_LEN - 1) / KV_PAGE_LEN + 2;
    w->alone = layer_of(&s, s.type, true, w->n_pages);
    w->both = layer_of(&s, KV_F32, false, w->n_pages);
    w->typed = layer_of(&s, s.type, false, w->n_pages);
    w->table = malloc((size_t)(w->n_pages + first / KV_PAGE_LEN) * sizeof *w->table);
    for (int i = 0; i < first / KV_PAGE_LEN; i++) w->table[i] = INT32_MIN / 2;
    shuffle(r, w->table + first / KV_PAGE_LEN, w->n_pages);
    set_rotation(w, r);
    for (int32_t i = 0; i < s.n_slots; i++) put_random(w, r, first + i, first + i);
    w->scratch = floats(attn_scratch_floats(s.n_kv_heads * s.heads_per_kv, s.n_kv_heads, s.head_dim, true));
    return w;
}

static void world_close(world *w)
{
    free(w->alone.pages);
    free(w->both.pages);
    free(w->typed.pages);
    free(w->table);
    free(w->tables);
    free(w->scratch);
    free(w);
}

static size_t row_floats(const world *w)
{
    return (size_t)(w->s.n_kv_heads * w->s.heads_per_kv * w->s.head_dim);
}

static attn_work work_of(const world *w, bool is_alone, int window)
{
    return (attn_work){.layer = is_alone ? &w->alone : &w->both,
                       .n_heads = w->s.n_kv_heads * w->s.heads_per_kv,
                       .window = window,
                       .scale = 0.9f,
                       .scratch = w->scratch,
                       .rebuild = is_alone ? &w->rebuild : NULL};
}

/* Rows with random queries, whose scores have a standard deviation of about 2; out [n][row_floats]. */
typedef struct rows {
    int n;
    size_t each;
    attn_row row[BATCH_MAX_TREE];
    float *q, *out;
} rows;

static rows *rows_open(const world *w, rng *r, int n)
{
    rows *x = calloc(1, sizeof *x);
    x->n = n;
    x->each = row_floats(w);
    x->q = floats((size_t)n * x->each);
    x->out = floats((size_t)n * x->each);
    for (size_t i = 0; i < (size_t)n * x->each; i++)
        x->q[i] = 2.0f / sqrtf((float)w->s.head_dim) * (float)rng_normal(r);
    for (int i = 0; i < n; i++)
        x->row[i] = (attn_row){.table = w->table,
                               .pos = w->first + w->s.n_slots - 1,
                               .base = w->first + w->s.n_slots,
                               .q = x->q + (size_t)i * x->each,
                               .out = x->out + (size_t)i * x->each};
    return x;
}

static void rows_close(rows *x)
{
    free(x->q);
    free(x->out);
    free(x);
}

static void run(attn_kernels k, const attn_work *work, const attn_row *row, int n)
{
    for (int h = 0; h < work->layer->desc.n_kv_heads; h++) k.rows(work, row, n, h);
}

/* The results of a run, owned by the caller. */
static float *results(attn_kernels k, const attn_work *work, rows *x)
{
    float *copy = floats((size_t)x->n * x->each);
    memset(x->out, 0xff, (size_t)x->n * x->each * sizeof *x->out);
    run(k, work, x->row, x->n);
    memcpy(copy, x->out, (size_t)x->n * x->each * sizeof *copy);
    return copy;
}

/* All head sizes, also those whose halves are no multiple of a block or of a rotated group. */
static shape random_shape(rng *r)
{
    static const int dims[] = {32, 64, 96, 128, 256, 384, 512, 512};
    shape s = {.type = TYPES[rng_below(r, N_TYPES)]};
    do s.head_dim = dims[rng_below(r, 8)];
    while (s.head_dim % (int)kv_type_get(s.type)->group_len);
    s.n_rot = rng_below(r, 3) ? s.head_dim / 8 : (int)rng_below(r, (uint32_t)s.head_dim / 2 + 1);
    s.n_kv_heads = 1 + (int)rng_below(r, 2);
    s.heads_per_kv = 1 + (int)rng_below(r, rng_below(r, 2) ? 16 : 8);
    s.n_slots = 2 + (int)rng_below(r, rng_below(r, 3) ? 300 : 1400);
    return s;
}

/* ---- the reference ---- */

static void f32_gives_the_bits_of_stored_keys(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 1);
    for (int i = 0; i < 8; i++) {
        shape s = random_shape(&r);
        s.type = KV_F32;
        world *w = world_open(&r, s, 0);
        rows *x = rows_open(w, &r, 2);
        const attn_work alone = work_of(w, true, 0), both = work_of(w, false, 0);
        float *want = results(attn_ref(), &both, x), *got = results(attn_ref(), &alone, x);
        assert_memory_equal(got, want, (size_t)x->n * x->each * sizeof *got);
        free(want);
        free(got);
        rows_close(x);
        world_close(w);
    }
}

/* One query head in float64, from the values as the cache holds them. */
static void exact_head(const world *w, const attn_row *row, int head, float *out)
{
    const int d = w->s.head_dim, n = row->pos + 1, kv_head = head / w->s.heads_per_kv;
    const bool is_rotated = kv_type_get(w->s.type)->is_rotated;
    double *s = malloc((size_t)n * sizeof *s), o[MAX_DIM] = {0}, max = -INFINITY, sum = 0;
    float *v = floats((size_t)(n * d));
    for (int p = 0; p < n; p++) {
        float *x = v + p * d;
        double k[MAX_DIM];
        attn_get_v(&w->alone, row->table[p / KV_PAGE_LEN], p % KV_PAGE_LEN, kv_head, x);
        if (is_rotated) unrotate_values(x, (size_t)d);
        for (int i = 0; i < d; i++) k[i] = (double)x[i] * w->norm[i];
        for (int i = 0; i < w->s.n_rot; i++) {
            const double c = cos(p * w->inv_freq[i]), t = sin(p * w->inv_freq[i]), a = k[i], b = k[i + d / 2];
            k[i] = a * c - b * t;
            k[i + d / 2] = b * c + a * t;
        }
        s[p] = 0;
        for (int i = 0; i < d; i++) s[p] += 0.9f * (double)row->q[head * d + i] * k[i];
        max = fmax(max, s[p]);
    }
    for (int p = 0; p < n; p++) {
        sum += exp(s[p] - max);
        for (int i = 0; i < d; i++) o[i] += exp(s[p] - max) * v[p * d + i];
    }
    for (int i = 0; i < d; i++) out[i] = (float)(o[i] / sum);
    free(s);
    free(v);
}

/* Every set against float64 over the decoded values (the arithmetic), and against keys and values that are both stored
 * in f32: the rounding of the type, as large as where both are stored in it. Head 512 of which 64 pairs turn, as in the
 * real models. */
static void types_differ_by_their_rounding(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 2);
    for (int t = 0; t < N_TYPES; t++) {
        world *w = world_open(&r, (shape){512, 64, 2, 4, TYPES[t], 700}, 0);
        rows *x = rows_open(w, &r, 6);
        const attn_work alone = work_of(w, true, 0), both = work_of(w, false, 0);
        attn_work typed = both;
        typed.layer = &w->typed;
        for (int i = 0; i < x->n; i++) x->row[i].pos -= 33 * i;
        const size_t n = (size_t)x->n * x->each;
        float *f32 = results(attn_ref(), &both, x), *stored = results(attn_ref(), &typed, x), *exact = floats(n);
        const double usual = distance(stored, f32, n);
        for (int i = 0; i < x->n; i++)
            for (int h = 0; h < alone.n_heads; h++)
                exact_head(w, &x->row[i], h, exact + (size_t)i * x->each + h * w->s.head_dim);
        for (int s = 0; s < n_sets; s++) {
            float *got = results(sets[s].kernels, &alone, x);
            const double e = distance(got, exact, n), lost = distance(got, f32, n);
            print_message("%-8s %-6s arithmetic %.1e; against f32 %.1e, with K and V stored %.1e\n",
                          kv_type_get(TYPES[t])->name, sets[s].name, e, lost, usual);
            assert_true(e < 3e-6 && lost < 1.4 * usual + 3e-6);
            free(got);
        }
        free(f32);
        free(stored);
        free(exact);
        rows_close(x);
        world_close(w);
    }
}

/* ---- kernel sets ---- */

static void kernels_agree_with_the_reference(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 3);
    for (int i = 0; i < 80; i++) {
        world *w = world_open(&r, random_shape(&r), 0);
        rows *x = rows_open(w, &r, 1 + (int)rng_below(&r, 4));
        const attn_work work = work_of(w, true, rng_below(&r, 3) ? 0 : 1 + (int)rng_below(&r, 700));
        for (int j = 0; j < x->n; j++) x->row[j].pos -= (int)rng_below(&r, (uint32_t)w->s.n_slots);
        float *want = results(attn_ref(), &work, x);
        for (int s = 1; s < n_sets; s++) {
            float *got = results(sets[s].kernels, &work, x);
            for (int j = 0; j < x->n; j++) {
                const double e = distance(got + (size_t)j * x->each, want + (size_t)j * x->each, x->each);
                if (!(e < 2e-5))
                    fail_msg("%s: case %d (%s), pos %d of %d, D %d, %d pairs turn, %d heads per KV head: %.2e",
                             sets[s].name, i, kv_type_get(w->s.type)->name, x->row[j].pos, w->s.n_slots, w->s.head_dim,
                             w->s.n_rot, w->s.heads_per_kv, e);
            }
            free(got);
        }
        free(want);
        rows_close(x);
        world_close(w);
    }
}

/* 262144 tokens: the largest angles. */
static void angles_hold_in_long_contexts(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 4);
    for (int t = 0; t < N_TYPES; t++) {
        world *w = world_open(&r, (shape){512, 64, 1, 4, TYPES[t], 600}, 262144 - 640);
        rows *x = rows_open(w, &r, 1);
        const attn_work work = work_of(w, true, 590), both = work_of(w, false, 590);
        float *want = results(attn_ref(), &work, x), *stored = results(attn_ref(), &both, x);
        for (int s = 1; s < n_sets; s++) {
            float *got = results(sets[s].kernels, &work, x);
            assert_true(distance(got, want, x->each) < 2e-5);
            free(got);
        }
        if (TYPES[t] == KV_F32) assert_memory_equal(want, stored, x->each * sizeof *want);
        free(want);
        free(stored);
        rows_close(x);
        world_close(w);
    }
}

/* ---- bits ---- */

static void splits_run(attn_kernels k, const attn_work *work, const attn_row *row)
{
    const kv_layer_desc *d = &work->layer->desc;
    const int n_heads = work->n_heads / d->n_kv_heads;
    const size_t part = (size_t)d->head_dim + 2, stride = part * (size_t)n_heads;
    int begin, end;
    attn_split_range(row, work->window, &begin, &end);
    float *parts = floats((size_t)(end - begin) * stride);
    for (int h = 0; h < d->n_kv_heads; h++) {
        for (int s = begin; s < end; s++) k.split(work, row, h, s, parts + (size_t)(s - begin) * stride);
        for (int i = 0; i < n_heads; i++)
            attn_fold(parts + (size_t)i * part, end - begin, stride, d->head_dim, kv_type_get(d->v_type)->is_rotated,
                      row->out + (size_t)(h * n_heads + i) * (size_t)d->head_dim);
    }
    free(parts);
}

static void a_row_has_the_same_bits_alone(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 5);
    for (int i = 0; i < 60; i++) {
        world *w = world_open(&r, random_shape(&r), 0);
        rows *x = rows_open(w, &r, 1 + (int)rng_below(&r, 40));
        const attn_work work = work_of(w, true, 0);
        const bool is_chunk = rng_below(&r, 2); /* consecutive positions, as in prefill; else anything */
        for (int j = 0; j < x->n; j++) {
            const int back = is_chunk ? x->n - 1 - j : (int)rng_below(&r, (uint32_t)w->s.n_slots);
            x->row[j].pos -= back < w->s.n_slots ? back : 0;
        }
        for (int s = 0; s < n_sets; s++) {
            if (s == 0 && i % 10) continue; /* slow */
            float *want = results(sets[s].kernels, &work, x);
            for (int j = 0; j < x->n; j++) {
                run(sets[s].kernels, &work, &x->row[j], 1);
                if (memcmp(x->row[j].out, want + (size_t)j * x->each, x->each * sizeof *want))
                    fail_msg("%s, case %d: row %d of %d alone differs", sets[s].name, i, j, x->n);
                splits_run(sets[s].kernels, &work, &x->row[j]);
                if (memcmp(x->row[j].out, want + (size_t)j * x->each, x->each * sizeof *want))
                    fail_msg("%s, case %d: splits of row %d differ", sets[s].name, i, j);
            }
            free(want);
        }
        rows_close(x);
        world_close(w);
    }
}

/* What a row does not see may be anything. */
static void hidden_slots_have_no_effect(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 6);
    for (int i = 0; i < 12; i++) {
        world *w = world_open(&r, (shape){128, 16, 1, 3, i % 2 ? KV_F16 : KV_F32, 700}, 0);
        rows *x = rows_open(w, &r, 1);
        const attn_work work = work_of(w, true, 100);
        const int pos = x->row[0].pos -= (int)rng_below(&r, 500);
        float v[128], *want[3];
        for (int d = 0; d < 128; d++) v[d] = INFINITY;
        for (int s = 0; s < n_sets; s++) want[s] = results(sets[s].kernels, &work, x);
        for (int p = 0; p < w->s.n_slots; p++)
            if (p > pos || p <= pos - 100) attn_put_v(&w->alone, w->table[p / KV_PAGE_LEN], p % KV_PAGE_LEN, 0, v);
        for (int s = 0; s < n_sets; s++) {
            run(sets[s].kernels, &work, x->row, 1);
            assert_memory_equal(x->out, want[s], x->each * sizeof *x->out);
            free(want[s]);
        }
        rows_close(x);
        world_close(w);
    }
}

/* ---- draft trees ---- */

/* A node lies in a slot that is not that of its position. Its row has the bits of a plain step whose key lies in place,
 * before and after the node's slot is moved there. */
static void tree_rows_have_the_bits_of_plain_rows(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 7);
    for (int i = 0; i < 40; i++) {
        shape s = random_shape(&r);
        const int32_t base = 1 + (int32_t)rng_below(&r, 600);
        s.n_slots = base + 12;
        world *w = world_open(&r, s, 0);
        rows *x = rows_open(w, &r, 1);
        const uint8_t path[BATCH_MAX_TREE] = {1, 4, 5, 9, 11};
        const int depth = 1 + (int)rng_below(&r, 5);
        const attn_work work = work_of(w, true, 0);
        x->row[0].pos = base + depth - 1;
        x->row[0].base = base;
        for (int t = 0; t < n_sets; t++) {
            x->row[0].path = path;
            float *want = results(sets[t].kernels, &work, x);
            const size_t bytes = w->alone.page_bytes * (size_t)w->n_pages;
            uint8_t *before = malloc(bytes);
            memcpy(before, w->alone.pages, bytes);
            for (int32_t d = 0; d < depth; d++) {
                const int32_t src = base + path[d], dst = base + d;
                attn_move_slot(&w->alone, w->table[src / KV_PAGE_LEN], src % KV_PAGE_LEN, w->table[dst / KV_PAGE_LEN],
                               dst % KV_PAGE_LEN);
            }
            x->row[0].path = NULL;
            float *got = results(sets[t].kernels, &work, x);
            if (memcmp(got, want, x->each * sizeof *got))
                fail_msg("%s, case %d (%s): base %d, depth %d", sets[t].name, i, kv_type_get(s.type)->name, base,
                         depth);
            memcpy(w->alone.pages, before, bytes);
            free(before);
            free(want);
            free(got);
        }
        rows_close(x);
        world_close(w);
    }
}

/* ---- layouts ---- */

static void pages_hold_v_alone(void **state)
{
    (void)state;
    for (int k = 0; k < N_TYPES; k++)
        for (int v = 0; v < N_TYPES; v++) {
            kv_layer_desc d = {.n_kv_heads = 3, .head_dim = 512, .k_type = TYPES[k], .v_type = TYPES[v]};
            const kv_layer_desc was = d;
            kv_layer_rebuild_k(&d);
            assert_true(d.rebuilds_k && d.k_type == d.v_type);
            assert_true(kv_type_is_as_fine(kv_type_get(d.v_type), kv_type_get(was.k_type)) &&
                        kv_type_is_as_fine(kv_type_get(d.v_type), kv_type_get(was.v_type)));
            assert_true(d.v_type == was.k_type || d.v_type == was.v_type);
            kv_layer_desc stored = d;
            stored.rebuilds_k = false;
            assert_int_equal(2 * kv_layer_page_bytes(&d), kv_layer_page_bytes(&stored));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_gives_the_bits_of_stored_keys),     cmocka_unit_test(types_differ_by_their_rounding),
        cmocka_unit_test(kernels_agree_with_the_reference),      cmocka_unit_test(angles_hold_in_long_contexts),
        cmocka_unit_test(a_row_has_the_same_bits_alone),         cmocka_unit_test(hidden_slots_have_no_effect),
        cmocka_unit_test(tree_rows_have_the_bits_of_plain_rows), cmocka_unit_test(pages_hold_v_alone),
    };
    return cmocka_run_group_tests_name("attention with rebuilt keys", tests, list_sets, NULL);
}
