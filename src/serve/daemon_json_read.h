/* daemon_json_read.h: the fields of JSON requests. Each function takes what it knows out of the object. */
#ifndef FACET_SERVE_DAEMON_JSON_READ_H
#define FACET_SERVE_DAEMON_JSON_READ_H

#include <jansson.h>

#include "serve/daemon_command.h"

/* Prompt, sampling, ends, speculation, grammar, slots, deadline of a generation. The command has what holds by default.
 * FACET_ERR_ARG, FACET_ERR_IO (a prompt's file), FACET_ERR_MEMORY, FACET_ERR_UNSUPPORTED (grammars). */
facet_status json_read_generation(facet_model *m, int32_t n_ctx, json_t *o, command *c, facet_error *err);
/* "slot": from 0; with may_be_all "all" (-1) as well. Required. */
facet_status json_read_slot(json_t *o, bool may_be_all, int *out, facet_error *err);
/* "slot", and "thin", a list of others. */
facet_status json_read_chain(json_t *o, command *c, facet_error *err);
/* "slot", "first", "tokens", "label". */
facet_status json_read_store(json_t *o, command *c, facet_error *err);
/* "parts": a list of "target", "mtp", "dflash", "draft"; all when it is missing. */
facet_status json_read_parts(json_t *o, unsigned *out, facet_error *err);
/* "kv": "host", "keep", "drop". */
facet_status json_read_kv(json_t *o, park_kv *out, facet_error *err);
/* Text and how it becomes tokens: "text", "special", "bos"; or "messages", "tools", "think". *text is owned; NULL when
 * there is neither. */
facet_status json_read_text(const facet_model *m, json_t *o, buf *text, bool *has_text, bool *add_bos, bool *special,
                            facet_error *err);
/* An array of token ids: *ids [*n] are owned. */
facet_status json_read_ids(const json_t *array, const char *name, int32_t **ids, size_t *n, facet_error *err);

#endif
