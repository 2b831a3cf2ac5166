/* needle.c: the sentences, their choice, and the place of the number among them. */
#include "decode/needle.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/rng.h"

/* ---- sentences ---- */

static const char *const names[] = {"Adam", "Betty", "Clara", "David", "Emma", "Frank", "Grace", "Henry",
                                    "Iris", "Jonas", "Kate",  "Laura", "Mark", "Nina",  "Oscar", "Paula",
                                    "Ralf", "Sara",  "Tom",   "Ruth",  "Vera", "Will"};
static const char *const places[] = {"garden", "village", "forest", "market",  "harbor", "kitchen", "library", "meadow",
                                     "mill",   "island",  "bridge", "station", "school", "tower",   "valley",  "farm"};
static const char *const things[] = {"lamp", "basket", "ring",   "book",  "bell",   "boat",   "cup",  "drum",
                                     "hat",  "letter", "mirror", "stone", "button", "candle", "rope", "shell"};
static const char *const animals[] = {"cat",  "dog",   "owl",  "fox",  "horse",  "duck", "goat",  "mouse",
                                      "bear", "sheep", "crow", "frog", "rabbit", "swan", "otter", "goose"};
static const char *const kinds[] = {"old",   "small",  "quiet", "brown", "happy", "white", "young", "green",
                                    "tired", "bright", "red",   "kind",  "blue",  "shy",   "cold",  "yellow"};
static const char *const foods[] = {"bread", "honey", "apples", "soup", "cheese", "nuts",
                                    "plums", "rice",  "corn",   "cake", "beans",  "tea"};

#define WORD(r, list) list[rng_below(r, sizeof list / sizeof *list)]

/* One sentence with a blank before it. */
static bool put_sentence(rng *r, buf *b)
{
    const char *name = WORD(r, names), *place = WORD(r, places), *thing = WORD(r, things), *animal = WORD(r, animals),
               *kind = WORD(r, kinds), *other = WORD(r, kinds), *food = WORD(r, foods);
    switch (rng_below(r, 10)) {
    case 0: return buf_printf(b, " %s put the %s %s in the %s.", name, kind, thing, place);
    case 1: return buf_printf(b, " The %s in the %s was %s.", animal, place, kind);
    case 2: return buf_printf(b, " %s and the %s %s ate %s.", name, kind, animal, food);
    case 3: return buf_printf(b, " There was one %s %s near the %s.", kind, thing, place);
    case 4: return buf_printf(b, " %s likes the %s %s.", name, kind, animal);
    case 5: return buf_printf(b, " The %s %s looked at the %s %s.", kind, animal, other, thing);
    case 6: return buf_printf(b, " In the %s %s saw a %s.", place, name, thing);
    case 7: return buf_printf(b, " %s gave %s to the %s.", name, food, animal);
    case 8: return buf_printf(b, " One day the %s walked to the %s.", animal, place);
    default: return buf_printf(b, " %s likes %s.", name, food);
    }
}

/* ---- the whole text around them ---- */

static const char opening[] = "Read this text.", question[] = "What is the pass key?";

static void put_needle(buf *b, const char *key)
{
    buf_printf(b, " The pass key is %s.", key);
}

/* The prompt as a string around [body]: a chat of one turn, or plain text. */
static facet_status render(const facet_model *m, bool is_raw, const char *body, char **text, size_t *n,
                           facet_error *err)
{
    buf b = {0};
    facet_status status = FACET_OK;
    if (is_raw)
        buf_printf(&b, "<bos>%s%s\nQuestion: %s\nAnswer:", opening, body, question);
    else /* no character of it needs an escape in JSON but the end of the line */
        buf_printf(&b, "[{\"role\": \"user\", \"content\": \"%s%s\\n%s\"}]", opening, body, question);
    if (b.failed) {
        status = error_memory(err, "a prompt", strlen(body));
    } else if (is_raw) {
        *n = b.len;
        *text = b.data;
        return FACET_OK;
    } else {
        status = facet_chat_render(m, b.data, NULL, 0, text, n, err);
    }
    buf_free(&b);
    return status;
}

static facet_status count_tokens(const facet_model *m, const char *text, size_t n, bool is_special, size_t *count,
                                 facet_error *err)
{
    int32_t *ids;
    FACET_TRY(facet_tokenize(m, text, n, false, is_special, &ids, count, err));
    facet_free(ids);
    return FACET_OK;
}

/* The sentences that were chosen. */
typedef struct haystack {
    buf text;
    size_t *at, *tokens; /* [n] where the text of each begins, and how many tokens it has */
    size_t n, cap, n_tokens;
} haystack;

static void haystack_free(haystack *h)
{
    buf_free(&h->text);
    mem_free(h->at);
    mem_free(h->tokens);
}

static facet_status haystack_add(haystack *h, const buf *sentence, size_t n_tokens, facet_error *err)
{
    if (h->n == h->cap) {
        const size_t cap = h->cap ? 2 * h->cap : 256;
        size_t *at = mem_resize_array(h->at, cap, sizeof *at);
        if (at) h->at = at;
        size_t *tokens = at ? mem_resize_array(h->tokens, cap, sizeof *tokens) : NULL;
        if (!tokens) return error_memory(err, "the text around the pass key", 2 * cap * sizeof *at);
        h->tokens = tokens;
        h->cap = cap;
    }
    h->at[h->n] = h->text.len;
    h->tokens[h->n++] = n_tokens;
    h->n_tokens += n_tokens;
    if (!buf_append(&h->text, sentence->data, sentence->len))
        return error_memory(err, "the text around the pass key", h->text.len + sentence->len);
    return FACET_OK;
}

static void haystack_drop_last(haystack *h)
{
    h->text.len = h->at[--h->n];
    h->text.data[h->text.len] = 0;
    h->n_tokens -= h->tokens[h->n];
}

/* Sentences of together at most `room` tokens; towards the end only those that leave nothing, or room for another. */
static facet_status fill(const facet_model *m, rng *r, size_t room, haystack *h, facet_error *err)
{
    enum { SHORTEST = 8, TRIES = 200 };
    buf sentence = {0};
    facet_status status = FACET_OK;
    for (int tries = 0; tries < TRIES && h->n_tokens < room && status == FACET_OK; tries++) {
        const size_t left = room - h->n_tokens;
        size_t n = 0;
        buf_clear(&sentence);
        if (!put_sentence(r, &sentence)) status = error_memory(err, "a sentence", 64);
        if (status == FACET_OK) status = count_tokens(m, sentence.data, sentence.len, false, &n, err);
        const bool is_late = tries >= TRIES / 2; /* then what there is */
        const bool fits = n == left || n + SHORTEST <= left || (n < left && is_late);
        if (status != FACET_OK || !fits) continue;
        status = haystack_add(h, &sentence, n, err);
        tries = 0;
    }
    buf_free(&sentence);
    return status;
}

/* The sentence before which the number goes: the border nearest to the depth. */
static size_t border_at(const haystack *h, int depth)
{
    size_t before = 0, best = 0;
    const double wanted = (double)h->n_tokens * depth / 100;
    double least = wanted;
    for (size_t i = 0; i <= h->n; i++) {
        const double off = (double)before > wanted ? (double)before - wanted : wanted - (double)before;
        if (off < least) {
            least = off;
            best = i;
        }
        if (i < h->n) before += h->tokens[i];
    }
    return best;
}

/* The prompt with the number before sentence `border`, and where it stands. */
static facet_status assemble(const facet_model *m, const needle_params *p, const haystack *h, size_t border,
                             needle_prompt *out, facet_error *err)
{
    const size_t cut = border < h->n ? h->at[border] : h->text.len;
    buf body = {0}, needle = {0};
    put_needle(&needle, out->key);
    buf_append(&body, h->text.data, cut);
    buf_append(&body, needle.data, needle.len);
    buf_append(&body, h->text.data + cut, h->text.len - cut);
    facet_status status = FACET_OK;
    if (body.failed || needle.failed)
        status = error_memory(err, "a prompt", h->text.len);
    else
        status = render(m, p->is_raw, body.data, &out->text, &out->n_text, err);
    if (status == FACET_OK)
        status = facet_tokenize(m, out->text, out->n_text, false, true, &out->ids, &out->n_ids, err);
    if (status == FACET_OK) {
        const char *begin = strstr(out->text, body.data);
        const size_t start = begin ? (size_t)(begin - out->text) : 0;
        if (!begin) status = error_set(err, FACET_ERR_UNSUPPORTED, "the chat template changes what a user says");
        if (status == FACET_OK) status = count_tokens(m, out->text, start, true, &out->first, err);
        if (status == FACET_OK) status = count_tokens(m, out->text, start + cut, true, &out->needle, err);
        if (status == FACET_OK) status = count_tokens(m, out->text, start + body.len, true, &out->last, err);
    }
    buf_free(&body);
    buf_free(&needle);
    return status;
}

static void make_key(const needle_params *p, char key[NEEDLE_KEY_DIGITS + 1])
{
    rng r;
    rng_seed(&r, rng_mix(p->seed ^ rng_mix((uint64_t)p->n_tokens << 8 | (uint64_t)p->depth)));
    for (int i = 0; i < NEEDLE_KEY_DIGITS; i++) key[i] = (char)('0' + rng_below(&r, 10));
    key[NEEDLE_KEY_DIGITS] = 0;
}

/* Tokens of the prompt without any sentence but the one with the number. */
static facet_status bare_length(const facet_model *m, const needle_params *p, const char *key, size_t *n,
                                facet_error *err)
{
    buf body = {0};
    char *text = NULL;
    size_t n_text = 0;
    put_needle(&body, key);
    facet_status status =
        body.failed ? error_memory(err, "a prompt", 64) : render(m, p->is_raw, body.data, &text, &n_text, err);
    if (status == FACET_OK) status = count_tokens(m, text, n_text, true, n, err);
    facet_free(text);
    buf_free(&body);
    return status;
}

facet_status needle_build(const facet_model *m, const needle_params *p, needle_prompt *out, facet_error *err)
{
    *out = (needle_prompt){0};
    if (p->n_tokens < NEEDLE_MIN_TOKENS || p->depth < 0 || p->depth > 100)
        return error_set(err, FACET_ERR_ARG, "a prompt of %d tokens at depth %d %%: wanted %d at least, 0 to 100",
                         p->n_tokens, p->depth, NEEDLE_MIN_TOKENS);
    needle_prompt n = {0};
    haystack h = {0};
    rng r;
    size_t bare = 0;
    const size_t wanted = (size_t)p->n_tokens;
    rng_seed(&r, rng_mix(p->seed) ^ (uint64_t)p->n_tokens);
    make_key(p, n.key);
    facet_status status = bare_length(m, p, n.key, &bare, err);
    if (status == FACET_OK && bare >= wanted)
        status = error_set(err, FACET_ERR_ARG, "a prompt of %zu tokens: the question alone takes %zu", wanted, bare);
    if (status == FACET_OK && !buf_append(&h.text, "", 0)) status = error_memory(err, "a prompt", wanted);
    if (status == FACET_OK) status = fill(m, &r, wanted - bare, &h, err);
    /* Where words grow together across a border the sum of the parts is not the whole. */
    if (status == FACET_OK) status = assemble(m, p, &h, border_at(&h, p->depth), &n, err);
    while (status == FACET_OK && n.n_ids > wanted && h.n > 0) {
        haystack_drop_last(&h);
        facet_free(n.text);
        facet_free(n.ids);
        n.text = NULL;
        n.ids = NULL;
        status = assemble(m, p, &h, border_at(&h, p->depth), &n, err);
    }
    haystack_free(&h);
    if (status == FACET_OK)
        *out = n;
    else
        needle_free(&n);
    return status;
}

void needle_free(needle_prompt *n)
{
    facet_free(n->text);
    facet_free(n->ids);
    *n = (needle_prompt){0};
}

bool needle_is_found(const char *answer, const char *key)
{
    const size_t n = strlen(key);
    for (const char *s = answer; (s = strstr(s, key)); s++) {
        const bool starts = s == answer || !isdigit((unsigned char)s[-1]);
        if (starts && !isdigit((unsigned char)s[n])) return true;
    }
    return false;
}
