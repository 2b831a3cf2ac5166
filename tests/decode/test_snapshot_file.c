/* Snapshots on disk: another process goes on with the same tokens, with every strategy and cache type; damaged files,
 * and those of another model, cache type, device or version, are refused with a line that says so; and a file is the
 * old one or the new one at any moment at which the writer may be killed. */
#define _GNU_SOURCE
#include "snapshot_world.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "../file/temp_dir.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "decode/snapshot_header.h"
#include "model/identity.h"

enum { N = 250, HALF = 12 };

static char self[1024]; /* this program */

/* ---- another process ----
 *
 * test_snapshot_file resume FILE K V VARIANT IS_WARM N_PROMPT REBUILD_KEYS: reads the token ids of the prompt from
 * standard input and writes those of the answer to standard output. */

static facet_sampling sampling_of(bool is_warm)
{
    facet_sampling s = facet_sampling_default();
    if (!is_warm) return s;
    s.temperature = 0.9f;
    s.top_k = 40;
    s.seed = 11;
    s.repeat_penalty = 1.1f;
    s.penalty_last_n = 64;
    return s;
}

static spec_variants variants_of(const facet_engine *e)
{
    spec_variants v = spec_few_variants(e);
    spec_add_variant(&v, (facet_speculation){0}, "plain", -1);
    return v;
}

static int resume(char **arg)
{
    facet_error err;
    int32_t prompt[512], n_evaluated;
    const int32_t n = atoi(arg[5]);
    const facet_sampling sampling = sampling_of(atoi(arg[4]));
    if (n > 512 || fread(prompt, sizeof *prompt, (size_t)n, stdin) != (size_t)n) return 3;
    spec_world w = snap_open(
        &(snap_setup){.k = arg[1], .v = arg[2], .mtp = SPEC_MTP, .dflash = SPEC_DFLASH, .rebuild_keys = atoi(arg[6])});
    spec_variants v = variants_of(w.engine);
    facet_session *s = spec_session(w.engine);
    assert_ok(snapshot_load(w.engine, 9, arg[0], &err), err);
    assert_ok(snapshot_restore(s, 9, &err), err);
    const snap_answer a = snap_say(s, prompt, n, HALF, &v.list[atoi(arg[3])].how, &sampling);
    n_evaluated = a.r.n_prefill;
    fwrite(&n_evaluated, sizeof n_evaluated, 1, stdout);
    fwrite(a.ids, sizeof *a.ids, HALF, stdout);
    facet_session_close(s);
    snap_close(&w);
    return fflush(stdout) == 0 ? 0 : 3;
}

/* The answer of another process to `prompt`. Returns the tokens that it evaluated. */
static int32_t ask_other(const char *file, const snap_setup *o, int variant, bool is_warm, const int32_t *prompt,
                         int32_t n, int32_t ids[HALF])
{
    char in[600], out[600], command[4096];
    int32_t n_evaluated;
    snprintf(in, sizeof in, "%s/in", temp_dir);
    snprintf(out, sizeof out, "%s/out", temp_dir);
    write_file(in, prompt, (size_t)n * sizeof *prompt);
    snprintf(command, sizeof command, "'%s' resume '%s' %s %s %d %d %d %d < '%s' > '%s'", self, file, o->k, o->v,
             variant, is_warm, n, o->rebuild_keys, in, out);
    if (system(command) != 0) fail_msg("failed: %s", command);
    FILE *f = fopen(out, "rb");
    assert_non_null(f);
    assert_int_equal(fread(&n_evaluated, sizeof n_evaluated, 1, f), 1);
    assert_int_equal(fread(ids, sizeof *ids, HALF, f), HALF);
    fclose(f);
    return n_evaluated;
}

static void another_process_goes_on_the_same(void **state)
{
    (void)state;
    static const snap_setup setups[] = {
        {.k = "f16", .v = "f16"},
        {.k = "q8_0", .v = "q8_0"},
        {.k = "f32", .v = "f32"},
        {.k = "q8_0", .v = "f16"},
        {.k = "q4_0", .v = "tq3_0"},
        {.k = "tq3_0", .v = "rot_q4_0"},
        {.k = "f16", .v = "f16", .rebuild_keys = true},
        {.k = "rot_q8_0", .v = "q4_0", .rebuild_keys = true},
    };
    facet_error err;
    int32_t all[N + HALF], ids[HALF];
    snap_text(all, N, 21);
    for (int t = 0; t < (int)(sizeof setups / sizeof *setups); t++) {
        snap_setup o = setups[t];
        o.mtp = SPEC_MTP;
        o.dflash = SPEC_DFLASH;
        if (o.rebuild_keys && !spec_can_rebuild_keys()) continue;
        spec_world w = snap_open(&o);
        const spec_variants v = variants_of(w.engine);
        for (int i = 0; i < v.n; i++) {
            const bool is_warm = (i + t) % 2;
            const facet_sampling sampling = sampling_of(is_warm);
            const char *file = temp_file("text.snapshot");
            facet_session *s = spec_session(w.engine);
            const snap_answer want = snap_say(s, all, N, 2 * HALF, NULL, &sampling);
            const snap_answer half = snap_say(s, all, N, HALF, &v.list[i].how, &sampling);
            snap_assert_ids(half.ids, want.ids, HALF, v.list[i].name);
            memcpy(all + N, half.ids, HALF * sizeof *all);
            assert_ok(snapshot_store(s, 0, -1, NULL, &err), err);
            assert_ok(snapshot_save(w.engine, 0, file, &err), err);
            facet_session_close(s);
            const int32_t n_evaluated = ask_other(file, &o, i, is_warm, all, N + HALF, ids);
            assert_in_range(n_evaluated, 1, 2);
            snap_assert_ids(ids, want.ids + HALF, HALF, v.list[i].name);
        }
        snap_close(&w);
    }
}

/* ---- one file, loaded here ---- */

typedef struct saved {
    uint8_t *bytes;
    size_t n;
} saved;

static saved read_saved(const char *path)
{
    saved s;
    facet_error err;
    char *data;
    assert_ok(file_read_all(path, (size_t)1 << 30, &data, &s.n, &err), err);
    s.bytes = (uint8_t *)data;
    return s;
}

/* device NULL: the one to test. */
static spec_world open_and_save(const char *device, const char *file, int32_t n_tokens)
{
    facet_error err;
    int32_t text[512];
    snap_text(text, n_tokens, 22);
    spec_world w = snap_open(&(snap_setup){.device = device, .mtp = SPEC_MTP, .dflash = SPEC_DFLASH});
    facet_session *s = snap_session(w.engine, text, n_tokens);
    assert_ok(snapshot_store(s, 1, -1, "first", &err), err);
    assert_ok(snapshot_save(w.engine, 1, file, &err), err);
    facet_session_close(s);
    return w;
}

static void what_is_loaded_is_what_was_saved(void **state)
{
    (void)state;
    facet_error err;
    snapshot_info want, got;
    spec_world w = open_and_save(NULL, temp_file("a"), 300);
    assert_true(snapshot_describe(w.engine, 1, &want));
    facet_session *s = spec_session(w.engine);
    assert_ok(snapshot_restore(s, 1, &err), err);
    spec_state state_then = spec_look(s);
    assert_ok(snapshot_load(w.engine, 2, temp_file("a"), &err), err);
    assert_true(snapshot_describe(w.engine, 2, &got));
    assert_int_equal(got.n_tokens, want.n_tokens);
    assert_string_equal(got.label, "first");
    assert_true(got.bytes == want.bytes && got.own_bytes == got.bytes);
    assert_ok(snapshot_restore(s, 2, &err), err);
    spec_assert_holds(s, &state_then, "loaded");

    assert_ok(snapshot_file_describe(temp_file("a"), &got, &err), err);
    assert_int_equal(got.slot, -1);
    assert_int_equal(got.n_tokens, 300);
    assert_string_equal(got.label, "first");
    assert_true(got.bytes == want.bytes);

    /* saving what was loaded gives the same bytes */
    assert_ok(snapshot_save(w.engine, 2, temp_file("b"), &err), err);
    saved a = read_saved(temp_file("a")), b = read_saved(temp_file("b"));
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.bytes, b.bytes, a.n);
    facet_free(a.bytes);
    facet_free(b.bytes);
    facet_session_close(s);
    spec_free_state(&state_then);
    snap_close(&w);
}

static void thin_ones_are_saved_too(void **state)
{
    (void)state;
    facet_error err;
    int32_t text[420];
    snap_text(text, 420, 23);
    spec_world w = snap_open_bundled("q8_0", 0, false);
    facet_session *s = snap_session(w.engine, text, 290);
    assert_ok(snapshot_store(s, 0, -1, NULL, &err), err);
    assert_ok(facet_session_sync(s, text, 420, &err), err);
    assert_ok(snapshot_store_thin(s, 1, 290, 420, NULL, &err), err);
    spec_state want = spec_look(s);
    assert_ok(snapshot_save(w.engine, 0, temp_file("thick"), &err), err);
    assert_ok(snapshot_save(w.engine, 1, temp_file("thin"), &err), err);
    assert_true(read_saved(temp_file("thin")).n < read_saved(temp_file("thick")).n);
    snapshot_free_all(w.engine);
    assert_ok(snapshot_load(w.engine, 20, temp_file("thick"), &err), err);
    assert_ok(snapshot_load(w.engine, 21, temp_file("thin"), &err), err);
    snap_assert_error(snapshot_restore(s, 21, &err), FACET_ERR_ARG, &err, "thin (positions 290 to 420)");
    assert_ok(snapshot_restore_chain(s, 20, (int[]){21}, 1, &err), err);
    spec_assert_holds(s, &want, "a chain from disk");
    spec_free_state(&want);
    facet_session_close(s);
    snap_close(&w);
}

/* ---- refusals ---- */

static void other_engines_refuse_it(void **state)
{
    (void)state;
    facet_error err;
    int32_t text[300];
    snap_text(text, 300, 22);
    spec_world w = open_and_save(NULL, temp_file("a"), 300);
    snap_close(&w);
    static const struct {
        snap_setup setup;
        const char *words;
    } cases[] = {
        {{.mtp = SPEC_MTP, .dflash = SPEC_DFLASH, .k = "q8_0", .v = "q8_0"},
         "cache types are f16 for K and f16 for V (layer 0), this engine's are q8_0 and q8_0"},
        {{.mtp = SPEC_MTP, .dflash = SPEC_DFLASH, .k = "f16", .v = "f32"}, "this engine's are f16 and f32"},
        {{.n_ctx = 256}, "a snapshot of 300 tokens: this engine's context holds 256"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        w = snap_open(&cases[i].setup);
        snap_assert_error(snapshot_load(w.engine, 0, temp_file("a"), &err), FACET_ERR_UNSUPPORTED, &err,
                          cases[i].words);
        assert_int_equal(snapshot_list(w.engine, NULL), 0);
        snap_close(&w);
    }

    /* without the drafter, or with another length of its context, the target's part is taken */
    static const snap_setup fewer[] = {{.mtp = SPEC_MTP}, {.dflash = SPEC_DFLASH, .draft_ctx = 200}};
    for (size_t i = 0; i < 2; i++) {
        w = snap_open(&fewer[i]);
        facet_session *s = spec_session(w.engine);
        assert_ok(snapshot_load(w.engine, 0, temp_file("a"), &err), err);
        assert_ok(snapshot_restore(s, 0, &err), err);
        assert_int_equal(draft_feed_has_context(s), i == 0);
        const facet_speculation how = {.method = i ? FACET_SPEC_DFLASH : FACET_SPEC_MTP, .adapt = FACET_ADAPT_OFF};
        facet_session *fresh = spec_session(w.engine);
        const snap_answer want = snap_say(fresh, text, 300, 24, NULL, NULL), a = snap_say(s, text, 300, 24, &how, NULL);
        snap_assert_ids(a.ids, want.ids, 24, "without the drafter's context");
        assert_true(i == 0 ? a.r.spec.drafted > 0 : a.r.spec.drafted == 0);
        facet_session_close(s);
        facet_session_close(fresh);
        snap_close(&w);
    }

    /* and the other way round: a file without drafts, an engine with */
    w = snap_open(&(snap_setup){.mtp = SPEC_MTP});
    facet_session *s = snap_session(w.engine, text, 300);
    assert_ok(snapshot_store(s, 0, -1, NULL, &err), err);
    assert_ok(snapshot_save(w.engine, 0, temp_file("b"), &err), err);
    facet_session_close(s);
    snap_close(&w);
    w = snap_open_bundled(NULL, 0, false);
    s = spec_session(w.engine);
    assert_ok(snapshot_load(w.engine, 0, temp_file("b"), &err), err);
    assert_ok(snapshot_restore(s, 0, &err), err);
    assert_false(draft_feed_has_context(s));
    facet_session_close(s);
    snap_close(&w);
}

/* Full and thin files of engines that rebuild keys, and of those that store them, are of no use to each other. */
static void keys_must_be_kept_the_same_way(void **state)
{
    (void)state;
    if (!spec_can_rebuild_keys()) return;
    static const char *const words[] = {
        "types are none (keys are rebuilt) for K and f16 for V (layer 2), this engine's are f16 and f16",
        "types are f16 for K and f16 for V (layer 2), this engine's are none (keys are rebuilt) and f16"};
    facet_error err;
    int32_t text[420];
    snap_text(text, 420, 25);
    for (int from = 0; from < 2; from++) {
        spec_world w = snap_open(&(snap_setup){.rebuild_keys = from == 0});
        facet_session *s = snap_session(w.engine, text, 290);
        assert_ok(snapshot_store(s, 0, -1, NULL, &err), err);
        assert_ok(facet_session_sync(s, text, 420, &err), err);
        assert_ok(snapshot_store_thin(s, 1, 290, 420, NULL, &err), err);
        spec_state want = spec_look(s);
        assert_ok(snapshot_save(w.engine, 0, temp_file("thick"), &err), err);
        assert_ok(snapshot_save(w.engine, 1, temp_file("thin"), &err), err);
        snapshot_free_all(w.engine);
        assert_ok(snapshot_load(w.engine, 5, temp_file("thick"), &err), err);
        assert_ok(snapshot_load(w.engine, 6, temp_file("thin"), &err), err);
        assert_ok(snapshot_restore_chain(s, 5, (int[]){6}, 1, &err), err);
        spec_assert_holds(s, &want, "a chain from disk");
        spec_free_state(&want);
        facet_session_close(s);
        snap_close(&w);
        w = snap_open(&(snap_setup){.rebuild_keys = from != 0});
        static const char *const files[] = {"thick", "thin"};
        for (int i = 0; i < 2; i++)
            snap_assert_error(snapshot_load(w.engine, 0, temp_file(files[i]), &err), FACET_ERR_UNSUPPORTED, &err,
                              words[from]);
        assert_int_equal(snapshot_list(w.engine, NULL), 0);
        snap_close(&w);
    }
}

static void another_model_refuses_it(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/tiny-31b-Q8_0.gguf");
    facet_error err;
    spec_world w = open_and_save(NULL, temp_file("a"), 100);
    snap_close(&w);
    static const char *const others[] = {"models/tiny-31b-Q8_0.gguf", "models/tiny-26b-a4b-Q4_K_M.gguf"};
    for (size_t i = 0; i < 2; i++) {
        w = spec_open(&(spec_setup){.target = test_shared(others[i])});
        snap_assert_error(snapshot_load(w.engine, 0, temp_file("a"), &err), FACET_ERR_UNSUPPORTED, &err,
                          "a snapshot of another model (identity ");
        spec_close(&w);
    }
}

/* The bundled file with one bit of one tensor changed is another model; with another name it is the same. */
static void identity_is_of_what_matters(void **state)
{
    (void)state;
    facet_error err;
    saved file = read_saved(SPEC_TARGET);
    uint64_t ids[3];
    for (int i = 0; i < 3; i++) {
        facet_model *m;
        char *name = memmem(file.bytes, file.n, "Tiny 31b", 8);
        assert_non_null(name);
        if (i == 1) file.bytes[file.n - 1] ^= 1; /* the last tensor's last byte */
        if (i == 2) file.bytes[file.n - 1] ^= 1, name[0] = 'W';
        write_file(temp_file("model.gguf"), file.bytes, file.n);
        assert_ok(facet_model_open(temp_file("model.gguf"), &m, &err), err);
        ids[i] = identity_of_model(m);
        facet_model_close(m);
    }
    assert_true(ids[0] != ids[1]);
    assert_true(ids[0] == ids[2]);
    facet_free(file.bytes);
}

static void sign_header(uint8_t *bytes)
{
    const uint64_t sum = hash64_of(bytes, offsetof(snapshot_header, checksum));
    memcpy(bytes + offsetof(snapshot_header, checksum), &sum, sizeof sum);
}

static facet_status load_bytes(spec_world *w, const uint8_t *bytes, size_t n, facet_error *err)
{
    write_file(temp_file("damaged"), bytes, n);
    return snapshot_load(w->engine, 5, temp_file("damaged"), err);
}

typedef struct watch {
    int32_t n_free[KV_MAX_GROUPS];
    int64_t n_live;
} watch;

static watch watch_begin(const spec_world *w)
{
    watch x = {.n_live = mem_n_live()};
    snap_count_free(w->engine, x.n_free);
    return x;
}

/* Nothing was taken, nothing left behind. */
static void watch_end(const spec_world *w, const watch *x, const char *what)
{
    int32_t now[KV_MAX_GROUPS];
    snap_count_free(w->engine, now);
    for (int g = 0; g < w->engine->kv.n_groups; g++)
        if (now[g] != x->n_free[g]) fail_msg("%s: %d pages free, %d before", what, now[g], x->n_free[g]);
    if (mem_n_live() != x->n_live) fail_msg("%s: %d blocks left", what, (int)(mem_n_live() - x->n_live));
}

static void fields_out_of_range_are_refused(void **state)
{
    (void)state;
    facet_error err;
    static const struct {
        size_t at;
        int size;
        uint64_t value;
        facet_status status;
        const char *words;
    } cases[] = {
#define FIELD(name) offsetof(snapshot_header, name), (int)sizeof((snapshot_header *)0)->name
        {FIELD(magic), 0x1234, FACET_ERR_FORMAT, "does not begin with FACETSNP"},
        {FIELD(version), 2, FACET_ERR_UNSUPPORTED, "a snapshot of version 2: this program reads version 1"},
        {FIELD(version), 0, FACET_ERR_UNSUPPORTED, "version 0"},
        {FIELD(header_bytes), UINT32_MAX, FACET_ERR_FORMAT, "header_bytes is 4294967295, wanted 320 to 320"},
        {FIELD(file_bytes), UINT64_MAX, FACET_ERR_FORMAT, "damaged"},
        {FIELD(file_bytes), 0, FACET_ERR_FORMAT, "the snapshot 0: damaged"},
        {FIELD(model), 5, FACET_ERR_UNSUPPORTED, "another model (identity 0000000000000005"},
        {FIELD(page_layout), 0x73776f72 /* "rows" */, FACET_ERR_UNSUPPORTED, "laid out as 'rows', those of device"},
        {FIELD(page_layout), UINT64_MAX, FACET_ERR_UNSUPPORTED, "laid out as"},
        {FIELD(page_len), 65, FACET_ERR_FORMAT, "page_len is 65, wanted 64"},
        {FIELD(n_vocab), 5, FACET_ERR_FORMAT, "5 vocabulary entries"},
        {FIELD(n_tokens), 0, FACET_ERR_FORMAT, "n_tokens is 0"},
        {FIELD(n_tokens), INT32_MAX, FACET_ERR_FORMAT, "n_tokens is 2147483647"},
        {FIELD(n_tokens), UINT32_MAX, FACET_ERR_FORMAT, "n_tokens is -1"},
        {FIELD(n_tokens), 1 << 24, FACET_ERR_FORMAT, "n_pages is"},
        {FIELD(first), 300, FACET_ERR_FORMAT, "first is 300, wanted 0 to 299"},
        {FIELD(first), UINT32_MAX, FACET_ERR_FORMAT, "first is -1"},
        {FIELD(gap_begin), 301, FACET_ERR_FORMAT, "gap_begin is 301"},
        {FIELD(gap_end), 301, FACET_ERR_FORMAT, "gap_end is 301"},
        {FIELD(gap_begin), 1, FACET_ERR_FORMAT, "gap_end is 0, wanted 1"},
        {FIELD(n_groups), 1, FACET_ERR_FORMAT, "n_groups is 1"},
        {FIELD(n_groups), UINT32_MAX, FACET_ERR_FORMAT, "n_groups is 4294967295"},
        {FIELD(n_groups), 2, FACET_ERR_FORMAT, "damaged"},
        {FIELD(n_layers), 0, FACET_ERR_FORMAT, "n_layers is 0"},
        {FIELD(n_layers), UINT32_MAX, FACET_ERR_FORMAT, "n_layers is 4294967295"},
        {FIELD(n_layers), 3, FACET_ERR_FORMAT, "damaged"},
        {FIELD(label), UINT64_MAX, FACET_ERR_FORMAT, "the label is not a text"},
        {FIELD(groups[0].window), UINT32_MAX, FACET_ERR_FORMAT, "window is -1"},
        {FIELD(groups[1].window), 64, FACET_ERR_UNSUPPORTED, "cache group 1 has a window of 64"},
        {FIELD(groups[0].first_page), 6, FACET_ERR_FORMAT, "first_page is 6, wanted 0 to 5"},
        {FIELD(groups[0].n_pages), UINT32_MAX, FACET_ERR_FORMAT, "n_pages is -1"},
        {FIELD(groups[0].n_pages), INT32_MAX, FACET_ERR_FORMAT, "n_pages is 2147483647, wanted 5 to 5"},
        {FIELD(groups[1].page_bytes), UINT64_MAX, FACET_ERR_FORMAT, "page_bytes is -1"},
        {FIELD(groups[1].page_bytes), 0, FACET_ERR_FORMAT, "page_bytes is 0"},
        {FIELD(groups[2].zero), 1, FACET_ERR_FORMAT, "a reserved field is 1"},
        {FIELD(reserved), 1, FACET_ERR_FORMAT, "a reserved field is not zero"},
    };
    spec_world w = open_and_save("cpu", temp_file("a"), 300);
    saved good = read_saved(temp_file("a"));
    const watch x = watch_begin(&w);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *bytes = malloc(good.n);
        memcpy(bytes, good.bytes, good.n);
        memcpy(bytes + cases[i].at, &cases[i].value, cases[i].size < 8 ? (size_t)cases[i].size : 8);
        sign_header(bytes);
        snap_assert_error(load_bytes(&w, bytes, good.n, &err), cases[i].status, &err, cases[i].words);
        watch_end(&w, &x, cases[i].words);
        free(bytes);
    }
    snapshot_info info;
    assert_false(snapshot_describe(w.engine, 5, &info));
    facet_free(good.bytes);
    snap_close(&w);
}

static void every_damage_is_found(void **state)
{
    (void)state;
    facet_error err;
    spec_world w = open_and_save("cpu", temp_file("a"), 70);
    saved good = read_saved(temp_file("a"));
    const watch x = watch_begin(&w);
    rng r;
    rng_seed(&r, 5);

    /* every bit of the header, and of the tail; bits of the rest here and there */
    for (size_t bit = 0; bit < 8 * (sizeof(snapshot_header) + sizeof(uint64_t)) + 200; bit++) {
        size_t at = bit / 8;
        if (at >= sizeof(snapshot_header)) at = good.n - 1 - (at - sizeof(snapshot_header));
        if (bit / 8 >= sizeof(snapshot_header) + sizeof(uint64_t))
            at = sizeof(snapshot_header) + rng_below(&r, (uint32_t)(good.n - sizeof(snapshot_header)));
        good.bytes[at] ^= (uint8_t)(1u << bit % 8);
        const facet_status status = load_bytes(&w, good.bytes, good.n, &err);
        if (status != FACET_ERR_FORMAT && status != FACET_ERR_UNSUPPORTED)
            fail_msg("bit %zu of byte %zu: status %d", bit % 8, at, (int)status);
        watch_end(&w, &x, "a flipped bit");
        good.bytes[at] ^= (uint8_t)(1u << bit % 8);
    }

    /* every length up to the pages, then some; and a byte too many */
    const size_t pages = sizeof(snapshot_header) + 16 * (size_t)w.engine->kv.n_layers + 70 * sizeof(int32_t);
    for (size_t n = 0; n < good.n; n += n < pages + 64 ? 1 : 4093) {
        if (load_bytes(&w, good.bytes, n, &err) != FACET_ERR_FORMAT) fail_msg("%zu bytes: %s", n, err.message);
        watch_end(&w, &x, "a cut file");
    }
    uint8_t *longer = malloc(good.n + 1);
    memcpy(longer, good.bytes, good.n);
    longer[good.n] = 0;
    assert_int_equal(load_bytes(&w, longer, good.n + 1, &err), FACET_ERR_FORMAT);
    free(longer);

    /* a token out of range, under right checksums */
    const int32_t bad = 1 << 20;
    memcpy(good.bytes + pages - 40, &bad, sizeof bad);
    const uint64_t sum = hash64_of(good.bytes, good.n - sizeof sum);
    memcpy(good.bytes + good.n - sizeof sum, &sum, sizeof sum);
    snap_assert_error(load_bytes(&w, good.bytes, good.n, &err), FACET_ERR_FORMAT, &err, "is 1048576: the vocabulary");
    watch_end(&w, &x, "a bad token");

    /* what stood in the slot is still there */
    snapshot_info info;
    assert_ok(snapshot_load(w.engine, 5, temp_file("a"), &err), err);
    assert_int_equal(load_bytes(&w, good.bytes, 10, &err), FACET_ERR_FORMAT);
    assert_true(snapshot_describe(w.engine, 5, &info));
    assert_int_equal(info.n_tokens, 70);
    facet_free(good.bytes);
    snap_close(&w);
}

static void paths_that_cannot_be_used(void **state)
{
    (void)state;
    facet_error err;
    spec_world w = open_and_save("cpu", temp_file("a"), 70);
    snap_assert_error(snapshot_load(w.engine, 5, temp_file("none"), &err), FACET_ERR_IO, &err, "none: cannot open");
    snap_assert_error(snapshot_load(w.engine, 5, temp_dir, &err), FACET_ERR_IO, &err, "not a regular file");
    snap_assert_error(snapshot_load(w.engine, 5, "/dev/zero", &err), FACET_ERR_IO, &err, "not a regular file");
    snap_assert_error(snapshot_load(w.engine, 64, temp_file("a"), &err), FACET_ERR_ARG, &err, "slot 64");
    snap_assert_error(snapshot_save(w.engine, 1, temp_file("no/folder"), &err), FACET_ERR_IO, &err, "folder");
    snap_assert_error(snapshot_save(w.engine, 2, temp_file("b"), &err), FACET_ERR_ARG, &err, "slot 2 is empty");
    snap_assert_error(snapshot_save(w.engine, 1, "/dev/null", &err), FACET_ERR_IO, &err,
                      "/dev/null: not a regular file");
    snap_assert_error(snapshot_save(w.engine, 1, temp_dir, &err), FACET_ERR_IO, &err, "not a regular file");
    snap_close(&w);
}

/* ---- the writer is killed ---- */

enum { N_KILLS = 200, N_STATES = 2, N_STATE_TOKENS = 200 };

/* A process that writes the engine's slots 0 and 1 by turns, for ever. */
static pid_t start_writer(spec_world *w, const char *file, int *from)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t pid = fork();
    for (int i = 0; pid == 0; i++) {
        if (snapshot_save(w->engine, i % N_STATES, file, NULL) != FACET_OK) _exit(3);
        if (i == 0 && write(ends[1], "r", 1) != 1) _exit(3);
    }
    close(ends[1]);
    *from = ends[0];
    return pid;
}

static void nap(uint32_t us)
{
    const struct timespec t = {.tv_sec = us / 1000000, .tv_nsec = (long)(us % 1000000) * 1000};
    nanosleep(&t, NULL);
}

/* Microseconds in which a writer saves several states. */
static uint32_t several_saves(const spec_world *w, const char *file)
{
    facet_error err;
    const uint64_t t0 = clock_ns();
    for (int i = 0; i < N_STATES; i++) assert_ok(snapshot_save(w->engine, i, file, &err), err);
    return (uint32_t)((clock_ns() - t0) / 1000) * 2 + 1000;
}

static int count_left_behind(void)
{
    DIR *d = opendir(temp_dir);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) n += strstr(e->d_name, ".tmp-") != NULL;
    closedir(d);
    return n;
}

static void a_killed_writer_leaves_the_old_or_the_new(void **state)
{
    (void)state;
    facet_error err;
    const char *file = temp_file("killed");
    rng r;
    rng_seed(&r, 9);
    /* a process that was forked cannot use its parent's device */
    spec_world w = snap_open(&(snap_setup){.device = "cpu", .k = "f32", .v = "f32"});
    int32_t text[N_STATES][N_STATE_TOKENS];
    spec_state want[N_STATES];
    facet_session *s = spec_session(w.engine);
    for (int i = 0; i < N_STATES; i++) {
        snap_text(text[i], N_STATE_TOKENS, 50 + (uint64_t)i);
        assert_ok(facet_session_sync(s, text[i], (size_t)(N_STATE_TOKENS - i), &err), err);
        assert_ok(snapshot_store(s, i, -1, NULL, &err), err);
        want[i] = spec_look(s);
    }
    const uint32_t most = several_saves(&w, file);
    int n_found[N_STATES] = {0}, n_cut = 0;
    for (int k = 0; k < N_KILLS; k++) {
        int from, status;
        char ready;
        const pid_t pid = start_writer(&w, file, &from);
        assert_int_equal(read(from, &ready, 1), 1);
        nap(rng_below(&r, most));
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        close(from);
        assert_ok(snapshot_load(w.engine, 9, file, &err), err);
        snapshot_info info;
        assert_true(snapshot_describe(w.engine, 9, &info));
        const int which = N_STATE_TOKENS - info.n_tokens;
        assert_in_range(which, 0, N_STATES - 1);
        assert_ok(snapshot_restore(s, 9, &err), err);
        if (n_found[which]++ < 5)
            spec_assert_holds(s, &want[which], "after a kill");
        else
            assert_memory_equal(s->tokens, text[which], (size_t)info.n_tokens * sizeof(int32_t));
    }
    n_cut = count_left_behind();
    print_message("%d kills: %d of the first state, %d of the second; %d in the middle of a file\n", N_KILLS,
                  n_found[0], n_found[1], n_cut);
    assert_true(n_cut > 0);
    assert_true(n_found[0] > 0 && n_found[1] > 0);
    for (int i = 0; i < N_STATES; i++) spec_free_state(&want[i]);
    facet_session_close(s);
    snap_close(&w);
}

static int clear(void **state)
{
    (void)state;
    temp_dir_empty();
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 9 && strcmp(argv[1], "resume") == 0) return resume(argv + 2);
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0) return 1;
    self[n] = 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(another_process_goes_on_the_same, clear),
        cmocka_unit_test_teardown(what_is_loaded_is_what_was_saved, clear),
        cmocka_unit_test_teardown(thin_ones_are_saved_too, clear),
        cmocka_unit_test_teardown(other_engines_refuse_it, clear),
        cmocka_unit_test_teardown(keys_must_be_kept_the_same_way, clear),
        cmocka_unit_test_teardown(another_model_refuses_it, clear),
        cmocka_unit_test_teardown(identity_is_of_what_matters, clear),
        cmocka_unit_test_teardown(fields_out_of_range_are_refused, clear),
        cmocka_unit_test_teardown(every_damage_is_found, clear),
        cmocka_unit_test_teardown(paths_that_cannot_be_used, clear),
        cmocka_unit_test_teardown(a_killed_writer_leaves_the_old_or_the_new, clear),
    };
    return cmocka_run_group_tests_name("snapshot files", tests, temp_dir_make, temp_dir_remove);
}
