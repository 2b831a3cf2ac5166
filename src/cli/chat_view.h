/* chat_view.h: how an answer is shown: thought, content and tool calls as they arrive. */
#ifndef FACET_CLI_CHAT_VIEW_H
#define FACET_CLI_CHAT_VIEW_H

#include <stdbool.h>
#include <stddef.h>

typedef struct chat_view {
    bool is_terminal; /* standard output: control characters of the text are not passed on */
    bool use_color;   /* a thought is dimmed; otherwise it stands between lines [thought] and [/thought] */
    bool in_thought;
    bool is_inside_line;
    bool is_broken; /* standard output cannot be written */
} chat_view;

void chat_view_thought(chat_view *v, const char *s, size_t n);
void chat_view_content(chat_view *v, const char *s, size_t n);
void chat_view_call(chat_view *v, const char *name, size_t n_name, const char *arguments, size_t n_arguments);
/* Ends the answer: the next output begins a line. */
void chat_view_end(chat_view *v);

#endif
