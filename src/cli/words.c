#include "cli/words.h"

#include <string.h>

#include "base/mem.h"

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Copies one word from *in to *out and ends it with a NUL; both advance. False when a quote stays open. */
static bool copy_word(const char **in, char **out)
{
    const char *s = *in;
    char *d = *out, quote = 0;
    for (; *s && (quote || !is_blank(*s)); s++) {
        if (quote && *s == quote) {
            quote = 0;
        } else if (!quote && (*s == '\'' || *s == '"')) {
            quote = *s;
        } else if (*s == '\\' && (!quote || (quote == '"' && (s[1] == '"' || s[1] == '\\')))) {
            if (!*++s) return false;
            *d++ = *s;
        } else {
            *d++ = *s;
        }
    }
    *d++ = 0;
    *in = s;
    *out = d;
    return !quote;
}

facet_status words_split(const char *text, char **storage, char **argv, int max, int *argc, facet_error *err)
{
    char *copy = mem_alloc(strlen(text) + 1), *out = copy;
    if (!copy) return error_memory(err, "words", strlen(text) + 1);
    facet_status status = FACET_OK;
    int n = 0;
    for (const char *s = text;;) {
        while (is_blank(*s)) s++;
        if (!*s) break;
        if (n + 1 >= max) {
            status = error_set(err, FACET_ERR_ARG, "more than %d words in '%.60s'", max - 1, text);
            break;
        }
        argv[n++] = out;
        if (!copy_word(&s, &out)) {
            status = error_set(err, FACET_ERR_ARG, "'%.60s' ends inside a quote or after a backslash", text);
            break;
        }
    }
    if (status != FACET_OK) {
        mem_free(copy);
        return status;
    }
    argv[n] = NULL;
    *argc = n;
    *storage = copy;
    return FACET_OK;
}
