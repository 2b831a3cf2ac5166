/* chat.h: Gemma 4 chats: messages -> prompt text, and model output -> thought, content, tool calls. */
#ifndef FACET_TEXT_CHAT_H
#define FACET_TEXT_CHAT_H

#include <jansson.h>

#include "text/tokenizer.h"

typedef enum chat_generation { CHAT_APRIL, CHAT_MAY, CHAT_JULY } chat_generation;

/* How a file wants its chats written, found by looking at its own template. */
typedef struct chat_format {
    chat_generation generation;
    bool is_large;     /* thinking off writes an empty thought block (12B, 26B, 31B) */
    bool has_template; /* false: a base model; the fallback is JULY, large unless it has per-layer embeddings */
} chat_format;

chat_format chat_detect(const char *chat_template, size_t n, bool has_per_layer_embedding);

typedef struct chat_options {
    bool enable_thinking, add_generation_prompt;
    bool preserve_thinking; /* July: keep the reasoning of all messages with calls */
    /* After a last message with calls, responses and text the templates write no generation prompt; true adds the turn
     * opener there, as serving engines do. */
    bool reopen_turn;
} chat_options;

/* messages: JSON array of OpenAI-style messages; tools: array or NULL. Appends the prompt (with <bos>) to out.
 * Errors (FACET_ERR_ARG) name the message index and field. */
facet_status chat_render(const json_t *messages, const json_t *tools, chat_format format, chat_options options,
                         buf *out, facet_error *err);

/* Our own Jinja chat template (for files that Facet writes); renders as chat_render does for this format.
 * NUL-terminated. */
const char *chat_template_text(bool is_large);

/* Streaming parser of output tokens. Events arrive in order; text pieces are whole UTF-8. */
typedef enum chat_event_kind { CHAT_REASONING, CHAT_CONTENT, CHAT_CALL } chat_event_kind;
typedef struct chat_event {
    chat_event_kind kind;
    const char *text; /* piece of reasoning or content; for CHAT_CALL the function name */
    size_t n;
    const char *arguments; /* CHAT_CALL: compact JSON object text */
    size_t n_arguments;
    int call_index;
} chat_event;
typedef void (*chat_event_fn)(void *ud, const chat_event *e);

/* True when a prompt ends with an open thought channel, as some templates write it. */
bool chat_opens_thought(const char *prompt, size_t n);

typedef struct chat_parser chat_parser;
/* starts_in_thought: the prompt ended with an open thought channel. */
facet_status chat_parser_open(const tokenizer *t, bool starts_in_thought, chat_event_fn fn, void *ud, chat_parser **out,
                              facet_error *err);
facet_status chat_parser_push(chat_parser *p, int32_t token,
                              facet_error *err); /* end tokens are accepted and ignored */
facet_status chat_parser_finish(chat_parser *p, facet_error *err);
int chat_parser_n_calls(const chat_parser *p);
void chat_parser_close(chat_parser *p);

#endif
