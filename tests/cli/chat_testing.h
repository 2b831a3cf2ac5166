/* chat_testing.h: running `facet chat` with the bundled model. Include after testing.h and file/temp_dir.h, with
 * _GNU_SOURCE defined on top. */
#ifndef FACET_TESTS_CHAT_TESTING_H
#define FACET_TESTS_CHAT_TESTING_H

#include <jansson.h>
#include <sys/wait.h>

#define CHAT_MODEL FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf"

/* What a program printed. */
typedef struct printed {
    int status; /* exit status, -1 when a signal ended it */
    char out[1 << 16], err[1 << 16];
} printed;

static inline void read_text(const char *path, char *text, size_t n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    text[fread(text, 1, n - 1, f)] = 0;
    fclose(f);
}

/* Runs `facet COMMAND -m MODEL --device cpu ARGS` with input[0, n) as its standard input. */
static inline const printed *run_facet(const char *command, const char *args, const void *input, size_t n)
{
    static printed p;
    char line[4096], in[512], out[512], err[512];
    snprintf(in, sizeof in, "%s", temp_file("in"));
    snprintf(out, sizeof out, "%s", temp_file("out"));
    snprintf(err, sizeof err, "%s", temp_file("err"));
    write_file(in, input, n);
    snprintf(line, sizeof line, "env -u FACET_MODEL %s/facet %s -m %s --device cpu %s <%s >%s 2>%s", FACET_BINARY_DIR,
             command, CHAT_MODEL, args, in, out, err);
    const int status = system(line);
    p.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    read_text(out, p.out, sizeof p.out);
    read_text(err, p.err, sizeof p.err);
    return &p;
}

static inline const printed *chat_with(const char *args, const char *input)
{
    return run_facet("chat", args, input, strlen(input));
}

/* The messages that /save wrote. */
static inline json_t *saved_messages(const char *name)
{
    json_error_t e;
    json_t *j = json_load_file(temp_file(name), 0, &e);
    if (!j) fail_msg("%s: line %d: %s", name, e.line, e.text);
    assert_true(json_is_array(j));
    return j;
}

static inline const char *message_field(const json_t *messages, size_t i, const char *field)
{
    const char *s = json_string_value(json_object_get(json_array_get(messages, i), field));
    return s ? s : "(none)";
}

#define assert_message(messages, i, role, content)                                                                     \
    do {                                                                                                               \
        assert_string_equal(message_field(messages, i, "role"), role);                                                 \
        assert_string_equal(message_field(messages, i, "content"), content);                                           \
    } while (0)

#define assert_contains(text, what)                                                                                    \
    do {                                                                                                               \
        if (!strstr(text, what)) fail_msg("wanted '%s' in: %.3000s", what, text);                                      \
    } while (0)

#define assert_begins(text, with)                                                                                      \
    do {                                                                                                               \
        if (strncmp(text, with, strlen(with)) != 0) fail_msg("wanted '%s' first in: %.3000s", with, text);             \
    } while (0)

#define assert_lacks(text, what)                                                                                       \
    do {                                                                                                               \
        if (strstr(text, what)) fail_msg("unwanted '%s' in: %.3000s", what, text);                                     \
    } while (0)

#endif
