/* chat_remote.h: the server that `facet chat --url` talks with, by OpenAI's chat interface. */
#ifndef FACET_CLI_CHAT_REMOTE_H
#define FACET_CLI_CHAT_REMOTE_H

#include <jansson.h>

#include "base/error.h"

typedef struct chat_remote chat_remote;

/* url: "http://host:port", with or without "/v1"; https as well. key: NULL = none. Asks for the model's name.
 * FACET_ERR_IO when the server cannot be reached, FACET_ERR_ARG with its own words when it refuses. */
facet_status chat_remote_open(const char *url, const char *key, chat_remote **out, facet_error *err);
void chat_remote_close(chat_remote *r);
const char *chat_remote_model(const chat_remote *r);

/* A chunk of the answer; false ends it. */
typedef bool (*chat_remote_fn)(void *ud, const json_t *chunk);
/* Streams the answer to body, which is taken. FACET_ERR_CANCELLED when Ctrl-C ended it. */
facet_status chat_remote_ask(chat_remote *r, json_t *body, chat_remote_fn fn, void *ud, facet_error *err);

#endif
