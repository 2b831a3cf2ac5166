#include <string.h>

#include "base/mem.h"
#include "text/chat.h"
#include "text/chat_call.h"

#define MAX_CHANNEL_NAME 64 /* a longer "name" is text that lacks one */

typedef enum parser_state {
    IN_CONTENT,
    IN_ECHO,    /* behind a <|turn> at the very beginning: "model\n" is not output */
    IN_CHANNEL, /* behind <|channel>: its name */
    IN_THOUGHT,
    IN_CALL
} parser_state;

struct chat_parser {
    const tokenizer *t;
    chat_event_fn fn;
    void *ud;
    parser_state state;
    detokenizer detok;
    buf text;        /* what the present token added */
    buf head;        /* IN_ECHO, IN_CHANNEL: what was read so far */
    buf held;        /* white space whose fate is open: leading in content, trailing newlines in a thought */
    buf call;        /* IN_CALL: the text, with CALL_QUOTE */
    bool has_begun;  /* some text or marker came */
    bool is_leading; /* IN_CONTENT, IN_THOUGHT: nothing but white space so far */
    bool is_plain;   /* no thought and no call yet */
    bool has_failed; /* memory was short: what follows would lack a part */
    int n_calls;
};

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

bool chat_opens_thought(const char *prompt, size_t n)
{
    static const char open[] = "<|channel>thought\n";
    const size_t k = sizeof open - 1;
    return n >= k && memcmp(prompt + n - k, open, k) == 0;
}

facet_status chat_parser_open(const tokenizer *t, bool starts_in_thought, chat_event_fn fn, void *ud, chat_parser **out,
                              facet_error *err)
{
    chat_parser *p = mem_calloc(1, sizeof *p);
    if (!p) return error_memory(err, "a chat parser", sizeof *p);
    p->t = t;
    p->fn = fn;
    p->ud = ud;
    p->state = starts_in_thought ? IN_THOUGHT : IN_CONTENT;
    p->has_begun = starts_in_thought;
    p->is_plain = !starts_in_thought;
    p->is_leading = true;
    *out = p;
    return FACET_OK;
}

void chat_parser_close(chat_parser *p)
{
    if (!p) return;
    buf_free(&p->text);
    buf_free(&p->head);
    buf_free(&p->held);
    buf_free(&p->call);
    mem_free(p);
}

int chat_parser_n_calls(const chat_parser *p)
{
    return p->n_calls;
}

/* Empties b, whose failure stays on record. */
static void clear(chat_parser *p, buf *b)
{
    if (b->failed) p->has_failed = true;
    buf_clear(b);
}

static void send_text(chat_parser *p, chat_event_kind kind, const char *s, size_t n)
{
    if (n) p->fn(p->ud, &(chat_event){.kind = kind, .text = s, .n = n});
}

static void send_held(chat_parser *p, chat_event_kind kind)
{
    send_text(p, kind, p->held.data, p->held.len);
    clear(p, &p->held);
}

/* White space before the first word is held: should a call or a thought follow instead, it is dropped. */
static void put_content(chat_parser *p, const char *s, size_t n)
{
    size_t blanks = 0;
    if (p->is_leading) {
        while (blanks < n && is_blank(s[blanks])) blanks++;
        buf_append(&p->held, s, blanks);
        if (blanks == n) return;
        p->is_leading = false;
        send_held(p, CHAT_CONTENT);
        s += blanks;
        n -= blanks;
    }
    send_text(p, CHAT_CONTENT, s, n);
}

/* White space behind the channel's name is dropped; newlines are held, as those before <channel|> are dropped too. */
static void put_thought(chat_parser *p, const char *s, size_t n)
{
    while (n && p->is_leading && is_blank(*s)) s++, n--;
    if (n == 0) return;
    p->is_leading = false;
    size_t text = n;
    while (text && s[text - 1] == '\n') text--;
    if (text) {
        send_held(p, CHAT_REASONING);
        send_text(p, CHAT_REASONING, s, text);
    }
    buf_append(&p->held, s + text, n - text);
}

static void enter(chat_parser *p, parser_state state)
{
    p->state = state;
    p->is_leading = true;
    clear(p, &p->head);
    clear(p, &p->held);
    if (state != IN_CONTENT) p->is_plain = false;
}

/* The channel's text begins: what stands behind the name, or all of it where there is no name. */
static void begin_thought(chat_parser *p, size_t name_bytes)
{
    buf head = p->head;
    p->head = (buf){0};
    enter(p, IN_THOUGHT);
    if (head.data) put_thought(p, head.data + name_bytes, head.len - name_bytes);
    buf_free(&head);
}

/* The name ends at a newline; "thought" ends by itself, since the newline behind it may be missing. */
static void put_channel(chat_parser *p, const char *s, size_t n)
{
    static const char thought[] = "thought";
    if (!buf_append(&p->head, s, n) || n == 0) return;
    const char *newline = memchr(p->head.data, '\n', p->head.len);
    if (strncmp(p->head.data, thought, strlen(thought)) == 0)
        begin_thought(p, strlen(thought));
    else if (newline)
        begin_thought(p, (size_t)(newline - p->head.data) + 1);
    else if (p->head.len > MAX_CHANNEL_NAME)
        begin_thought(p, 0);
}

static const char echo[] = "model\n";

/* An echoed turn opener is dropped once complete; text that is none is content after all. */
static void put_echo(chat_parser *p, const char *s, size_t n)
{
    if (!buf_append(&p->head, s, n) || n == 0) return;
    size_t common = p->head.len < strlen(echo) ? p->head.len : strlen(echo);
    bool is_echo = memcmp(p->head.data, echo, common) == 0;
    if (is_echo && common < strlen(echo)) return;
    buf head = p->head;
    p->head = (buf){0};
    p->state = IN_CONTENT;
    p->is_leading = true;
    put_content(p, head.data + (is_echo ? common : 0), head.len - (is_echo ? common : 0));
    buf_free(&head);
}

static void put_text(chat_parser *p)
{
    const char *s = p->text.data ? p->text.data : "";
    size_t n = p->text.len;
    if (n) p->has_begun = true;
    switch (p->state) {
    case IN_CONTENT: put_content(p, s, n); break;
    case IN_ECHO: put_echo(p, s, n); break;
    case IN_CHANNEL: put_channel(p, s, n); break;
    case IN_THOUGHT: put_thought(p, s, n); break;
    case IN_CALL: buf_append(&p->call, s, n); break;
    }
    clear(p, &p->text);
}

/* A call that cannot be read is shown as text and never made. */
static void put_broken_call(chat_parser *p)
{
    for (size_t i = 0; i < p->call.len; i++) {
        if (p->call.data[i] == CALL_QUOTE)
            buf_puts(&p->text, "<|\"|>");
        else
            buf_putc(&p->text, p->call.data[i]);
    }
    put_text(p);
}

static void end_call(chat_parser *p, bool is_closed)
{
    buf name = {0}, arguments = {0};
    bool is_sound = chat_parse_call(p->call.data, p->call.len, is_closed, &name, &arguments);
    enter(p, IN_CONTENT);
    if (name.failed || arguments.failed) {
        p->has_failed = true;
    } else if (is_sound) {
        p->fn(p->ud, &(chat_event){.kind = CHAT_CALL,
                                   .text = name.data,
                                   .n = name.len,
                                   .arguments = arguments.data,
                                   .n_arguments = arguments.len,
                                   .call_index = p->n_calls++});
    } else {
        put_broken_call(p);
    }
    buf_free(&name);
    buf_free(&arguments);
    clear(p, &p->call);
}

/* Leaves the state for a marker or the end. is_final: no marker, so that an open thought keeps its newlines. */
static void leave(chat_parser *p, bool is_final)
{
    detokenizer_finish(&p->detok, &p->text);
    put_text(p);
    switch (p->state) {
    case IN_CONTENT:
        if (is_final && p->is_plain) send_held(p, CHAT_CONTENT);
        break;
    case IN_ECHO: break; /* what is there is the beginning of an echo */
    case IN_CHANNEL:
        /* the beginning of "thought" is a name cut off; anything else is text without a name */
        if (p->head.len && strncmp("thought", p->head.data, p->head.len) != 0) begin_thought(p, 0);
        if (is_final) send_held(p, CHAT_REASONING);
        break;
    case IN_THOUGHT:
        if (is_final) send_held(p, CHAT_REASONING);
        break;
    case IN_CALL: end_call(p, false); break;
    }
}

/* The markers, by id. False: the token is text in this state. */
static bool take_marker(chat_parser *p, int32_t token)
{
    const special_ids *ids = tokenizer_special(p->t);
    bool in_call = p->state == IN_CALL;
    if (token < 0) return true;
    if (token == ids->call_open) {
        leave(p, false);
        enter(p, IN_CALL);
    } else if (token == ids->call_close) {
        detokenizer_finish(&p->detok, &p->text);
        put_text(p);
        if (in_call) end_call(p, true);
    } else if (tokenizer_is_end(p->t, token)) {
        if (in_call) leave(p, false);
    } else if (in_call) {
        if (token != ids->quote) return false;
        detokenizer_finish(&p->detok, &p->text);
        put_text(p);
        buf_putc(&p->call, CALL_QUOTE);
    } else if (token == ids->channel_open) {
        leave(p, false);
        enter(p, IN_CHANNEL);
    } else if (token == ids->channel_close) {
        bool is_stray = p->state == IN_CONTENT;
        leave(p, false);
        if (!is_stray) enter(p, IN_CONTENT);
    } else if (token == ids->turn_open && !p->has_begun) {
        p->state = IN_ECHO;
    } else {
        return token == ids->response_close;
    }
    p->has_begun = true;
    return true;
}

static facet_status report(const chat_parser *p, facet_error *err)
{
    bool failed = p->has_failed || p->text.failed || p->head.failed || p->held.failed || p->call.failed;
    return failed ? error_memory(err, "the chat parser", p->call.len) : FACET_OK;
}

facet_status chat_parser_push(chat_parser *p, int32_t token, facet_error *err)
{
    FACET_TRY(report(p, err));
    if (!take_marker(p, token)) {
        detokenizer_push(&p->detok, p->t, token, &p->text);
        put_text(p);
    }
    return report(p, err);
}

facet_status chat_parser_finish(chat_parser *p, facet_error *err)
{
    FACET_TRY(report(p, err));
    leave(p, true);
    return report(p, err);
}
