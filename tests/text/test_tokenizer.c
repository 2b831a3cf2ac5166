#define _GNU_SOURCE /* memmem */
#include "testing.h"

#include "base/utf8.h"
#include "text_testing.h"
#include "text/vocab.h"

#define FULL_VOCAB "models/vocab-gemma-4.gguf"

static tokenizer *small;
static tokenizer *full; /* NULL without the reference set */

static int open_vocabularies(void **state)
{
    (void)state;
    small = open_small_vocab();
    if (test_shared(FULL_VOCAB)) full = open_vocab_file(test_shared(FULL_VOCAB));
    return 0;
}

static int close_vocabularies(void **state)
{
    (void)state;
    tokenizer_close(small);
    tokenizer_close(full);
    return 0;
}

static void matches_the_goldens(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED(FULL_VOCAB);
    FILE *f = fopen(test_data("tokenizer_gemma4.jsonl"), "r");
    assert_non_null(f);
    id_list ids = {0};
    int n = 0;
    for (json_t *line; (line = next_json_line(f)); n++, json_decref(line)) {
        const json_t *text = json_object_get(line, "text");
        encode(full, json_string_value(text), json_string_length(text), SPECIAL_ALL, &ids);
        assert_json_ids(&ids, json_object_get(line, "ids"), json_string_value(text));
        encode(full, json_string_value(text), json_string_length(text), SPECIAL_USER, &ids);
        assert_json_ids(&ids, json_object_get(line, "ids_no_special"), json_string_value(text));
    }
    assert_int_equal(n, 120);
    fclose(f);
    mem_free(ids.ids);
}

static void check_prompts(const char *model, const char *golden)
{
    const char *path = test_shared(model);
    if (!path || !test_shared(golden)) skip();
    tokenizer *t = open_vocab_file(path);
    json_t *prompts = json_load_file(test_shared(golden), 0, NULL);
    assert_true(json_array_size(prompts) > 0);
    id_list ids = {0};
    for (size_t i = 0; i < json_array_size(prompts); i++) {
        const json_t *p = json_array_get(prompts, i), *text = json_object_get(p, "text");
        encode(t, json_string_value(text), json_string_length(text), SPECIAL_ALL, &ids);
        assert_json_ids(&ids, json_object_get(p, "ids"), json_string_value(json_object_get(p, "name")));
    }
    mem_free(ids.ids);
    json_decref(prompts);
    tokenizer_close(t);
}

static void matches_the_prompts_of_the_small_models(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("goldens/tiny-31b.json");
    check_prompts("models/tiny-31b-Q4_0.gguf", "goldens/tiny-31b.json");
    check_prompts("models/tiny-26b-a4b-Q4_K_M.gguf", "goldens/tiny-26b-a4b.json");
    check_prompts("models/tiny-e2b-Q4_K_M.gguf", "goldens/tiny-e2b.json");
}

static void knows_the_landmarks(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED(FULL_VOCAB);
    static const struct {
        const char *text;
        int32_t ids[12];
        size_t n;
    } rows[] = {
        {"Hello", {9259}, 1},
        {" Hello", {26352}, 1},
        {"don't stop", {13246, 236789, 236745, 4721}, 4},
        {"1234", {236770, 236778, 236800, 236812}, 4},
        {"\r\n", {251, 107}, 2},
        {"  ", {138}, 1},
        {"\n\n\n", {109}, 1},
        {"</s>", {954, 236751, 236813}, 3},
        {"<unused0>", {236820, 63634, 236771, 236813}, 4},
        {"<|turn>user\nHi<turn|>\n", {105, 2364, 107, 10979, 106, 107}, 6},
        {"a\xff"
         "b",
         {236746, 238479, 236763},
         3},
    };
    id_list ids = {0};
    for (size_t i = 0; i < N_OF(rows); i++) {
        encode(full, rows[i].text, strlen(rows[i].text), SPECIAL_ALL, &ids);
        assert_ids(&ids, rows[i].ids, rows[i].n, rows[i].text);
    }
    encode(full, "", 1, SPECIAL_ALL, &ids);
    assert_ids(&ids, (const int32_t[]){238}, 1, "NUL");
    char newlines[100];
    memset(newlines, '\n', sizeof newlines);
    encode(full, newlines, 100, SPECIAL_ALL, &ids);
    assert_ids(&ids, (const int32_t[]){137, 137, 137, 113}, 4, "100 newlines");
    encode(full, newlines, 32, SPECIAL_ALL, &ids);
    assert_ids(&ids, (const int32_t[]){137, 107}, 2, "32 newlines");
    const special_ids *s = tokenizer_special(full);
    assert_int_equal(s->bos, 2);
    assert_int_equal(s->turn_close, 106);
    assert_int_equal(s->quote, 52);
    static const int32_t ends[] = {1, 50, 106};
    for (size_t i = 0; i < N_OF(ends); i++) assert_true(tokenizer_is_end(full, ends[i]));
    assert_false(tokenizer_is_end(full, 212));
    assert_true(tokenizer_is_control(full, 50));
    assert_false(tokenizer_is_control(full, 48));
    mem_free(ids.ids);
}

/* The definition, without a queue and without pieces: O(n^2). */
static void encode_run_slowly(const tokenizer *t, const char *s, size_t n, id_list *out)
{
    size_t count = 0;
    int32_t *sym = mem_alloc((n + 1) * sizeof *sym);
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int k = utf8_decode(s + i, n - i, &cp);
        i += k ? (size_t)k : (size_t)utf8_invalid_length(s + i, n - i);
        if (!k) cp = 0xfffd;
        if (cp == ' ') cp = 0x2581;
        int32_t id = vocab_char(t, cp);
        sym[count++] = id >= 0 ? id : -1 - (int32_t)cp;
    }
    for (;;) {
        uint32_t best = BPE_NO_RANK;
        size_t at = 0;
        for (size_t i = 0; i + 1 < count; i++) {
            uint32_t rank = bpe_rank(&t->merges, sym[i], sym[i + 1]);
            if (rank < best) best = rank, at = i;
        }
        if (best == BPE_NO_RANK) break;
        sym[at] = t->merges.merged[best];
        memmove(sym + at + 1, sym + at + 2, (--count - at - 1) * sizeof *sym);
    }
    out->n = 0;
    if (out->cap < 4 * n + 4) out->ids = mem_realloc(out->ids, (out->cap = 4 * n + 4) * sizeof *out->ids);
    for (size_t i = 0; i < count; i++) {
        char bytes[4];
        int k = sym[i] < 0 ? utf8_encode((uint32_t)(-1 - sym[i]), bytes) : 0;
        if (!k) out->ids[out->n++] = sym[i];
        for (int j = 0; j < k; j++) out->ids[out->n++] = t->byte_ids[(unsigned char)bytes[j]];
    }
    mem_free(sym);
}

static size_t random_run(rng *r, bool is_small, char *s, size_t max)
{
    static const char *const pieces[] = {
        "a", "b", "c", "d", " ", "  ", "1", "\xc3\xa9", "ab", "\xff", "\xe6\x97\xa5", "\xe2\x96\x81"};
    static const char *const words[] = {"the ", "function", " return",          "ing",
                                        "   ",  "Zug",      "\xd0\xbd\xd0\xbe", "42",
                                        "://",  "\t\t",     "\xf0\x9f\x98\x80", "e"};
    size_t n = 0;
    while (n + 16 < max && rng_below(r, 40)) {
        const char *p = is_small ? pieces[rng_below(r, N_OF(pieces))] : words[rng_below(r, N_OF(words))];
        size_t k = strlen(p);
        memcpy(s + n, p, k);
        n += k;
        if (!is_small && rng_below(r, 3) == 0) s[n++] = (char)(33 + rng_below(r, 94));
    }
    return n;
}

static void check_against_definition(const tokenizer *t, bool is_small, int rounds)
{
    rng r;
    rng_seed(&r, 11);
    id_list fast = {0}, slow = {0};
    char s[512];
    for (int i = 0; i < rounds; i++) {
        size_t n = random_run(&r, is_small, s, sizeof s);
        encode(t, s, n, SPECIAL_NONE, &fast);
        encode_run_slowly(t, s, n, &slow);
        char what[64];
        snprintf(what, sizeof what, "seed 11, round %d", i);
        assert_ids(&fast, slow.ids, slow.n, what);
    }
    mem_free(fast.ids);
    mem_free(slow.ids);
}

static void merges_as_the_definition_says(void **state)
{
    (void)state;
    check_against_definition(small, true, 5000);
    if (full) check_against_definition(full, false, 3000);
}

/* Replaces the longest special texts first, over the whole text, as the definition says. owner[i]: which token byte i
 * belongs to. */
static void mark_specials_slowly(const tokenizer *t, const char *s, size_t n, int32_t *owner)
{
    for (size_t i = 0; i < n; i++) owner[i] = -1;
    for (size_t len = SPECIAL_MAX_BYTES; len > 0; len--)
        for (size_t i = 0; i + len <= n; i++) {
            int32_t id = vocab_find(t, s + i, len);
            bool is_free = id >= 0 && (t->class_of[id] == TOKEN_CONTROL || t->class_of[id] == TOKEN_USER);
            for (size_t k = i; is_free && k < i + len; k++) is_free = owner[k] < 0;
            for (size_t k = i; is_free && k < i + len; k++) owner[k] = id;
        }
}

static void check_special_order(const tokenizer *t)
{
    rng r;
    rng_seed(&r, 12);
    static const char *const junk[] = {"<",    "|",     ">",    "<|", "|>",     "\"",
                                       "tool", "_call", "turn", "x",  "<|tool", "channel|"};
    id_list ids = {0};
    for (int round = 0; round < 2000; round++) {
        char s[600] = "";
        int32_t owner[600];
        for (int i = 0; i < 20; i++)
            strcat(s, rng_below(&r, 3) ? junk[rng_below(&r, N_OF(junk))] : small_specials[rng_below(&r, 24)]);
        size_t n = strlen(s), at = 0;
        mark_specials_slowly(t, s, n, owner);
        encode(t, s, n, SPECIAL_ALL, &ids);
        for (size_t i = 0; i < ids.n; i++) {
            bool is_special = t->class_of[ids.ids[i]] == TOKEN_CONTROL || t->class_of[ids.ids[i]] == TOKEN_USER;
            size_t bytes = 1;
            if (t->class_of[ids.ids[i]] != TOKEN_BYTE) tokenizer_token_text(t, ids.ids[i], &bytes);
            for (size_t k = 0; k < bytes; k++, at++) assert_int_equal(owner[at], is_special ? ids.ids[i] : -1);
        }
        assert_int_equal(at, n);
    }
    mem_free(ids.ids);
}

static void finds_specials_as_longest_first(void **state)
{
    (void)state;
    check_special_order(small);
    if (full) check_special_order(full);
}

static void special_modes_differ(void **state)
{
    (void)state;
    static const char text[] = "<bos><|turn><|channel><|tool_response>";
    const special_ids *s = tokenizer_special(small);
    id_list ids = {0};
    encode(small, text, strlen(text), SPECIAL_ALL, &ids);
    assert_ids(&ids, (const int32_t[]){s->bos, s->turn_open, s->channel_open, s->response_open}, 4, "all");
    encode(small, text, strlen(text), SPECIAL_USER, &ids);
    size_t n_user = 0;
    for (size_t i = 0; i < ids.n; i++) {
        assert_false(tokenizer_is_control(small, ids.ids[i]));
        n_user += ids.ids[i] == s->channel_open;
    }
    assert_int_equal(n_user, 1);
    encode(small, text, strlen(text), SPECIAL_NONE, &ids);
    for (size_t i = 0; i < ids.n; i++) assert_true(ids.ids[i] >= (int32_t)N_OF(small_specials));
    mem_free(ids.ids);
}

static void adds_bos_once(void **state)
{
    (void)state;
    facet_error err;
    id_list ids = {0};
    int32_t bos = tokenizer_special(small)->bos;
    static const struct {
        const char *text;
        special_mode mode;
        size_t n_bos;
    } rows[] = {{"a", SPECIAL_ALL, 1}, {"<bos>a", SPECIAL_ALL, 1}, {"", SPECIAL_ALL, 1}, {"<bos>a", SPECIAL_NONE, 1}};
    for (size_t i = 0; i < N_OF(rows); i++) {
        size_t n_bos = 0;
        ids.n = 0;
        assert_ok(tokenizer_encode(small, rows[i].text, strlen(rows[i].text), true, rows[i].mode, &ids.ids, &ids.n,
                                   &ids.cap, &err),
                  err);
        for (size_t k = 0; k < ids.n; k++) n_bos += ids.ids[k] == bos;
        assert_int_equal(n_bos, rows[i].n_bos);
        assert_int_equal(ids.ids[0], bos);
    }
    mem_free(ids.ids);
}

static size_t random_utf8(rng *r, char *s, size_t max)
{
    size_t n = 0;
    while (n + 4 < max && rng_below(r, 60)) {
        uint32_t limit = rng_below(r, 3) ? 0x80 : rng_below(r, 2) ? 0x800 : 0x110000, cp = rng_below(r, limit);
        if ((cp >= 0xd800 && cp < 0xe000) || cp == 0x2581) continue;
        n += (size_t)utf8_encode(cp, s + n);
    }
    return n;
}

static void check_round_trips(const tokenizer *t, int rounds)
{
    rng r;
    rng_seed(&r, 13);
    id_list ids = {0};
    buf back = {0};
    char s[1024];
    for (int i = 0; i < rounds; i++) {
        size_t n = random_utf8(&r, s, sizeof s);
        encode(t, s, n, i % 2 ? SPECIAL_NONE : SPECIAL_ALL, &ids);
        decode(t, &ids, &back);
        if (back.len != n || (n && memcmp(back.data, s, n) != 0)) fail_msg("seed 13, round %d: text changed", i);
    }
    buf_free(&back);
    mem_free(ids.ids);
}

static void round_trips_valid_text(void **state)
{
    (void)state;
    check_round_trips(small, 2000);
    if (full) check_round_trips(full, 2000);
}

static void replaces_invalid_parts(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"\xff", "\xef\xbf\xbd"},
        {"a\x80\x80"
         "b",
         "a\xef\xbf\xbd\xef\xbf\xbd"
         "b"},
        {"\xe2\x96"
         "a",
         "\xef\xbf\xbd"
         "a"},
        {"\xf0\x9f\x98", "\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xe2\n\x96", "\xef\xbf\xbd\n\xef\xbf\xbd"},
    };
    id_list ids = {0};
    buf back = {0};
    for (size_t i = 0; i < N_OF(rows); i++) {
        encode(small, rows[i].text, strlen(rows[i].text), SPECIAL_ALL, &ids);
        decode(small, &ids, &back);
        assert_string_equal(back.data, rows[i].want);
    }
    buf_free(&back);
    mem_free(ids.ids);
}

/* Every prefix of what streams out is whole characters and a prefix of the final text. */
static void streams_whole_characters(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 14);
    buf whole = {0}, part = {0};
    for (int round = 0; round < 300; round++) {
        int32_t seq[60];
        for (size_t i = 0; i < N_OF(seq); i++) {
            int32_t n = tokenizer_n_vocab(small);
            seq[i] = (int32_t)rng_below(&r, (uint32_t)n + 4) - 2;
            if (rng_below(&r, 2)) seq[i] = n - 256 + 0xe0 + (int32_t)rng_below(&r, 6);
            if (rng_below(&r, 2)) seq[i] = n - 256 + 0x80 + (int32_t)rng_below(&r, 64);
        }
        detokenizer d = {.show_special = round % 2};
        buf_clear(&whole);
        for (size_t i = 0; i < N_OF(seq); i++) {
            size_t before = whole.len;
            detokenizer_push(&d, small, seq[i], &whole);
            assert_true(utf8_valid(whole.data + before, whole.len - before));
            detokenizer copy = d;
            buf_clear(&part);
            buf_append(&part, whole.data, whole.len);
            detokenizer_finish(&copy, &part);
            assert_int_equal(part.len - whole.len, d.n_pending ? 3 : 0);
        }
    }
    buf_free(&whole);
    buf_free(&part);
}

static void shows_tokens_by_their_class(void **state)
{
    (void)state;
    const special_ids *s = tokenizer_special(small);
    buf out = {0};
    detokenizer hidden = {0}, shown = {.show_special = true};
    detokenizer_push(&hidden, small, s->turn_open, &out);
    detokenizer_push(&hidden, small, s->response_open, &out);
    detokenizer_push(&hidden, small, s->quote, &out);
    detokenizer_push(&hidden, small, -1, &out);
    detokenizer_push(&hidden, small, tokenizer_n_vocab(small), &out);
    detokenizer_push(&shown, small, s->turn_open, &out);
    assert_string_equal(out.data, "<|\"|><|turn>");
    buf_free(&out);
    size_t n;
    assert_null(tokenizer_token_text(small, -1, &n));
    assert_false(tokenizer_is_end(small, -1));
}

/* Heap levels walked grow as n log n, on text that is one piece: 4 times the text, less than 6 times the steps. */
static void merging_grows_almost_linearly(void **state)
{
    (void)state;
    facet_error err;
    uint64_t steps[2] = {0};
    for (int k = 0; k < 2; k++) {
        bpe_scratch s = {0};
        size_t n = k ? 400000 : 100000;
        for (size_t i = 0; i < n; i++) assert_ok(bpe_push_symbol(&s, vocab_char(small, i % 3 ? 'a' : 'b'), &err), err);
        assert_ok(bpe_merge(&s, &small->merges, &err), err);
        steps[k] = s.n_heap_steps;
        bpe_scratch_free(&s);
    }
    assert_true(steps[0] > 100000);
    assert_true(steps[1] < 6 * steps[0]);
}

static void expect_refusal(const buf *file, facet_status want, const char *key)
{
    facet_error err = {0};
    gguf_file *f = NULL;
    tokenizer *t = NULL;
    assert_ok(gguf_open_memory(file->data, file->len, "vocab", &f, &err), err);
    assert_int_equal(tokenizer_open(f, &t, &err), want);
    if (!strstr(err.message, key)) fail_msg("\"%s\" does not name %s", err.message, key);
    gguf_close(f);
}

static void put_int_key(buf *b, const char *key, uint32_t v)
{
    put_name(b, key);
    put_u32(b, GGUF_U32);
    put_u32(b, v);
}

static void refuses_bad_vocabularies(void **state)
{
    (void)state;
    buf file = {0}, extra = {0};
    small_vocab(&file, "gpt2", NULL, 0, 0);
    expect_refusal(&file, FACET_ERR_UNSUPPORTED, "tokenizer.ggml.model");
    buf_clear(&file);
    small_vocab(&file, "llama", NULL, 0, 0);
    expect_refusal(&file, FACET_ERR_UNSUPPORTED, "tokenizer.ggml.model");
    static const char *const keys[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"};
    for (size_t i = 0; i < N_OF(keys); i++) {
        buf_clear(&file);
        buf_clear(&extra);
        put_int_key(&extra, keys[i], 1000);
        small_vocab(&file, "gemma4", extra.data, extra.len, 1);
        expect_refusal(&file, FACET_ERR_FORMAT, keys[i]);
    }
    buf_clear(&file);
    buf_clear(&extra);
    put_array_key(&extra, "tokenizer.ggml.suppress_tokens", GGUF_I32, 1);
    put_u32(&extra, 100000);
    small_vocab(&file, "gemma4", extra.data, extra.len, 1);
    expect_refusal(&file, FACET_ERR_FORMAT, "tokenizer.ggml.suppress_tokens");
    buf_free(&extra);
    buf_free(&file);
}

/* Patches the first occurrence of `from` behind `key` in a good file. */
static void refuses_patch(const char *key, const void *from, const void *to, size_t n, const char *named)
{
    buf file = {0};
    small_vocab(&file, "gemma4", NULL, 0, 0);
    char *at = memmem(file.data, file.len, key, strlen(key));
    assert_non_null(at);
    at = memmem(at, file.len - (size_t)(at - file.data), from, n);
    assert_non_null(at);
    memcpy(at, to, n);
    expect_refusal(&file, FACET_ERR_FORMAT, named);
    buf_free(&file);
}

static void refuses_patched_vocabularies(void **state)
{
    (void)state;
    static const char merges[] = "tokenizer.ggml.merges", tokens[] = "tokenizer.ggml.tokens", types[] = "token_type";
    refuses_patch(merges, "d d", "d x", 3, merges);
    refuses_patch(merges, "d d", "d1d", 3, merges);
    refuses_patch(merges, "d d", "dd ", 3, merges);
    refuses_patch(merges, "d d", "1 2", 3, merges);
    refuses_patch(merges, "tokenizer.ggml.merges", "tokenizer.ggml.mergex", 21, merges);
    refuses_patch(tokens, "<0x41>", "<0x4G>", 6, tokens);
    refuses_patch(tokens, "<0x41>", "<0x42>", 6, tokens);
    refuses_patch(types, "\6\0\0\0", "\7\0\0\0", 4, "tokenizer.ggml.token_type");
    refuses_patch(types, "\5\0\0\0", "\6\0\0\0", 4, "tokenizer.ggml.token_type"); /* element type: f32 */
}

static void reads_byte_tokens(void **state)
{
    (void)state;
    assert_int_equal(tokenizer_byte_value("<0x00>", 6), 0);
    assert_int_equal(tokenizer_byte_value("<0xA9>", 6), 0xa9);
    assert_int_equal(tokenizer_byte_value("<0xff>", 6), 0xff);
    static const char *const others[] = {"<0x1zz", "<0x+1>", "<0x 1>", "<0x1>", "<0x123>", "0x41", ""};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_int_equal(tokenizer_byte_value(others[i], strlen(others[i])), -1);
}

static void accepts_llama_with_the_pre_key(void **state)
{
    (void)state;
    buf file = {0}, extra = {0};
    put_name(&extra, "tokenizer.ggml.pre");
    put_u32(&extra, GGUF_STRING);
    put_name(&extra, "gemma4");
    put_array_key(&extra, "tokenizer.ggml.suppress_tokens", GGUF_I32, 2);
    put_u32(&extra, 7);
    put_u32(&extra, 9);
    put_array_key(&extra, "tokenizer.ggml.eos_token_ids", GGUF_I32, 1);
    put_u32(&extra, 30);
    small_vocab(&file, "llama", extra.data, extra.len, 3);
    tokenizer *t = open_vocab_bytes(&file);
    int n;
    const int32_t *suppressed = tokenizer_suppressed(t, &n);
    assert_int_equal(n, 2);
    assert_int_equal(suppressed[1], 9);
    assert_true(tokenizer_is_end(t, 30));
    assert_true(tokenizer_is_end(t, tokenizer_special(t)->eos));
    tokenizer_close(t);
    buf_free(&extra);
    buf_free(&file);
}

/* The n-th allocation fails, for each n: a clean error, nothing leaks (the sanitizer build sees to that). */
static void survives_short_memory(void **state)
{
    (void)state;
    facet_error err;
    buf file = {0};
    gguf_file *f = NULL;
    small_vocab(&file, "gemma4", NULL, 0, 0);
    assert_ok(gguf_open_memory(file.data, file.len, "vocab", &f, &err), err);
    for (uint64_t n = 1;; n++) {
        tokenizer *t = NULL;
        mem_fail_at(n);
        facet_status status = tokenizer_open(f, &t, &err);
        bool is_past = mem_fail_at(0) < n;
        tokenizer_close(t);
        if (is_past) break;
        assert_int_equal(status, FACET_ERR_MEMORY);
    }
    static const char text[] = "<bos>abababab dddd\n\n\n\n\xc3\xa9 ca 12<turn|>";
    for (uint64_t n = 1;; n++) {
        id_list ids = {0};
        mem_fail_at(n);
        facet_status status =
            tokenizer_encode(small, text, strlen(text), true, SPECIAL_ALL, &ids.ids, &ids.n, &ids.cap, &err);
        bool is_past = mem_fail_at(0) < n;
        if (status != FACET_OK) assert_int_equal(ids.n, 0);
        mem_free(ids.ids);
        if (is_past) break;
        assert_int_equal(status, FACET_ERR_MEMORY);
    }
    gguf_close(f);
    buf_free(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_the_goldens),
        cmocka_unit_test(matches_the_prompts_of_the_small_models),
        cmocka_unit_test(knows_the_landmarks),
        cmocka_unit_test(merges_as_the_definition_says),
        cmocka_unit_test(finds_specials_as_longest_first),
        cmocka_unit_test(special_modes_differ),
        cmocka_unit_test(adds_bos_once),
        cmocka_unit_test(round_trips_valid_text),
        cmocka_unit_test(replaces_invalid_parts),
        cmocka_unit_test(streams_whole_characters),
        cmocka_unit_test(shows_tokens_by_their_class),
        cmocka_unit_test(merging_grows_almost_linearly),
        cmocka_unit_test(refuses_bad_vocabularies),
        cmocka_unit_test(refuses_patched_vocabularies),
        cmocka_unit_test(reads_byte_tokens),
        cmocka_unit_test(accepts_llama_with_the_pre_key),
        cmocka_unit_test(survives_short_memory),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, open_vocabularies, close_vocabularies);
}
