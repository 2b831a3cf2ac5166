/* chat_call.h: the text of one tool call -> function name and JSON arguments. Private to src/text. */
#ifndef FACET_TEXT_CHAT_CALL_H
#define FACET_TEXT_CHAT_CALL_H

#include "base/buf.h"

/* Stands for the token <|"|> in a call's text. No UTF-8 has this byte, so that it cannot be mistaken. */
#define CALL_QUOTE '\xff'

/* s: UTF-8 and CALL_QUOTE, what stood between the call tokens. is_closed: the closing token came, so that a missing
 * last brace is forgiven. True: name and arguments (compact JSON of an object) are appended. False: malformed, or
 * memory was short (then `failed` of one of them is set); what they hold is then of no use. */
bool chat_parse_call(const char *s, size_t n, bool is_closed, buf *name, buf *arguments);

#endif
