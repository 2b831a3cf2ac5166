#include "cli/chat_view.h"

#include <stdio.h>
#include <string.h>

static const char dim[] = "\033[2m", plain[] = "\033[0m", replacement[] = "\xef\xbf\xbd";

static void put(chat_view *v, const char *s, size_t n)
{
    if (n && fwrite(s, 1, n, stdout) != n) v->is_broken = true;
}

static void put_text(chat_view *v, const char *s)
{
    put(v, s, strlen(s));
}

/* Bytes of the control character at s (C0 but tab and newline, DEL, C1), which a terminal might obey; 0 = none. */
static size_t control(const char *s, size_t n)
{
    const unsigned char c = (unsigned char)*s;
    if (c == '\n' || c == '\t') return 0;
    if (c < 0x20 || c == 0x7f) return 1;
    return c == 0xc2 && n > 1 && (unsigned char)s[1] < 0xa0 ? 2 : 0;
}

static void put_harmless(chat_view *v, const char *s, size_t n)
{
    size_t from = 0;
    for (size_t i = 0, k; i < n; i += k ? k : 1) {
        if (!(k = control(s + i, n - i))) continue;
        put(v, s + from, i - from);
        if (s[i] != '\r') put_text(v, replacement);
        from = i + k;
    }
    put(v, s + from, n - from);
}

static void stream(chat_view *v, const char *s, size_t n)
{
    if (n == 0) return;
    if (v->is_terminal)
        put_harmless(v, s, n);
    else
        put(v, s, n);
    v->is_inside_line = s[n - 1] != '\n';
    if (fflush(stdout) != 0) v->is_broken = true;
}

static void end_line(chat_view *v)
{
    if (v->is_inside_line) put_text(v, "\n");
    v->is_inside_line = false;
}

static void end_thought(chat_view *v)
{
    if (!v->in_thought) return;
    v->in_thought = false;
    if (v->use_color) put_text(v, plain);
    end_line(v);
    if (!v->use_color) put_text(v, "[/thought]\n");
}

void chat_view_thought(chat_view *v, const char *s, size_t n)
{
    if (!v->in_thought) {
        end_line(v);
        put_text(v, v->use_color ? dim : "[thought]\n");
        v->in_thought = true;
    }
    stream(v, s, n);
}

void chat_view_content(chat_view *v, const char *s, size_t n)
{
    end_thought(v);
    stream(v, s, n);
}

void chat_view_call(chat_view *v, const char *name, size_t n_name, const char *arguments, size_t n_arguments)
{
    end_thought(v);
    end_line(v);
    put_text(v, "[call] ");
    stream(v, name, n_name);
    stream(v, " ", 1);
    stream(v, arguments, n_arguments);
    end_line(v);
}

void chat_view_end(chat_view *v)
{
    end_thought(v);
    end_line(v);
    if (fflush(stdout) != 0) v->is_broken = true;
}
