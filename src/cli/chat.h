/* chat.h: what the parts of `facet chat` share. */
#ifndef FACET_CLI_CHAT_H
#define FACET_CLI_CHAT_H

#include "cli/chat_remote.h"
#include "cli/chat_view.h"
#include "cli/cli.h"
#include "cli/conversation.h"
#include "model/model.h"

/* Of the last answer. */
typedef struct chat_stats {
    bool is_set;
    int32_t n_prompt; /* tokens of its prompt, result.n_prefill of which were evaluated */
    facet_generate_result result;
} chat_stats;

typedef struct chat {
    const facet_generate_params *generate;
    const cli_options *options;
    facet_sampling sampling; /* of the next answer: every answer moves the seed on */
    chat_remote *remote;     /* a server answers; NULL: the three below do */
    facet_model *model;
    facet_engine *engine;
    facet_session *session;
    chat_format format;
    conversation talk;
    chat_view view;
    chat_stats last;
    facet_spec_stats spec; /* summed over all answers */
    bool is_thinking, shows_special, is_over;
} chat;

/* Answers the conversation as it stands: shows the answer as it comes and appends it. Nothing is appended when the work
 * failed, or Ctrl-C came (FACET_ERR_CANCELLED), before anything was shown; what had been shown is kept in any case. */
facet_status chat_answer(chat *c, facet_error *err);

/* Appends a message of the user and answers it; without an answer the message goes, too. */
facet_status chat_say(chat *c, const char *text, size_t n, facet_error *err);
/* Another answer in place of the last one, which stays if there is none. */
facet_status chat_retry(chat *c, facet_error *err);

/* Tokens of the conversation so far. Not with a server. */
facet_status chat_count_tokens(const chat *c, size_t *n, facet_error *err);

/* A line that begins with '/'. */
facet_status chat_command(chat *c, const char *line, facet_error *err);

#endif
