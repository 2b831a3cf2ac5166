/* Hostile prompts and files as a person (or a script) hands them to the program: exit status and what is printed. */
#define _GNU_SOURCE
#include "testing.h"

#include <sys/wait.h>

#include "file/temp_dir.h"

enum { BIG = 1000000 };

#define MODEL "models/facet-small-Q4_K_M.gguf"
#define RUN "run -m " MODEL " --device cpu -t 1 -c 512 "

/* Runs `facet ARGS` in the source folder, where %s of ARGS is a file with the prompt. The environment is empty but for
 * what the program needs; standard error is joined to standard output. */
static int run(const char *args, const char *file, char *out, size_t n)
{
    char filled[1024], command[4096];
    snprintf(filled, sizeof filled, args, file);
    snprintf(command, sizeof command, "cd %s && env -i PATH=\"$PATH\" %s/facet %s 2>&1 </dev/null", FACET_SOURCE_DIR,
             FACET_BINARY_DIR, filled);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    const size_t got = fread(out, 1, n - 1, p);
    out[got] = 0;
    while (fgetc(p) != EOF) continue;
    const int status = pclose(p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static const struct {
    const char *prompt; /* of the file; one letter stands for BIG of them */
    size_t n;
    const char *args;
    int status;
    const char *printed;
} table[] = {
    {"", 0, RUN "-n 2 --json -f %s", 0, "\"prompt_tokens\":[2],\"tokens\":["},
    {"", 0, RUN "-n 2 --json --no-special -f %s", 0, "\"prompt_tokens\":[2],"},
    {"<bos>", 5, RUN "-n 2 --json -f %s", 0, "\"prompt_tokens\":[2],"},
    {"<bos>", 5, RUN "-n 2 --json --no-special -f %s", 0, "\"prompt_tokens\":[2,"},
    {"a\0b", 3, RUN "-n 2 --json -f %s", 0, "\"prompt_tokens\":[2,451,130,452],"},
    {"a\0b", 3, RUN "-n 2 --json --chat -f %s", 0, "107,451,130,452,106,"},
    {"hi \xff", 4, RUN "-n 2 --json -f %s", 0, "\"prompt_tokens\":[2,1553,386,369,321,319],"},
    {"hi \xff", 4, RUN "-n 2 --chat -f %s", 2, "facet: the prompt is not valid UTF-8"},
    {"\xed\xa0\x80", 3, RUN "-n 2 --chat -f %s", 2, "facet: the prompt is not valid UTF-8"},
    {"\xc0\xaf", 2, RUN "-n 2 --chat -f %s", 2, "facet: the prompt is not valid UTF-8"},
    {"a", BIG, RUN "-f %s", 1, "facet: 1000001 tokens: the context holds 512 (set it with -c)"},
    {"\xff", BIG, RUN "-f %s", 1, "facet: 3000001 tokens: the context holds 512 (set it with -c)"},
    {"a", BIG, RUN "--chat -f %s", 1, "tokens: the context holds 512"},
    {"hi", 2, RUN "-n 0 --json -f %s", 0, "\"tokens\":[],\"text\":\"\",\"stop\":\"limit\""},
    {"hi", 2, RUN "-n 0 -f %s", 0, "\n"},
    {"hi", 2, RUN "-c 1 -f %s", 1, "facet: 2 tokens: the context holds 1 (set it with -c)"},
    {"hi", 2, RUN "-c 2 --ignore-eos --json -f %s", 0, "\"stop\":\"limit\""},
    {"hi", 2, RUN "-n 2 --json --logit-bias 385=1e9 -f %s", 0, "\"text\":\"\xef\xbf\xbd\xef\xbf\xbd\""},
    {"hi", 2, RUN "-n 2 --json --logit-bias 130=1e9 -f %s", 0, "\"text\":\"\\u0000\\u0000\""},
    {"hi", 2, RUN "--logit-bias 5=inf -f %s", 2, "--logit-bias: 'inf' is not a number"},
    {"hi", 2, RUN "--logit-bias 5=nan -f %s", 2, "--logit-bias: 'nan' is not a number"},
    {"hi", 2, RUN "--logit-bias -1=0 -f %s", 2, "--logit-bias: '-1=0' is not ID=X"},
    {"hi", 2, RUN "--stop \"$(printf '\\303')\" -f %s", 2, "facet: stop text 1 is not valid UTF-8"},
    {"hi", 2, RUN "--temp nan -f %s", 2, "--temp: 'nan' is not a number"},
    {"hi", 2, RUN "--temp inf -f %s", 2, "--temp: 'inf' is not a number"},
    {"hi", 2, RUN "-n 99999999999 -f %s", 2, "--predict: '99999999999' is not a whole number"},
    {"hi", 2, RUN "-n 5x -f %s", 2, "--predict: '5x' is not a whole number"},
    {"hi", 2, RUN "-c -5 -f %s", 2, "--ctx: '-5' is not a whole number"},
    {"hi", 2, RUN "-f models %s", 2, "a prompt and -f FILE exclude each other"},
    {"hi", 2, RUN "-f models", 1, "facet: models: cannot read: Is a directory"},
    {"", 0, "tokenize -m " MODEL " --json --no-bos -f %s", 0, "{\"tokens\":[]}"},
    {"\xf0\x9f\x98", 3, "tokenize -m " MODEL " --json --no-bos -f %s", 0, "{\"tokens\":[369,321,319]}"},
    {"", 0, "detokenize -m " MODEL " -f %s", 0, "\n"},
    {"1,2,x", 5, "detokenize -m " MODEL " -f %s", 2, "facet: token id 'x': wanted a number from 0 to 2047"},
    {"-1", 2, "detokenize -m " MODEL " -f %s", 2, "facet: token id '-1': wanted"},
    {"99999999999999999999", 20, "detokenize -m " MODEL " -f %s", 2, "token id '99999999999999999999': wanted"},
    {"[325]", 5, "detokenize -m " MODEL " -f %s", 0, "\xef\xbf\xbd\n"},
    {"hi", 2, "logits -m " MODEL " --device cpu -c 64 --tokens 5,2048 --out %s", 2,
     "facet: token 2048 at position 1: the vocabulary has 2048 entries"},
    {"hi", 2, "logits -m " MODEL " --tokens -5 --out %s", 2, "--tokens: '-5' is not a list of ids"},
    {"hi", 2, "logits -m " MODEL " --tokens 5,,6 --out %s", 2, "--tokens: ',6' is not a list of ids"},
    {"hi", 2, "logits -m " MODEL " --tokens '' --out %s", 2, "--tokens: empty"},
    {"[{\"role\":\"user\",\"content\":\"\xff\"}]", 31, "render -m " MODEL " --messages %s", 1, "unable to decode byte"},
    {"[{\"role\":\"user\",\"content\":\"\\ud800\"}]", 36, "render -m " MODEL " --messages %s", 1, "invalid Unicode"},
    {"[", BIG, "render -m " MODEL " --messages %s", 1, "maximum parsing depth"},
    {"{}", 2, "render -m " MODEL " --messages %s", 2, "facet: "},
};

static void write_prompt(const char *path, const char *prompt, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    if (n == BIG)
        for (int i = 0; i < BIG; i++) fputc(*prompt, f);
    else
        fwrite(prompt, 1, n, f);
    assert_int_equal(fclose(f), 0);
}

static void every_row_of_the_table(void **state)
{
    (void)state;
    static char out[1 << 16];
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *path = temp_file("prompt");
        write_prompt(path, table[i].prompt, table[i].n);
        const int status = run(table[i].args, path, out, sizeof out);
        if (status != table[i].status || !strstr(out, table[i].printed))
            fail_msg("row %zu, facet %s: exit %d, wanted %d with '%s'; printed: %.300s", i, table[i].args, status,
                     table[i].status, table[i].printed, out);
    }
}

/* A report names the model even where its path is no UTF-8. */
static void paths_of_any_bytes(void **state)
{
    (void)state;
    static char out[1 << 16];
    const char *path = temp_file("m\xff.gguf");
    assert_int_equal(symlink(FACET_SOURCE_DIR "/" MODEL, path), 0);
    assert_int_equal(run("run --device cpu -t 1 -c 64 -n 2 --json -m '%s' hi", path, out, sizeof out), 0);
    assert_non_null(strstr(out, "/m\xef\xbf\xbd.gguf\",\"prompt_tokens\":[2,1553],"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_of_the_table),
        cmocka_unit_test(paths_of_any_bytes),
    };
    return cmocka_run_group_tests_name("cli prompts", tests, temp_dir_make, temp_dir_remove);
}
