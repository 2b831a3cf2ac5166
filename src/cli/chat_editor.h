/* chat_editor.h: one line from a terminal, with editing and a history that outlives the program. */
#ifndef FACET_CLI_CHAT_EDITOR_H
#define FACET_CLI_CHAT_EDITOR_H

#include <stddef.h>

typedef struct chat_editor chat_editor;

/* NULL where standard input, or both output streams, are no terminal, or memory is short. Makes the character set of
 * the process UTF-8. The history is $XDG_STATE_HOME/facet/history or ~/.local/state/facet/history, readable by its
 * owner only; where it cannot be read or written there is none, silently. */
chat_editor *chat_editor_open(void);
void chat_editor_close(chat_editor *e);

/* The next line without its newline, borrowed until the next call. NULL: end of input or, when cli_was_interrupted(),
 * Ctrl-C. */
const char *chat_editor_read(chat_editor *e, const char *prompt, size_t *n);

#endif
