/* The program as a person runs it, with the bundled model: answers, exit status, messages. */
#include "testing.h"

#include <sys/wait.h>

/* Runs `facet ARGS`, standard error joined to standard output; returns the exit status. */
static int run(const char *args, char *out, size_t n)
{
    char command[2048];
    snprintf(command, sizeof command, "cd %s && env -u FACET_MODEL %s/facet %s 2>&1 </dev/null", FACET_SOURCE_DIR,
             FACET_BINARY_DIR, args);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    const size_t got = fread(out, 1, n - 1, p);
    out[got] = 0;
    while (fgetc(p) != EOF) continue;
    const int status = pclose(p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define MODEL "models/facet-small-Q4_K_M.gguf"

static const struct {
    const char *args;
    int status;
    const char *message;
} table[] = {
    {"run -m " MODEL " --device cpu --chat 'What is 82 - 61?'", 0, "82 - 61 = 21."},
    {"run --device cpu --chat 'What is 82 - 61?'", 0, "bundled small model"},
    {"run -m " MODEL " --device ref --chat 'What is 82 - 61?'", 0, "82 - 61 = 21."},
    {"run -m " MODEL " --device cpu --mmap --chat 'What is 82 - 61?'", 0, "82 - 61 = 21."},
    {"run -m " MODEL " --device cpu -ctk q8_0 -ctv q8_0 -t 1 --chat 'What is 82 - 61?'", 0, "82 - 61 = 21."},
    {"run -m " MODEL " --device cpu -ctk f32 -ctv f32 -t 1 --chat 'What is 82 - 61?'", 0, "82 - 61 = 21."},
    {"run -m " MODEL " --device cpu --chat --stop ' = ' 'What is 82 - 61?'", 0, "82 - 61\n"},
    {"run -m " MODEL " --device cpu --chat -n 2 --json 'What is 82 - 61?'", 0, "\"stop\":\"limit\""},
    {"run -m " MODEL " --device cpu --chat --json 'What is 82 - 61?'", 0, "\"stop\":\"eos\""},
    {"tokenize -m " MODEL " --json '<bos>a'", 0, "{\"tokens\":[2,"},
    {"detokenize -m " MODEL " 410,404,966", 0, "82 -"},
    {"inspect " MODEL " -c 4096", 0, "KV cache"},
    {"inspect " MODEL " --plan", 0, "argmax"},
    {"bench -m " MODEL " --device cpu -p 32 -n 4 -w 1,4 -d 0,70 -r 2", 0, "| w4 @ d70 |"},
    {"bench -m " MODEL " --device ref -p 8 -n 2 -r 1 -o csv", 0, "facet-small-Q4_K_M.gguf,ref,prefill,8,0,1,"},
    {"bench -m " MODEL " --device cpu -p 0 -n 0 -w 2 -r 1 --ops -o json", 0, "\"test\":\"op\""},
    {"bench -m " MODEL " --device cpu -p 0 -n 0 -w 2 -r 1 --ops", 0, "| argmax | 1 |"},
    {"bench -m " MODEL " --device cpu -p 0 -n 2 -w 3 -d 1500 -c 2048 --blank-depth -r 1", 0, "| w3 @ d1500 |"},
    {"bench --help", 0, "usage: facet bench"},
    {"bench -p 1,x", 2, "-p: '1,x' is not a list"},
    {"bench -p 5,", 2, "-p: '5,' is not a list"},
    {"bench -w 65", 2, "-w: '65' is not a list of at most 32 numbers from 1 to 64"},
    {"bench -r 0", 2, "facet: -r: '0'"},
    {"bench -o xml", 2, "-o: 'xml' is not md, json or csv"},
    {"bench extra", 2, "'extra': there are no arguments"},
    {"bench -m " MODEL " --device cpu -c 64 -p 512", 1, "the context holds 64"},
    {"--version", 0, "facet 0.1.0"},
    {"--help", 0, "usage: facet"},
    {"", 2, "usage: facet"},
    {"run --bogus", 2, "facet run: there is no option --bogus (facet run --help tells more)"},
    {"chat -x", 2, "facet chat: there is no option -x (facet chat --help tells more)"},
    {"logits --ctx", 2, "facet logits: --ctx wants a value (facet logits --help tells more)"},
    {"bench -p", 2, "facet bench: -p wants a value (facet bench --help tells more)"},
    {"eval ppl --foo", 2, "facet eval ppl: there is no option --foo (facet eval ppl --help tells more)"},
    {"eval needle --help", 0, "usage: facet eval needle"},
    {"eval needle --ctx 159", 2, "--ctx: '159' is not a list of at most 32 numbers from 160 to 16777216"},
    {"eval needle --ctx 2048,", 2, "--ctx: '2048,' is not a list"},
    {"eval needle --ctx 2k", 2, "--ctx: '2k' is not a list"},
    {"eval needle --depth 0,101", 2, "--depth: '0,101' is not a list of at most 32 numbers from 0 to 100"},
    {"eval needle --depth -1", 2, "--depth: '-1' is not a list"},
    {"eval needle --n 0", 2, "--n: '0' is not a whole number from 1 to 1000"},
    {"eval needle --svg", 2, "facet eval needle: --svg wants a value"},
    {"eval needle --kv huge -m " MODEL, 2, "cache preset 'huge'"},
    {"eval needle text.txt", 2, "'text.txt': there are no arguments beside options"},
    {"eval needle -m " MODEL " --device cpu --ctx 1000000", 1, "1000000"},
    {"eval needle -m " MODEL " --device cpu --ctx 200 -n 100", 2, "a prompt of 100 tokens"},
    {"eval needle -m " MODEL " --device cpu --ctx 200 --depth 50 --svg /nonexistent/a.svg", 1, "/nonexistent/a.svg"},
    {"eval nothing", 2, "give tasks, ppl or kl and a file, or needle"},
    {"quantize in out --type F16 --hollow", 2, "--hollow go with --random"},
    {"nonsense", 2, "unknown command 'nonsense'"},
    {"run -m /nonexistent.gguf hi", 1, "/nonexistent.gguf: cannot open"},
    {"run -m README.md hi", 1, "README.md: not a GGUF file"},
    {"run -m models hi", 1, "models: not a regular file"},
    {"run -m models/facet-small-mtp-Q8_0.gguf hi", 1, "this is an MTP drafter"},
    {"run -m models/facet-small-dflash-Q8_0.gguf hi", 1, "this is a DFlash drafter"},
    {"run --temp abc hi", 2, "--temp: 'abc'"},
    {"run --top-p 0 hi", 2, "--top-p: '0'"},
    {"run --min-p 2 hi", 2, "--min-p: '2'"},
    {"run --top-k -1 hi", 2, "--top-k: '-1'"},
    {"run --seed x hi", 2, "--seed: 'x'"},
    {"run -n -2 hi", 2, "--predict: '-2'"},
    {"run -t 5000 hi", 2, "--threads: '5000'"},
    {"run --repeat-penalty 0 hi", 2, "--repeat-penalty: '0'"},
    {"run -m " MODEL
     " --device cpu --chat --json-schema '{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\","
     "\"minimum\":7,\"maximum\":9}},\"required\":[\"n\"],\"additionalProperties\":false}' 'What is 82 - 61?'",
     0, "\"n\""},
    {"run -m " MODEL " --device cpu --chat --json-schema '{\"enum\":[\"up\",\"down\"]}' --spec ngram -t 1 'Where?'", 0,
     "\"\n"},
    {"run -m " MODEL " --device cpu --chat --json-object 'What is 82 - 61?'", 0, "{"},
    {"run -m " MODEL " --device cpu --chat --grammar tests/data/grammar/answer.gbnf 'What is 82 - 61?'", 0, " it is\n"},
    {"run -m " MODEL " --device cpu --grammar tests/data/grammar/left.gbnf hi", 2,
     "facet: tests/data/grammar/left.gbnf: rule 'root' begins with itself"},
    {"run -m " MODEL " --device cpu --json-schema tests/data/grammar/not.json hi", 1,
     "facet: tests/data/grammar/not.json: #/properties/id/not: this keyword is not supported"},
    {"run -m " MODEL " --device cpu --json-schema '{' hi", 2, "facet: --json-schema: the JSON schema: line 1"},
    {"run -m " MODEL " --device cpu --json-schema nonexistent.json hi", 1, "facet: nonexistent.json: cannot open"},
    {"run -m " MODEL " --device cpu --json-object --ignore-eos hi", 2, "ignore_eos together with a grammar"},
    {"run --json-object --grammar x hi", 2, "--grammar, --json-schema and --json-object exclude each other"},
    {"run --logit-bias 5 hi", 2, "--logit-bias: '5' is not ID=X"},
    {"run -m " MODEL " --device cpu --logit-bias 99999=1 hi", 2, "logit bias for token 99999"},
    {"run --stop '' hi", 2, "--stop"},
    {"run --bogus hi", 2, "bogus"},
    {"run -m " MODEL " -c 99999999 --device cpu hi", 1, "context of 99999999 tokens"},
    {"run -m " MODEL " --device foo hi", 2, "device 'foo'"},
    {"run -m " MODEL " -ctk q3 --device cpu hi", 2,
     "cache type of K 'q3': supported are f16, q8_0, q4_0, tq3_0, rot_q8_0, rot_q4_0, f32"},
    {"run -m " MODEL " --kv big --device cpu hi", 2, "cache preset 'big': there are exact balanced small tiny"},
    {"inspect " MODEL " -c 512 --kv tiny", 0, "context of 512 tokens, K tq3_0, V tq3_0:"},
    {"run -m " MODEL " --sparse-mass 2 --device cpu hi", 2, "--sparse-mass: '2' is not a number from 0 to 1"},
    {"run -m " MODEL " --sparse-min -1 --device cpu hi", 2, "--sparse-min: '-1' is not a whole number from 0"},
    {"run -m " MODEL " --sparse-hard x --device cpu hi", 2, "--sparse-hard: 'x' is not a number from 0 to 1"},
    {"run -m " MODEL " --sparse-mass 0.9 --sparse-alpha 0.1 --device cpu hi", 2,
     "sparse_alpha and sparse_mass are two rules for the same keys: give one"},
    {"run -m " MODEL " -c 512 -n 1 --json --sparse-mass 0.999 --device cpu hi", 0, "\"sparse\":null"},
    {"run --help", 0, "--sparse-prefill-alpha A"},
    {"inspect " MODEL " -c 512 -ctk q8_0 --kv tiny", 0, "context of 512 tokens, K q8_0, V tq3_0:"},
    {"run a b", 2, "one prompt only"},
    {"run -f README.md hi", 2, "exclude each other"},
    {"run -m " MODEL " --device cpu -f /nonexistent", 1, "/nonexistent"},
    {"run -m " MODEL " --device cpu -c 64 -f README.md", 1, "the context holds 64"},
    {"detokenize -m " MODEL " 99999", 2, "token id '99999'"},
    {"detokenize -m " MODEL " x", 2, "token id 'x'"},
    {"render -m " MODEL, 2, "--messages"},
    {"render -m " MODEL " --messages README.md", 1, "README.md: line 1"},
    {"logits -m " MODEL " --tokens 1,x --out out.f32", 2, "--tokens: 'x'"},
    {"logits -m " MODEL, 2, "--tokens IDS and --out FILE"},
    {"inspect", 2, "give one FILE"},
    {"inspect " MODEL " --tensor nope --out out.f32", 2, "no tensor nope"},
    {"eval", 2, "give tasks, ppl or kl"},
    {"eval -m " MODEL " tasks x", 2, "'-m': give tasks, ppl or kl"},
    {"eval --help", 0, "divergence of one configuration"},
    {"eval tasks", 2, "one FILE of tasks"},
    {"eval ppl --help", 0, "usage: facet eval ppl FILE"},
    {"eval ppl", 2, "one FILE of text"},
    {"eval ppl a b", 2, "one FILE of text"},
    {"eval ppl --chunks -1 README.md", 2, "--chunks: '-1'"},
    {"eval ppl --bogus README.md", 2, "bogus"},
    {"eval ppl -m " MODEL " --device cpu /nonexistent.txt", 1, "/nonexistent.txt"},
    {"eval ppl -m " MODEL " --device cpu -c 3 README.md", 2, "README.md: chunks of 3 tokens: wanted at least 4"},
    {"eval ppl -m " MODEL " --device cpu -c 16000 README.md", 2, "a chunk has 16000"},
    {"eval ppl -m " MODEL " --device cpu -c 64 --chunks 1 README.md", 0, "scored      31 tokens"},
    {"eval ppl -m " MODEL " --device cpu -c 0 /dev/null", 2, "chunks of 1 tokens"},
    {"eval kl --help", 0, "usage: facet eval kl --a OPTIONS"},
    {"eval kl --a '' README.md", 2, "--b OPTIONS is missing"},
    {"eval kl --b '' README.md", 2, "--a OPTIONS is missing"},
    {"eval kl --a '' --b ''", 2, "one FILE of text"},
    {"eval kl --a '' --b '-t x' README.md", 2, "--threads: 'x'"},
    {"eval kl --a '' --b '-t x' README.md", 2, "in --b '-t x'"},
    {"eval kl --a 'stray' --b '' README.md", 2, "--a: 'stray' is no option"},
    {"eval kl --a '-c 5' --b '' README.md", 2, "--a"},
    {"eval kl --a '--ctx 5' --b '' README.md", 2, "--a: -c and --json hold for both"},
    {"eval kl --a '' --b --json README.md", 2, "--b: -c and --json hold for both"},
    {"eval kl --a '-m \"x' --b '' README.md", 2, "ends inside a quote"},
    {"eval kl --a '-m x\\' --b '' README.md", 2, "after a backslash"},
    {"eval kl --a '' --b '--temp 1' README.md", 2, "in --b '--temp 1'"},
    {"eval kl --a '' --b '-m /nonexistent.gguf' README.md", 1, "--b: /nonexistent.gguf: cannot open"},
    {"eval kl --a '' --b '-ctk q3' --device cpu README.md", 2, "--b: cache type of K 'q3'"},
    {"eval kl --a '' --b '' -m " MODEL " --device cpu -c 64 --chunks 1 README.md", 0, "mean KL      0.000e+00"},
    {"eval tasks README.md -m " MODEL " --device cpu", 1, "README.md: line 1"},
};

static void every_row_of_the_table(void **state)
{
    (void)state;
    static char out[1 << 16];
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const int status = run(table[i].args, out, sizeof out);
        if (status != table[i].status || !strstr(out, table[i].message))
            fail_msg("facet %s: exit %d, wanted %d with '%s'; printed: %.400s", table[i].args, status, table[i].status,
                     table[i].message, out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_row_of_the_table)};
    return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
