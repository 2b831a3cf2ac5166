/* chat_lines.h: messages as a person types them. A message is a line; lines that each end in a backslash and the one
 * behind them; or what stands between two lines of """. */
#ifndef FACET_CLI_CHAT_LINES_H
#define FACET_CLI_CHAT_LINES_H

#include "base/buf.h"
#include "base/error.h"

enum { CHAT_MAX_INPUT = 4 << 20 }; /* bytes of one message: about a million tokens */

typedef struct chat_lines chat_lines;

typedef struct chat_input {
    buf text;      /* valid UTF-8 without NUL bytes; lines are separated by one newline */
    bool is_block; /* it stood between lines of """, so that it is no command */
    bool is_end;   /* nothing came, and nothing will */
} chat_input;

/* On a terminal with prompt, editing and history; otherwise plain lines of standard input. */
facet_status chat_lines_open(chat_lines **out, facet_error *err);
void chat_lines_close(chat_lines *l);
bool chat_lines_has_editor(const chat_lines *l);

/* The next message; in->text is reused. FACET_ERR_CANCELLED: Ctrl-C dropped what was typed. FACET_ERR_FORMAT and
 * FACET_ERR_LIMIT: this message is unusable and has been passed over. After FACET_ERR_IO nothing more will come. */
facet_status chat_lines_read(chat_lines *l, chat_input *in, facet_error *err);

#endif
