#include "text/vocab.h"

#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

#define MAX_ENTRIES (1u << 24) /* of an array of strings */
#define KEY(name) "tokenizer.ggml." name

enum { STORED_UNKNOWN = 2, STORED_CONTROL = 3, STORED_USER = 4, STORED_BYTE = 6 };

static uint64_t hash_text(const char *s, size_t n)
{
    uint64_t h = n * 0x9e3779b97f4a7c15u;
    for (; n >= 8; s += 8, n -= 8) {
        uint64_t w;
        memcpy(&w, s, 8);
        h = (h ^ w) * 0xd6e8feb86659fd93u;
        h ^= h >> 32;
    }
    uint64_t w = 0;
    memcpy(&w, s, n);
    h = (h ^ w) * 0xd6e8feb86659fd93u;
    return h ^ h >> 32;
}

static size_t token_bytes(const tokenizer *t, int32_t id)
{
    return t->start[id + 1] - t->start[id];
}

/* Slot of the text, or the free one where it would go. */
static size_t text_slot(const tokenizer *t, const char *s, size_t n)
{
    size_t i = (size_t)hash_text(s, n) & t->by_text_mask;
    for (; t->by_text[i] >= 0; i = (i + 1) & t->by_text_mask) {
        int32_t id = t->by_text[i];
        if (token_bytes(t, id) == n && memcmp(t->text + t->start[id], s, n) == 0) break;
    }
    return i;
}

int32_t vocab_find(const tokenizer *t, const char *s, size_t n)
{
    return n == 0 || n > t->max_bytes ? -1 : t->by_text[text_slot(t, s, n)];
}

/* The array of a key. NULL, with FACET_ERR_FORMAT in err: it is missing or not such an array. */
static const gguf_kv *get_array(const gguf_file *f, const char *key, bool is_string, facet_error *err)
{
    const gguf_kv *kv = gguf_find(f, key);
    if (!kv) {
        error_set(err, FACET_ERR_FORMAT, "missing key %s", key);
    } else if (kv->type != GGUF_ARRAY || (kv->elem == GGUF_STRING) != is_string) {
        error_set(err, FACET_ERR_FORMAT, "%s: want an array of %s", key, is_string ? "strings" : "numbers");
        kv = NULL;
    }
    return kv;
}

/* All n strings of an array key, the caller's to free. NULL, with *status and err set, when there are none. */
static gguf_str *get_strings(const gguf_file *f, const char *key, uint32_t *n, facet_status *status, facet_error *err)
{
    *status = FACET_ERR_FORMAT;
    const gguf_kv *kv = get_array(f, key, true, err);
    if (!kv) return NULL;
    if (kv->count == 0 || kv->count > MAX_ENTRIES) {
        error_set(err, FACET_ERR_FORMAT, "%s: %llu entries, want 1 to %u", key, (unsigned long long)kv->count,
                  MAX_ENTRIES);
        return NULL;
    }
    gguf_str *s = mem_resize_array(NULL, (size_t)kv->count, sizeof *s);
    if (!s) {
        *status = error_memory(err, key, (size_t)kv->count * sizeof *s);
    } else if (!gguf_array_strings(kv, s)) {
        error_set(err, FACET_ERR_FORMAT, "%s: malformed strings", key);
        mem_free(s);
        s = NULL;
    } else {
        *n = (uint32_t)kv->count;
        *status = FACET_OK;
    }
    return s;
}

static facet_status allocate_tokens(tokenizer *t, const gguf_str *s, uint32_t n, facet_error *err)
{
    size_t total = 0, n_slots = 16;
    for (uint32_t i = 0; i < n; i++)
        if (!checked_add(total, s[i].n, &total) || total >= UINT32_MAX)
            return error_set(err, FACET_ERR_FORMAT, KEY("tokens") ": more than 4 GiB of text");
    while (n_slots < 2 * (size_t)n) n_slots *= 2;
    t->text = mem_alloc(total);
    t->start = mem_resize_array(NULL, (size_t)n + 1, sizeof *t->start);
    t->class_of = mem_calloc(n, 1);
    t->is_end = mem_calloc(n, 1);
    t->by_text = mem_resize_array(NULL, n_slots, sizeof *t->by_text);
    if (!t->text || !t->start || !t->class_of || !t->is_end || !t->by_text)
        return error_memory(err, "the vocabulary", total + n_slots * sizeof *t->by_text);
    memset(t->by_text, 0xff, n_slots * sizeof *t->by_text);
    t->by_text_mask = n_slots - 1;
    t->n_vocab = (int32_t)n;
    return FACET_OK;
}

/* Where two tokens have the same text, text becomes the first. */
static void copy_tokens(tokenizer *t, const gguf_str *s)
{
    uint32_t at = 0;
    for (int32_t id = 0; id < t->n_vocab; id++) {
        if (s[id].n) memcpy(t->text + at, s[id].s, s[id].n);
        t->start[id] = at;
        at += (uint32_t)s[id].n;
        t->start[id + 1] = at;
        if (s[id].n > t->max_bytes) t->max_bytes = s[id].n;
        size_t slot = text_slot(t, s[id].s, s[id].n);
        if (t->by_text[slot] < 0) t->by_text[slot] = id;
    }
}

static facet_status index_characters(tokenizer *t, facet_error *err)
{
    for (int32_t id = 0; id < t->n_vocab; id++) {
        size_t n = token_bytes(t, id);
        uint32_t cp;
        if (n == 0 || n > 4 || utf8_decode(t->text + t->start[id], n, &cp) != (int)n) continue;
        int32_t **page = &t->char_pages[cp >> 8];
        if (!*page) {
            *page = mem_alloc(256 * sizeof **page);
            if (!*page) return error_memory(err, "the character index", 256 * sizeof **page);
            memset(*page, 0xff, 256 * sizeof **page);
        }
        if ((*page)[cp & 255] < 0) (*page)[cp & 255] = id;
    }
    return FACET_OK;
}

static facet_status read_types(tokenizer *t, const gguf_file *f, facet_error *err)
{
    const gguf_kv *kv = get_array(f, KEY("token_type"), false, err);
    if (!kv) return FACET_ERR_FORMAT;
    if (kv->count != (uint64_t)t->n_vocab)
        return error_set(err, FACET_ERR_FORMAT, KEY("token_type") ": %llu entries for %d tokens",
                         (unsigned long long)kv->count, t->n_vocab);
    memset(t->byte_ids, 0xff, sizeof t->byte_ids);
    for (int32_t id = 0; id < t->n_vocab; id++) {
        int64_t type;
        if (!gguf_array_i64(kv, (uint64_t)id, &type) || type < 0 || type > STORED_BYTE)
            return error_set(err, FACET_ERR_FORMAT, KEY("token_type") ": entry %d is no token type (0 to 6)", id);
        if (type == STORED_UNKNOWN || type == STORED_CONTROL) t->class_of[id] = TOKEN_CONTROL;
        if (type == STORED_USER) t->class_of[id] = TOKEN_USER;
        if (type != STORED_BYTE) continue;
        int value = tokenizer_byte_value(t->text + t->start[id], token_bytes(t, id));
        if (value < 0)
            return error_set(err, FACET_ERR_FORMAT, KEY("tokens") ": byte token %d is not written <0xNN>", id);
        t->class_of[id] = TOKEN_BYTE;
        t->byte_ids[value] = id;
    }
    for (int b = 0; b < 256; b++)
        if (t->byte_ids[b] < 0)
            return error_set(err, FACET_ERR_FORMAT, KEY("tokens") ": the byte token <0x%02X> is missing", (unsigned)b);
    return FACET_OK;
}

facet_status vocab_read_tokens(tokenizer *t, const gguf_file *f, facet_error *err)
{
    facet_status status;
    uint32_t n = 0;
    gguf_str *s = get_strings(f, KEY("tokens"), &n, &status, err);
    if (!s) return status;
    status = allocate_tokens(t, s, n, err);
    if (status == FACET_OK) copy_tokens(t, s);
    mem_free(s);
    FACET_TRY(status);
    FACET_TRY(index_characters(t, err));
    return read_types(t, f, err);
}

/* Code point of the first or last character of s; 0 when it is malformed, and then no text leads to this token. */
static uint32_t edge_character(const char *s, size_t n, bool last)
{
    size_t at = 0;
    if (last)
        for (at = n - 1; at > 0 && n - at < 4 && ((unsigned char)s[at] & 0xc0) == 0x80;) at--;
    uint32_t cp = 0;
    utf8_decode(s + at, n - at, &cp);
    return cp;
}

/* "LEFT RIGHT"; LEFT may itself begin with a blank. */
static facet_status add_merge(tokenizer *t, uint32_t rank, gguf_str rule, facet_error *err)
{
    const char *blank = rule.n > 2 ? memchr(rule.s + 1, ' ', rule.n - 1) : NULL;
    size_t n_left = blank ? (size_t)(blank - rule.s) : 0, n_right = blank ? rule.n - n_left - 1 : 0;
    char joined[1024];
    if (n_left == 0 || n_right == 0)
        return error_set(err, FACET_ERR_FORMAT, KEY("merges") ": entry %u is not two texts and a blank", rank);
    if (n_left + n_right > t->max_bytes || n_left + n_right > sizeof joined)
        return error_set(err, FACET_ERR_FORMAT, KEY("merges") ": entry %u is longer than any token", rank);
    const char *right_text = blank + 1;
    memcpy(joined, rule.s, n_left);
    memcpy(joined + n_left, right_text, n_right);
    int32_t left = vocab_find(t, rule.s, n_left), right = vocab_find(t, right_text, n_right);
    int32_t merged = vocab_find(t, joined, n_left + n_right);
    if (left < 0 || right < 0 || merged < 0)
        return error_set(err, FACET_ERR_FORMAT, KEY("merges") ": %s of entry %u is no token",
                         left < 0    ? "the left part"
                         : right < 0 ? "the right part"
                                     : "the result",
                         rank);
    bpe_table_add(&t->merges, rank, left, right, merged);
    bpe_add_junction(&t->merges, edge_character(rule.s, n_left, true), edge_character(right_text, n_right, false));
    return FACET_OK;
}

facet_status vocab_read_merges(tokenizer *t, const gguf_file *f, facet_error *err)
{
    facet_status status;
    uint32_t n = 0;
    gguf_str *s = get_strings(f, KEY("merges"), &n, &status, err);
    if (!s) return status;
    status = bpe_table_init(&t->merges, n, err);
    for (uint32_t rank = 0; rank < n && status == FACET_OK; rank++) status = add_merge(t, rank, s[rank], err);
    mem_free(s);
    return status;
}

/* The 24 names of the family, with what they do whatever type is stored. */
static const struct special_name {
    const char *text;
    token_class class_of;
    bool is_end;
    size_t role; /* offset in special_ids, or NO_ROLE */
} special_names[] = {
#define NO_ROLE SIZE_MAX
#define ROLE(field) offsetof(special_ids, field)
    {"<pad>", TOKEN_CONTROL, false, ROLE(pad)},
    {"<eos>", TOKEN_CONTROL, true, ROLE(eos)},
    {"<bos>", TOKEN_CONTROL, false, ROLE(bos)},
    {"<unk>", TOKEN_CONTROL, false, ROLE(unk)},
    {"<mask>", TOKEN_CONTROL, false, ROLE(mask)},
    {"<|tool>", TOKEN_CONTROL, false, NO_ROLE},
    {"<tool|>", TOKEN_CONTROL, false, NO_ROLE},
    {"<|tool_call>", TOKEN_USER, false, ROLE(call_open)},
    {"<tool_call|>", TOKEN_USER, false, ROLE(call_close)},
    {"<|tool_response>", TOKEN_CONTROL, true, ROLE(response_open)},
    {"<tool_response|>", TOKEN_USER, false, ROLE(response_close)},
    {"<|\"|>", TOKEN_USER, false, ROLE(quote)},
    {"<|think|>", TOKEN_CONTROL, false, ROLE(think)},
    {"<|channel>", TOKEN_USER, false, ROLE(channel_open)},
    {"<channel|>", TOKEN_USER, false, ROLE(channel_close)},
    {"<|turn>", TOKEN_CONTROL, false, ROLE(turn_open)},
    {"<turn|>", TOKEN_CONTROL, true, ROLE(turn_close)},
    {"<|image>", TOKEN_CONTROL, false, NO_ROLE},
    {"<image|>", TOKEN_CONTROL, false, NO_ROLE},
    {"<|audio>", TOKEN_CONTROL, false, NO_ROLE},
    {"<audio|>", TOKEN_CONTROL, false, NO_ROLE},
    {"<|image|>", TOKEN_CONTROL, false, NO_ROLE},
    {"<|audio|>", TOKEN_CONTROL, false, NO_ROLE},
    {"<|video|>", TOKEN_CONTROL, false, NO_ROLE},
};

static void find_named(tokenizer *t)
{
    memset(&t->ids, 0xff, sizeof t->ids);
    for (size_t i = 0; i < sizeof special_names / sizeof *special_names; i++) {
        const struct special_name *name = &special_names[i];
        int32_t id = vocab_find(t, name->text, strlen(name->text));
        if (name->role != NO_ROLE) memcpy((char *)&t->ids + name->role, &id, sizeof id);
        if (id < 0) continue;
        t->class_of[id] = (uint8_t)name->class_of;
        t->is_end[id] = name->is_end;
    }
}

/* A role whose usual text is missing is taken from the file's key. */
static facet_status read_role(const tokenizer *t, const gguf_file *f, const char *key, int32_t *id, facet_error *err)
{
    const gguf_kv *kv = gguf_find(f, key);
    int64_t value;
    if (!kv) return FACET_OK;
    if (!gguf_scalar_i64(kv, &value) || value < 0 || value >= t->n_vocab)
        return error_set(err, FACET_ERR_FORMAT, "%s is no id below %d", key, t->n_vocab);
    if (*id < 0) *id = (int32_t)value;
    return FACET_OK;
}

/* The ids of an array key, each below n_vocab; *ids stays NULL when the key is absent. */
static facet_status read_ids(const tokenizer *t, const gguf_file *f, const char *key, int32_t **ids, int *n,
                             facet_error *err)
{
    if (!gguf_find(f, key)) return FACET_OK;
    const gguf_kv *kv = get_array(f, key, false, err);
    if (!kv) return FACET_ERR_FORMAT;
    if (kv->count > (uint64_t)t->n_vocab) return error_set(err, FACET_ERR_FORMAT, "%s: more entries than tokens", key);
    *ids = mem_resize_array(NULL, (size_t)kv->count, sizeof **ids);
    if (!*ids) return error_memory(err, key, (size_t)kv->count * sizeof **ids);
    for (*n = 0; *n < (int)kv->count; ++*n) {
        int64_t id;
        if (!gguf_array_i64(kv, (uint64_t)*n, &id) || id < 0 || id >= t->n_vocab)
            return error_set(err, FACET_ERR_FORMAT, "%s: entry %d is no id below %d", key, *n, t->n_vocab);
        (*ids)[*n] = (int32_t)id;
    }
    return FACET_OK;
}

static facet_status read_ends(tokenizer *t, const gguf_file *f, facet_error *err)
{
    int32_t eos = -1, *more = NULL;
    int n = 0;
    FACET_TRY(read_role(t, f, KEY("eos_token_id"), &eos, err));
    if (eos >= 0) t->is_end[eos] = true;
    if (t->ids.eos < 0) t->ids.eos = eos;
    facet_status status = read_ids(t, f, KEY("eos_token_ids"), &more, &n, err);
    for (int i = 0; i < n && status == FACET_OK; i++) t->is_end[more[i]] = true;
    mem_free(more);
    return status;
}

static facet_status index_specials(tokenizer *t, facet_error *err)
{
    for (int32_t id = 0; id < t->n_vocab; id++) {
        if (t->class_of[id] != TOKEN_CONTROL && t->class_of[id] != TOKEN_USER) continue;
        size_t n = token_bytes(t, id);
        if (n > SPECIAL_MAX_BYTES)
            return error_set(err, FACET_ERR_FORMAT, KEY("tokens") ": special token %d has %zu bytes, want at most %d",
                             id, n, SPECIAL_MAX_BYTES);
        FACET_TRY(special_add(&t->specials, t->text + t->start[id], n, id, t->class_of[id] == TOKEN_USER, err));
    }
    return FACET_OK;
}

facet_status vocab_read_specials(tokenizer *t, const gguf_file *f, facet_error *err)
{
    find_named(t);
    FACET_TRY(read_role(t, f, KEY("bos_token_id"), &t->ids.bos, err));
    FACET_TRY(read_role(t, f, KEY("padding_token_id"), &t->ids.pad, err));
    FACET_TRY(read_role(t, f, KEY("unknown_token_id"), &t->ids.unk, err));
    FACET_TRY(read_role(t, f, KEY("mask_token_id"), &t->ids.mask, err));
    FACET_TRY(read_ends(t, f, err));
    FACET_TRY(read_ids(t, f, KEY("suppress_tokens"), &t->suppressed, &t->n_suppressed, err));
    return index_specials(t, err);
}
