#include "serve/daemon_json_read.h"

#include <string.h>

#include "base/mem.h"
#include "model/model.h"
#include "serve/daemon_fields.h"
#include "serve/daemon_ids.h"
#include "text/json_read.h"

/* ---- prompts ---- */

facet_status json_read_ids(const json_t *array, const char *name, int32_t **ids, size_t *n, facet_error *err)
{
    if (!json_is_array(array)) return field_error(array, name, "an array of token ids", err);
    const size_t count = json_array_size(array);
    int32_t *list = mem_resize_array(NULL, count, sizeof *list);
    if (!list) return error_memory(err, name, count * sizeof *list);
    for (size_t i = 0; i < count; i++) {
        const json_t *v = json_array_get(array, i);
        if (json_is_integer(v) && json_integer_value(v) >= INT32_MIN && json_integer_value(v) <= INT32_MAX) {
            list[i] = (int32_t)json_integer_value(v);
            continue;
        }
        mem_free(list);
        return field_error(v, name, "whole numbers", err);
    }
    *ids = list;
    *n = count;
    return FACET_OK;
}

static facet_status render(const facet_model *m, json_t *o, const json_t *messages, buf *text, facet_error *err)
{
    chat_options options = {.add_generation_prompt = true};
    json_t *tools = take_any(o, "tools");
    facet_status status = take_bool(o, "think", &options.enable_thinking, err);
    if (status == FACET_OK) status = chat_render(messages, tools, m->chat, options, text, err);
    json_decref(tools);
    return status;
}

static facet_status copy_text(const json_t *v, buf *text, facet_error *err)
{
    if (!json_is_string(v)) return field_error(v, "text", "a string", err);
    return buf_append(text, json_string_value(v), json_string_length(v))
               ? FACET_OK
               : error_memory(err, "the text", json_string_length(v));
}

facet_status json_read_text(const facet_model *m, json_t *o, buf *text, bool *has_text, bool *add_bos, bool *special,
                            facet_error *err)
{
    json_t *messages = take_any(o, "messages"), *plain = take_any(o, "text");
    facet_status status = FACET_OK;
    *has_text = messages || plain;
    *add_bos = !messages;
    *special = true;
    if (messages && plain)
        status = error_set(err, FACET_ERR_ARG, "text and messages exclude each other");
    else if (messages)
        status = render(m, o, messages, text, err);
    else if (plain)
        status = copy_text(plain, text, err);
    if (status == FACET_OK && plain) status = take_bool(o, "special", special, err);
    if (status == FACET_OK && plain) status = take_bool(o, "bos", add_bos, err);
    json_decref(messages);
    json_decref(plain);
    return status;
}

static facet_status tokenize(const facet_model *m, const buf *text, bool add_bos, bool special, command *c,
                             facet_error *err)
{
    return facet_tokenize(m, text->data ? text->data : "", text->len, add_bos, special, &c->prompt, &c->n_prompt, err);
}

/* One of "tokens", "file", "text", "messages". */
static facet_status read_prompt(const facet_model *m, int32_t n_ctx, json_t *o, command *c, facet_error *err)
{
    bool has_text = false, add_bos = false, special = false;
    buf text = {0};
    json_t *tokens = take_any(o, "tokens"), *file = NULL;
    facet_status status = take_string(o, "file", &file, err);
    if (status == FACET_OK) status = json_read_text(m, o, &text, &has_text, &add_bos, &special, err);
    if (status == FACET_OK && has_text + !!tokens + !!file != 1)
        status = error_set(err, FACET_ERR_ARG, "one of tokens, text, messages and file must be there, and no more");
    else if (status == FACET_OK && has_text)
        status = tokenize(m, &text, add_bos, special, c, err);
    else if (status == FACET_OK && tokens)
        status = json_read_ids(tokens, "tokens", &c->prompt, &c->n_prompt, err);
    else if (status == FACET_OK)
        status = ids_read(json_string_value(file), false, (size_t)n_ctx, &c->prompt, &c->n_prompt, err);
    json_decref(tokens);
    json_decref(file);
    buf_free(&text);
    return status;
}

/* ---- sampling ---- */

static facet_status read_bias(const json_t *list, command *c, facet_error *err)
{
    size_t i;
    json_t *pair;
    if (!json_is_array(list)) return field_error(list, "logit_bias", "an array of [id, bias]", err);
    json_array_foreach(list, i, pair)
    {
        const json_t *id = json_array_get(pair, 0), *bias = json_array_get(pair, 1);
        if (json_array_size(pair) != 2 || !json_is_integer(id) || !json_is_number(bias))
            return field_error(pair, "logit_bias", "pairs of a token id and a number", err);
        const json_int_t t = json_integer_value(id);
        if (t < 0 || t > INT32_MAX) return field_error(id, "logit_bias", "token ids", err);
        if (!command_add_bias(c, (int32_t)t, (float)json_number_value(bias)))
            return error_memory(err, "logit_bias", json_array_size(list));
    }
    return FACET_OK;
}

static facet_status read_sampling(json_t *o, command *c, facet_error *err)
{
    facet_sampling *s = &c->sampling;
    int64_t seed = (int64_t)s->seed;
    FACET_TRY(take_float(o, "temperature", 0, 1e6, &s->temperature, err));
    FACET_TRY(take_int32(o, "top_k", 0, INT32_MAX, &s->top_k, err));
    FACET_TRY(take_float(o, "top_p", 1e-9, 1, &s->top_p, err));
    FACET_TRY(take_float(o, "min_p", 0, 1, &s->min_p, err));
    FACET_TRY(take_int(o, "seed", INT64_MIN, INT64_MAX, &seed, err));
    FACET_TRY(take_float(o, "repeat_penalty", 1e-6, 1e6, &s->repeat_penalty, err));
    FACET_TRY(take_float(o, "presence_penalty", -1e6, 1e6, &s->presence_penalty, err));
    FACET_TRY(take_float(o, "frequency_penalty", -1e6, 1e6, &s->frequency_penalty, err));
    FACET_TRY(take_int32(o, "repeat_last_n", -1, INT32_MAX, &s->penalty_last_n, err));
    s->seed = (uint64_t)seed;
    json_t *bias = take_any(o, "logit_bias");
    const facet_status status = bias ? read_bias(bias, c, err) : FACET_OK;
    json_decref(bias);
    return status;
}

/* ---- ends ---- */

static facet_status add_stop(command *c, const json_t *v, facet_error *err)
{
    if (!json_is_string(v) || !*json_string_value(v) || strlen(json_string_value(v)) != json_string_length(v))
        return field_error(v, "stop", "texts, not empty", err);
    return command_add_stop(c, json_string_value(v)) ? FACET_OK : error_memory(err, "stop", json_string_length(v));
}

static facet_status read_stop(json_t *o, command *c, facet_error *err)
{
    size_t i;
    json_t *v, *stop = take_any(o, "stop");
    facet_status status = FACET_OK;
    if (json_is_array(stop)) {
        json_array_foreach(stop, i, v)
        {
            status = add_stop(c, v, err);
            if (status != FACET_OK) break;
        }
    } else if (stop) {
        status = add_stop(c, stop, err);
    }
    json_decref(stop);
    return status;
}

/* ---- speculation ---- */

static facet_status read_name(json_t *o, const char *name, const char *const *names, int n, int *out, facet_error *err)
{
    char want[128] = "one of";
    json_t *v = NULL;
    FACET_TRY(take_string(o, name, &v, err));
    int i = 0;
    while (v && i < n && strcmp(json_string_value(v), names[i]) != 0) i++;
    facet_status status = FACET_OK;
    if (v && i == n) {
        for (int k = 0; k < n; k++) {
            const size_t at = strlen(want);
            snprintf(want + at, sizeof want - at, "%s %s", k ? "," : "", names[k]);
        }
        status = field_error(v, name, want, err);
    } else if (v) {
        *out = i;
    }
    json_decref(v);
    return status;
}

static facet_status read_method(json_t *o, facet_spec_method *out, facet_error *err)
{
    const char *names[FACET_SPEC_AUTO + 1];
    int method = (int)*out;
    for (int i = 0; i <= FACET_SPEC_AUTO; i++) names[i] = facet_spec_method_name((facet_spec_method)i);
    FACET_TRY(read_name(o, "method", names, FACET_SPEC_AUTO + 1, &method, err));
    *out = (facet_spec_method)method;
    return FACET_OK;
}

static facet_status read_speculation_fields(json_t *o, facet_speculation *s, facet_error *err)
{
    static const char *const rules[] = {"cost", "window", "off", "auto"};
    int rule = (int)s->adapt;
    FACET_TRY(read_method(o, &s->method, err));
    FACET_TRY(read_name(o, "adaptive", rules, 4, &rule, err));
    s->adapt = (facet_spec_adapt)rule;
    FACET_TRY(take_int32(o, "draft_max", 0, 63, &s->draft_max, err));
    FACET_TRY(take_int32(o, "mtp_gamma", 0, 16, &s->mtp_gamma, err));
    FACET_TRY(take_int32(o, "tree_budget", -1, 64, &s->tree_budget, err));
    FACET_TRY(take_bool(o, "chain_seed", &s->is_chain_seeded, err));
    FACET_TRY(take_float(o, "p_min", 0, 1, &s->p_min, err));
    FACET_TRY(take_float(o, "width_theta", 0, 1, &s->width_theta, err));
    return take_nothing(o, err);
}

static facet_status read_speculation(json_t *o, facet_speculation *s, facet_error *err)
{
    json_t *v = take_any(o, "speculation");
    facet_status status = FACET_OK;
    if (v && !json_is_object(v))
        status = field_error(v, "speculation", "an object", err);
    else if (v)
        status = read_speculation_fields(v, s, err);
    if (status != FACET_OK && v) error_prefix(err, "speculation");
    json_decref(v);
    return status;
}

/* ---- grammar ---- */

static facet_status open_schema(facet_model *m, const json_t *schema, facet_grammar **out, facet_error *err)
{
    buf text = {0};
    const facet_status status = json_print(schema, JSON_COMPACT | JSON_ENCODE_ANY, &text)
                                    ? facet_grammar_open_json_schema(m, text.data, text.len, out, err)
                                    : error_memory(err, "json_schema", text.len);
    buf_free(&text);
    return status;
}

static facet_status read_grammar(facet_model *m, json_t *o, command *c, facet_error *err)
{
    bool is_json = false;
    json_t *gbnf = NULL, *schema = take_any(o, "json_schema");
    facet_status status = take_string(o, "gbnf", &gbnf, err);
    if (status == FACET_OK) status = take_bool(o, "json_object", &is_json, err);
    if (status == FACET_OK && !!gbnf + !!schema + is_json > 1)
        status = error_set(err, FACET_ERR_ARG, "gbnf, json_schema and json_object exclude each other");
    else if (status == FACET_OK && gbnf)
        status = facet_grammar_open_gbnf(m, json_string_value(gbnf), json_string_length(gbnf), &c->params.grammar, err);
    else if (status == FACET_OK && schema)
        status = open_schema(m, schema, &c->params.grammar, err);
    else if (status == FACET_OK && is_json)
        status = facet_grammar_open_json_object(m, &c->params.grammar, err);
    json_decref(gbnf);
    json_decref(schema);
    return status;
}

/* ---- slots, parts ---- */

facet_status json_read_slot(json_t *o, bool may_be_all, int *out, facet_error *err)
{
    int64_t slot = -1;
    const json_t *v = json_object_get(o, "slot");
    if (may_be_all && json_is_string(v) && strcmp(json_string_value(v), "all") == 0) {
        json_object_del(o, "slot");
        *out = -1;
        return FACET_OK;
    }
    FACET_TRY(take_int(o, "slot", 0, SNAPSHOT_SLOTS - 1, &slot, err));
    if (slot < 0) return error_set(err, FACET_ERR_ARG, "slot: nothing, wanted 0 to %d", SNAPSHOT_SLOTS - 1);
    *out = (int)slot;
    return FACET_OK;
}

static facet_status read_thin(const json_t *list, command *c, facet_error *err)
{
    size_t i;
    json_t *v;
    if (!json_is_array(list) || json_array_size(list) >= CORE_MAX_CHAIN)
        return field_error(list, "thin", "an array of at most 15 slots", err);
    json_array_foreach(list, i, v)
    {
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= SNAPSHOT_SLOTS)
            return field_error(v, "thin", "slots from 0 to 63", err);
        c->chain[c->n_chain++] = (int)json_integer_value(v);
    }
    return FACET_OK;
}

facet_status json_read_chain(json_t *o, command *c, facet_error *err)
{
    FACET_TRY(json_read_slot(o, false, &c->chain[0], err));
    c->n_chain = 1;
    json_t *thin = take_any(o, "thin");
    const facet_status status = thin ? read_thin(thin, c, err) : FACET_OK;
    json_decref(thin);
    return status;
}

facet_status json_read_store(json_t *o, command *c, facet_error *err)
{
    json_t *label = NULL;
    FACET_TRY(json_read_slot(o, false, &c->store_slot, err));
    FACET_TRY(take_int32(o, "first", 0, INT32_MAX, &c->store_first, err));
    FACET_TRY(take_int32(o, "tokens", 1, INT32_MAX, &c->store_n, err));
    FACET_TRY(take_string(o, "label", &label, err));
    facet_status status = FACET_OK;
    if (label && json_string_length(label) > SNAPSHOT_LABEL_MAX)
        status = field_error(label, "label", "63 bytes at most", err);
    else if (label)
        memcpy(c->label, json_string_value(label), json_string_length(label) + 1);
    json_decref(label);
    return status;
}

facet_status json_read_parts(json_t *o, unsigned *out, facet_error *err)
{
    static const struct {
        const char *name;
        unsigned part;
    } parts[] = {{"target", PARK_TARGET}, {"mtp", PARK_MTP}, {"dflash", PARK_DFLASH}, {"draft", PARK_DRAFTERS}};
    size_t i;
    json_t *v, *list = take_any(o, "parts");
    facet_status status = FACET_OK;
    *out = list ? 0 : PARK_ALL;
    if (list && (!json_is_array(list) || json_array_size(list) == 0))
        status = field_error(list, "parts", "an array of parts", err);
    json_array_foreach(list, i, v)
    {
        size_t k = 0;
        while (k < 4 && !(json_is_string(v) && strcmp(json_string_value(v), parts[k].name) == 0)) k++;
        if (k == 4)
            status = field_error(v, "parts", "target, mtp, dflash or draft", err);
        else
            *out |= parts[k].part;
    }
    json_decref(list);
    return status;
}

facet_status json_read_kv(json_t *o, park_kv *out, facet_error *err)
{
    static const char *const names[] = {"host", "keep", "drop"};
    int kv = (int)*out;
    FACET_TRY(read_name(o, "kv", names, 3, &kv, err));
    *out = (park_kv)kv;
    return FACET_OK;
}

/* An object in the field, read by fn; none: nothing happens. */
static facet_status read_object(json_t *o, const char *name,
                                facet_status (*fn)(json_t *o, command *c, facet_error *err), command *c,
                                facet_error *err)
{
    json_t *v = take_any(o, name);
    facet_status status = FACET_OK;
    if (v && !json_is_object(v)) status = field_error(v, name, "an object", err);
    if (v && status == FACET_OK) {
        status = fn(v, c, err);
        if (status == FACET_OK) status = take_nothing(v, err);
        if (status != FACET_OK) error_prefix(err, "%s", name);
    }
    json_decref(v);
    return status;
}

/* ---- generations ---- */

facet_status json_read_generation(facet_model *m, int32_t n_ctx, json_t *o, command *c, facet_error *err)
{
    int64_t deadline = 0, credit = 0;
    FACET_TRY(read_prompt(m, n_ctx, o, c, err));
    FACET_TRY(take_int32(o, "n_predict", -1, INT32_MAX, &c->n_predict, err));
    if (c->n_predict == 0) return error_set(err, FACET_ERR_ARG, "n_predict: 0, wanted -1 or 1 and more");
    FACET_TRY(read_sampling(o, c, err));
    FACET_TRY(read_stop(o, c, err));
    FACET_TRY(take_bool(o, "ignore_eos", &c->params.ignore_eos, err));
    FACET_TRY(take_bool(o, "show_special", &c->params.show_special, err));
    FACET_TRY(read_speculation(o, &c->params.speculation, err));
    FACET_TRY(read_grammar(m, o, c, err));
    FACET_TRY(read_object(o, "restore", json_read_chain, c, err));
    FACET_TRY(read_object(o, "snapshot", json_read_store, c, err));
    if (c->store_slot >= 0 && c->store_first > 0)
        return error_set(err, FACET_ERR_ARG, "snapshot: first is %d, wanted none here", c->store_first);
    FACET_TRY(take_int(o, "deadline_ms", 1, 1LL << 40, &deadline, err));
    c->deadline_ms = (uint64_t)deadline;
    FACET_TRY(take_int(o, "credit", 1, INT64_MAX, &credit, err));
    c->credit = credit;
    c->has_credit = credit > 0;
    return FACET_OK;
}
