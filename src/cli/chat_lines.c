#include "cli/chat_lines.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "cli/chat_editor.h"
#include "cli/cli.h"

struct chat_lines {
    chat_editor *editor; /* NULL: plain lines */
    buf line;
    uint64_t number; /* of the line last read, from 1 */
};

static const char block_mark[] = "\"\"\"";

facet_status chat_lines_open(chat_lines **out, facet_error *err)
{
    chat_lines *l = mem_calloc(1, sizeof *l);
    if (!l) return error_memory(err, "the reader of lines", sizeof *l);
    l->editor = chat_editor_open();
    *out = l;
    return FACET_OK;
}

void chat_lines_close(chat_lines *l)
{
    if (!l) return;
    chat_editor_close(l->editor);
    buf_free(&l->line);
    mem_free(l);
}

bool chat_lines_has_editor(const chat_lines *l)
{
    return l->editor != NULL;
}

static facet_status edit_line(chat_lines *l, const char *prompt, bool *is_end, facet_error *err)
{
    size_t n = 0;
    const char *s = chat_editor_read(l->editor, prompt, &n);
    if (!s) {
        fputc('\n', stderr); /* leaves the prompt's line */
        if (cli_was_interrupted()) return error_set(err, FACET_ERR_CANCELLED, "cancelled");
        *is_end = true;
        return FACET_OK;
    }
    return buf_append(&l->line, s, n) ? FACET_OK : error_memory(err, "a line", n);
}

/* Of a line that is too long one byte above the limit is kept: its last. */
static facet_status plain_line(chat_lines *l, bool *is_end, facet_error *err)
{
    int c;
    while ((c = getc_unlocked(stdin)) != EOF && c != '\n') {
        if (l->line.len > CHAT_MAX_INPUT)
            l->line.data[CHAT_MAX_INPUT] = (char)c;
        else if (!buf_putc(&l->line, (char)c))
            return error_memory(err, "a line", l->line.len);
    }
    if (c == EOF && ferror(stdin)) {
        *is_end = true;
        return error_set(err, FACET_ERR_IO, "standard input: cannot read: %s", strerror(errno));
    }
    *is_end = c == EOF && l->line.len == 0;
    const size_t n = l->line.len;
    if (n && n <= CHAT_MAX_INPUT && l->line.data[n - 1] == '\r') l->line.data[--l->line.len] = 0;
    return FACET_OK;
}

static facet_status check_line(const buf *line, facet_error *err)
{
    uint32_t cp;
    if (line->len > CHAT_MAX_INPUT)
        return error_set(err, FACET_ERR_LIMIT, "the line is longer than %d bytes", CHAT_MAX_INPUT);
    for (size_t i = 0; i < line->len;) {
        const int n = utf8_decode(line->data + i, line->len - i, &cp);
        if (n == 0)
            return error_set(err, FACET_ERR_FORMAT, "byte %zu (0x%02x) is not UTF-8", i + 1,
                             (unsigned char)line->data[i]);
        if (cp == 0) return error_set(err, FACET_ERR_FORMAT, "byte %zu is NUL", i + 1);
        i += (size_t)n;
    }
    return FACET_OK;
}

/* FACET_ERR_CANCELLED, FACET_ERR_IO and FACET_ERR_MEMORY come from reading; the others tell what is wrong with the line
 * that was read. */
static facet_status next_line(chat_lines *l, const char *prompt, bool *is_end, facet_error *err)
{
    buf_clear(&l->line);
    if (l->editor) {
        FACET_TRY(edit_line(l, prompt, is_end, err));
    } else {
        FACET_TRY(plain_line(l, is_end, err));
    }
    if (*is_end) return FACET_OK;
    l->number++;
    const facet_status status = check_line(&l->line, err);
    if (status != FACET_OK && !l->editor) error_prefix(err, "standard input: line %llu", (unsigned long long)l->number);
    return status;
}

static bool is_fatal(facet_status status)
{
    return status == FACET_ERR_CANCELLED || status == FACET_ERR_IO || status == FACET_ERR_MEMORY;
}

static bool is_mark(const buf *line)
{
    size_t n = line->len;
    while (n && (line->data[n - 1] == ' ' || line->data[n - 1] == '\t')) n--;
    return n == strlen(block_mark) && memcmp(line->data, block_mark, n) == 0;
}

static bool has_backslash(const buf *line)
{
    return line->len && line->data[line->len - 1] == '\\';
}

/* Appends a line of the message; the first thing wrong with it is kept in *bad and *err. */
static void take_line(const buf *line, size_t n, bool is_first, chat_input *in, facet_status *bad, facet_error *err)
{
    if (*bad != FACET_OK) return;
    if (!is_first) buf_putc(&in->text, '\n');
    buf_append(&in->text, line->data ? line->data : "", n);
    if (in->text.failed) *bad = error_memory(err, "a message", in->text.len);
    if (in->text.len > CHAT_MAX_INPUT)
        *bad = error_set(err, FACET_ERR_LIMIT, "the message is longer than %d bytes", CHAT_MAX_INPUT);
}

/* A line's own fault becomes the message's; err holds the first. */
static facet_status next_of_message(chat_lines *l, bool *is_end, facet_status *bad, facet_error *err)
{
    facet_error e = {0};
    const facet_status status = next_line(l, "| ", is_end, &e);
    if (status == FACET_OK) return FACET_OK;
    if (*bad == FACET_OK || is_fatal(status)) *err = e;
    if (is_fatal(status)) return status;
    if (*bad == FACET_OK) *bad = status;
    return FACET_OK;
}

static facet_status read_block(chat_lines *l, chat_input *in, facet_error *err)
{
    facet_status bad = FACET_OK;
    in->is_block = true;
    for (bool is_first = true;; is_first = false) {
        bool is_end = false;
        FACET_TRY(next_of_message(l, &is_end, &bad, err));
        if (is_end) return error_set(err, FACET_ERR_FORMAT, "the input ends before a line of %s", block_mark);
        if (is_mark(&l->line)) return bad;
        take_line(&l->line, l->line.len, is_first, in, &bad, err);
    }
}

/* l->line is the first line, bad what is wrong with it. */
static facet_status read_lines(chat_lines *l, chat_input *in, facet_status bad, facet_error *err)
{
    for (bool is_first = true;; is_first = false) {
        const bool goes_on = has_backslash(&l->line);
        take_line(&l->line, l->line.len - goes_on, is_first, in, &bad, err);
        if (!goes_on) return bad;
        bool is_end = false;
        FACET_TRY(next_of_message(l, &is_end, &bad, err));
        if (is_end) return error_set(err, FACET_ERR_FORMAT, "the input ends after a line with a backslash at its end");
    }
}

facet_status chat_lines_read(chat_lines *l, chat_input *in, facet_error *err)
{
    buf_clear(&in->text);
    in->is_block = in->is_end = false;
    const facet_status status = next_line(l, "> ", &in->is_end, err);
    if (is_fatal(status) || in->is_end) return status;
    if (status == FACET_OK && is_mark(&l->line)) return read_block(l, in, err);
    return read_lines(l, in, status, err);
}
