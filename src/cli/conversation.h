/* conversation.h: the messages of a chat, in the shape of the OpenAI interface, and their file. */
#ifndef FACET_CLI_CONVERSATION_H
#define FACET_CLI_CONVERSATION_H

#include <jansson.h>

#include "text/chat.h"

typedef struct conversation {
    json_t *messages; /* array; a system message only as its first */
} conversation;

facet_status conversation_open(conversation *c, facet_error *err);
void conversation_close(conversation *c);

size_t conversation_n_turns(const conversation *c); /* messages of the user */
/* The system text, borrowed; NULL when there is none or it is no plain string. */
const char *conversation_system(const conversation *c);
/* Empty text removes it. FACET_ERR_ARG when it is not UTF-8. */
facet_status conversation_set_system(conversation *c, const char *text, facet_error *err);
facet_status conversation_add_user(conversation *c, const char *text, size_t n, facet_error *err);
/* calls: array of function calls (`{"id", "type", "function"}`), borrowed; empty for none. */
facet_status conversation_add_answer(conversation *c, const buf *content, const buf *reasoning, json_t *calls,
                                     facet_error *err);
/* Drops everything behind the first n messages. */
void conversation_truncate(conversation *c, size_t n);
/* Everything but the system text. */
void conversation_reset(conversation *c);
/* Takes the assistant messages off its end, as an array of the caller's; NULL when memory is short. */
json_t *conversation_take_answer(conversation *c);
/* Puts them back. */
void conversation_give_back(conversation *c, json_t *answer);

/* Writes the array of messages; the file appears whole or not at all. */
facet_status conversation_save(const conversation *c, const char *path, facet_error *err);
/* Replaces the messages by those of a file: an array of messages, or an object with "messages". Checked in full,
 * rendering for this format included; on failure nothing has changed. */
facet_status conversation_load(conversation *c, const char *path, chat_format format, facet_error *err);

#endif
