/* Speculation as a person meets it: options good and bad, drafters that do not fit, what is printed and where. */
#define _GNU_SOURCE
#include "testing.h"

#include "file/temp_dir.h"
#include "model/gguf_edit.h"

#include "chat_testing.h"

#define MODELS FACET_SOURCE_DIR "/models/facet-small-"
#define MTP MODELS "mtp-Q8_0.gguf"
#define DFLASH MODELS "dflash-Q8_0.gguf"
#define BOTH "-md " MTP " -md " DFLASH " "
#define STORY "'Tell a lost story about Rosa the frog, the farm, a orange boat and corn.'"

static const printed *run_line(const char *args)
{
    return run_facet("run", args, "", 0);
}

/* One line on standard error, which begins with "facet: " and holds `message`; nothing on standard output. */
static void assert_refused(const printed *p, const char *args, int status, const char *message)
{
    const char *end = strchr(p->err, '\n');
    if (p->status != status || !strstr(p->err, message) || strncmp(p->err, "facet: ", 7) != 0 || !end || end[1])
        fail_msg("%s: exit %d, wanted %d and one line with '%s'; printed: %.600s", args, p->status, status, message,
                 p->err);
    assert_string_equal(p->out, "");
}

/* ---- options ---- */

/* A context that no model has is refused when the engine opens, before it loads anything: a line that comes instead of
 * that refusal comes before any long work. */
#define NO_LOADING "-c 99999999 "

static const struct {
    const char *args;
    int status;
    const char *message;
} refused[] = {
    {"--spec fast", 2, "--spec: 'fast' is not one of none, mtp, dflash, ngram, auto"},
    {"--spec ''", 2, "--spec: '' is not one of"},
    {"--draft-max 0", 2, "--draft-max: '0' is not a whole number from 1 to 63"},
    {"--draft-max 64", 2, "--draft-max: '64' is not a whole number from 1 to 63"},
    {"--draft-max 3x", 2, "--draft-max: '3x'"},
    {"--mtp-gamma 0", 2, "--mtp-gamma: '0' is not a whole number from 1 to 16"},
    {"--mtp-gamma 17", 2, "--mtp-gamma: '17' is not a whole number from 1 to 16"},
    {"--mtp-gamma -1", 2, "--mtp-gamma: '-1'"},
    {"--ddtree-budget -1", 2, "--ddtree-budget: '-1' is not a whole number from 0 to 64"},
    {"--ddtree-budget 65", 2, "--ddtree-budget: '65' is not a whole number from 0 to 64"},
    {"--ddtree-budget many", 2, "--ddtree-budget: 'many'"},
    {"--ddtree-temp 0", 2, "--ddtree-temp: '0' is not a number from 0.001 to 1000"},
    {"--ddtree-temp nan", 2, "--ddtree-temp: 'nan'"},
    {"--ddtree-chain-seed 2", 2, "--ddtree-chain-seed: '2' is not a whole number from 0 to 1"},
    {"--ddtree-chain-seed yes", 2, "--ddtree-chain-seed: 'yes'"},
    {"--adaptive on", 2, "--adaptive: 'on' is not one of cost, window, off, auto"},
    {"--draft-ctx 0", 2, "--draft-ctx: '0' is not a whole number from 1 to 16777216"},
    {"--draft-ctx 16777217", 2, "--draft-ctx: '16777217'"},
    {"--p-min 1.5", 2, "--p-min: '1.5' is not a number from 0 to 1"},
    {"--p-min -0.1", 2, "--p-min: '-0.1'"},
    {"--mtp-pos before", 2, "--mtp-pos: 'before' is not one of const, const-1, incr"},
    {"--width-theta 2", 2, "--width-theta: '2' is not a number from 0 to 1"},
    {"--width-min 0", 2, "--width-min: '0' is not a whole number from 1 to 64"},
    {"--width-min 65", 2, "--width-min: '65'"},
    {NO_LOADING "--block-mask none", 2, "block_mask 'none': supported are auto, all_bidir, swa_causal, all_causal"},
    {NO_LOADING "-md " DFLASH " --block-mask ''", 2, "block_mask '': supported are"},
    /* what excludes what */
    {NO_LOADING "--spec mtp", 2, "--spec mtp wants a drafter of that kind: give one with -md FILE"},
    {NO_LOADING "--spec dflash", 2, "--spec dflash wants a drafter of that kind: give one with -md FILE"},
    {NO_LOADING "--spec mtp -md " DFLASH, 2, "dflash-Q8_0.gguf is of kind dflash"},
    {NO_LOADING "--spec dflash -md " MTP, 2, "mtp-Q8_0.gguf is of kind mtp"},
    {NO_LOADING "-md " MTP " -md " MTP, 2, "are both mtp drafters: one of each kind is used"},
    {NO_LOADING "-md " DFLASH " -md " DFLASH, 2, "are both dflash drafters: one of each kind is used"},
    {BOTH "-md " MTP, 2, "--draft: at most 2"},
    {NO_LOADING BOTH, 1, "context of 99999999 tokens"}, /* nothing else was wrong */
    {NO_LOADING "-md /nonexistent.gguf", 1, "/nonexistent.gguf: cannot open"},
    {NO_LOADING "-md " FACET_SOURCE_DIR "/README.md", 1, "README.md: not a GGUF file"},
    {NO_LOADING "-md " FACET_SOURCE_DIR "/models", 1, "config.json: cannot open"},
    {NO_LOADING "-md " FACET_SOURCE_DIR "/models --spec auto", 1, "config.json: cannot open"},
};

static void bad_options_get_one_line(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char args[2048];
        snprintf(args, sizeof args, "%s hi", refused[i].args);
        assert_refused(run_line(args), args, refused[i].status, refused[i].message);
    }
}

/* The same options everywhere, and from the environment. */
static void every_command_and_the_environment(void **state)
{
    (void)state;
    static const struct {
        const char *env, *message, *origin;
    } rows[] = {
        {"FACET_SPEC=fast", "--spec: 'fast'", "FACET_SPEC"},
        {"FACET_MTP_GAMMA=99", "--mtp-gamma: '99'", "FACET_MTP_GAMMA"},
        {"FACET_ADAPTIVE=never", "--adaptive: 'never'", "FACET_ADAPTIVE"},
        {"FACET_MTP_POS=1", "--mtp-pos: '1'", "FACET_MTP_POS"},
        {"DFLASH_MTP_GAMMA=99", "--mtp-gamma: '99'", "DFLASH_MTP_GAMMA"},
        {"DFLASH_DDTREE_BUDGET=-2", "--ddtree-budget: '-2'", "DFLASH_DDTREE_BUDGET"},
        {"DFLASH_GEMMA4_DDTREE_BUDGET=65", "--ddtree-budget: '65'", "DFLASH_GEMMA4_DDTREE_BUDGET"},
        {"DFLASH_GEMMA4_DDTREE_TEMP=-1", "--ddtree-temp: '-1'", "DFLASH_GEMMA4_DDTREE_TEMP"},
        {"DFLASH_GEMMA4_DDTREE_CHAIN_SEED=2", "--ddtree-chain-seed: '2'", "DFLASH_GEMMA4_DDTREE_CHAIN_SEED"},
        {"DFLASH_ADAPTIVE_WIDTH_THETA=2", "--width-theta: '2'", "DFLASH_ADAPTIVE_WIDTH_THETA"},
        {"DFLASH_ADAPTIVE_WIDTH_MIN=0", "--width-min: '0'", "DFLASH_ADAPTIVE_WIDTH_MIN"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(rows[i].env, "="), rows[i].env);
        setenv(name, strchr(rows[i].env, '=') + 1, 1);
        const printed *p = run_line("hi");
        unsetenv(name);
        assert_int_equal(p->status, 2);
        assert_contains(p->err, rows[i].message);
        assert_contains(p->err, rows[i].origin);
    }
    static const char *const commands[][2] = {
        {"run", "hi"}, {"chat", ""}, {"bench", "-p 0 -n 4"}, {"eval tasks", "/dev/null"}};
    for (int i = 0; i < 4; i++) {
        char args[1024];
        const char *spec = "--draft-max 64", *wants = NO_LOADING "--spec mtp";
        snprintf(args, sizeof args, "%s %s", spec, commands[i][1]);
        char line[64];
        snprintf(line, sizeof line, "%s", commands[i][0]);
        const printed *p = run_facet(line, args, "", 0);
        assert_int_equal(p->status, 2);
        assert_contains(p->err, "--draft-max: '64'");
        snprintf(args, sizeof args, "%s %s", wants, commands[i][1]);
        p = run_facet(line, args, "", 0);
        assert_int_equal(p->status, 2);
        assert_contains(p->err, "--spec mtp wants a drafter of that kind");
        p = run_facet(line, "--help", "", 0);
        assert_int_equal(p->status, 0);
        assert_contains(p->out, "--ddtree-budget N");
    }
}

/* ---- drafters that do not fit ---- */

#define P "gemma4-assistant."

typedef struct misfit {
    const char *name; /* of the file */
    const char *from;
    edit edits[3];
    const char *message;
} misfit;

static void drafters_that_do_not_fit_get_one_line(void **state)
{
    (void)state;
    static const int32_t far[] = {2, 4, 7};
    static const misfit list[] = {
        {"hidden.gguf",
         MTP,
         {{.kind = EDIT_U32, .name = P "embedding_length_out", .n = 5376}},
         P "embedding_length_out is 5376, the target's hidden size is 256"},
        {"hidden2.gguf",
         DFLASH,
         {{.kind = EDIT_U32, .name = "dflash.embedding_length", .n = 2816}},
         "dflash.embedding_length is 2816, the target's hidden size is 256"},
        {"vocab.gguf",
         MTP,
         {{.kind = EDIT_STR, .name = "tokenizer.ggml.tokens", .text = "none"}},
         "tokenizer.ggml.tokens has 1 entries, the target has 2048"},
        {"tensor.gguf",
         MTP,
         {{.kind = EDIT_DROP_TENSOR, .name = "blk.3.ffn_down.weight"}},
         "missing tensor blk.3.ffn_down.weight"},
        {"tensor2.gguf", DFLASH, {{.kind = EDIT_DROP_TENSOR, .name = "fc.weight"}}, "missing tensor fc.weight"},
        {"dialect.gguf",
         MTP,
         {{.kind = EDIT_ARCH, .text = "gemma4-eagle3"}},
         "general.architecture is 'gemma4-eagle3'; drafters are gemma4-assistant, gemma4_assistant, dflash and "
         "gemma4-dflash-draft"},
        {"other.gguf", /* of a target with more layers */
         DFLASH,
         {{.kind = EDIT_I32S, .name = "dflash.target_layers", .n = 3, .list = far}},
         "dflash.target_layers[2] is 7; wanted rising numbers from 1 to 6"},
        {"heads.gguf", /* of a target with other heads */
         MTP,
         {{.kind = EDIT_U32, .name = P "attention.key_length_swa", .n = 128},
          {.kind = EDIT_U32, .name = P "attention.value_length_swa", .n = 128}},
         "key_length_swa is 128, layer 4 of the target, whose cache it reads, has 256"},
        {"successor.gguf",
         DFLASH,
         {{.kind = EDIT_TENSOR, .name = "markov_w1.weight", .type = TYPE_F32, .ne = {256}}},
         "tensor markov_w1.weight has no role in a DFlash drafter"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        char args[1024];
        gguf_edit(list[i].from, temp_file(list[i].name), list[i].edits);
        snprintf(args, sizeof args, NO_LOADING "-md %s hi", temp_file(list[i].name));
        const printed *p = run_line(args);
        assert_refused(p, args, 1, list[i].message);
        assert_contains(p->err, list[i].name);
    }
    const char *target = NO_LOADING "-md " CHAT_MODEL " hi";
    assert_refused(run_line(target), target, 1, "general.architecture is 'gemma4'; drafters are");
    assert_refused(run_line(NO_LOADING "-m " MTP " hi"), "-m MTP", 1,
                   "this is an MTP drafter: give the target as the model");
    assert_refused(run_line(NO_LOADING "-m " DFLASH " hi"), "-m DFLASH", 1,
                   "this is a DFlash drafter: give the target as the model");
}

/* Drafters of other targets of the same hidden size and vocabulary. */
static void drafters_of_other_targets_of_the_same_width(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/tiny-31b-mtp-F16.gguf");
    static const struct {
        const char *target, *drafter, *message;
    } rows[] = {
        {"tiny-e2b-F16.gguf", "tiny-31b-mtp-F16.gguf",
         "head_count_kv of layer 0 is 2, layer 1 of the target, whose cache it reads, has 1"},
        {"tiny-26b-a4b-F16.gguf", "tiny-31b-dflash", "dflash.target_layer_count is 6, the target has 5 layers"},
        {"tiny-31b-F16.gguf", "tiny-26b-a4b-F16.gguf", "general.architecture is 'gemma4'; drafters are"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char args[2048], target[128], drafter[128];
        snprintf(target, sizeof target, "models/%s", rows[i].target);
        snprintf(drafter, sizeof drafter, "models/%s", rows[i].drafter);
        snprintf(args, sizeof args, NO_LOADING "-m %s -md %s hi", test_shared(target), test_shared(drafter));
        assert_refused(run_line(args), args, 1, rows[i].message);
    }
}

/* ---- what is printed, and where ---- */

static json_t *json_of(const printed *p)
{
    json_error_t e;
    if (p->status != 0) fail_msg("exit %d: %.400s", p->status, p->err);
    json_t *j = json_loads(p->out, 0, &e); /* fails on anything behind the object */
    if (!j) fail_msg("%s: %.400s", e.text, p->out);
    return j;
}

static json_int_t count_of(const json_t *spec, const char *name)
{
    const json_t *v = json_object_get(spec, name);
    if (!json_is_integer(v)) fail_msg("no number %s", name);
    return json_integer_value(v);
}

/* Standard output is the same bytes with drafts and without; what they did goes to standard error, or into the one
 * object. */
static void pitfall_28_statistics_stay_off_the_protocol_stream(void **state)
{
    (void)state;
    static const char *const ways[] = {"--spec none", "-md " MTP " --no-adaptive",
                                       "-md " DFLASH " --no-adaptive --ddtree-budget 22", BOTH "--spec auto",
                                       "--spec ngram --no-adaptive"};
    char plain[1 << 16] = "";
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char args[1024];
        snprintf(args, sizeof args, "%s --chat -n 60 " STORY, ways[i]);
        const printed *p = run_line(args);
        assert_int_equal(p->status, 0);
        if (i == 0) memcpy(plain, p->out, sizeof plain);
        assert_string_equal(p->out, plain);
        if (i == 0) assert_string_equal(p->err, "");
        if (i > 0) assert_begins(p->err, "facet: speculation by ");
        assert_true(i == 0 || strchr(p->err, '\n')[1] == 0);
        snprintf(args, sizeof args, "%s --json --chat -n 60 " STORY, ways[i]);
        p = run_line(args);
        assert_string_equal(p->err, "");
        json_t *j = json_of(p);
        assert_int_equal(strlen(json_string_value(json_object_get(j, "text"))) + 1, strlen(plain));
        json_decref(j);
        snprintf(args, sizeof args, "--temp 0 -n 60 %s", ways[i]);
        p = chat_with(args, "What is 82 - 61?\n");
        assert_string_equal(p->out, "82 - 61 = 21.\n");
        assert_string_equal(p->err, "");
    }
}

static void the_object_of_run_json(void **state)
{
    (void)state;
    static const struct {
        const char *args, *method;
        bool is_tree;
    } rows[] = {
        {"--spec none", "none", false},
        {"-md " MTP " --spec none", "none", false},
        {"-md " MTP " --no-adaptive --mtp-gamma 3", "mtp", false},
        {"-md " DFLASH " --no-adaptive", "dflash", false},
        {"-md " DFLASH " --no-adaptive --ddtree-budget 22", "dflash", true},
        {"--spec ngram --no-adaptive", "ngram", false},
        {BOTH "--spec mtp", "mtp", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char args[1024];
        snprintf(args, sizeof args, "%s --json --ignore-eos -n 100 --chat " STORY, rows[i].args);
        json_t *j = json_of(run_line(args)), *s = json_object_get(j, "speculation");
        assert_string_equal(json_string_value(json_object_get(s, "method")), rows[i].method);
        assert_int_equal(json_is_true(json_object_get(s, "tree")), rows[i].is_tree);
        const json_int_t steps = count_of(s, "steps"), drafted = count_of(s, "drafted"),
                         accepted = count_of(s, "accepted"), committed = count_of(s, "committed");
        assert_int_equal(committed, 99); /* the last token is not evaluated */
        assert_true(accepted <= drafted);
        assert_true(committed <= steps + accepted);
        assert_int_equal(drafted > 0, i >= 2);
        const double mean = json_real_value(json_object_get(s, "mean_accepted"));
        assert_true(mean == (double)committed / (double)steps);
        json_int_t n = 0;
        size_t k;
        json_t *v;
        json_array_foreach(json_object_get(s, "lengths"), k, v) n += json_integer_value(v);
        assert_int_equal(n, steps);
        if (i == 2) assert_int_equal(json_array_size(json_object_get(s, "acceptance")), 3);
        assert_int_equal(json_object_get(s, "trees") != NULL, rows[i].is_tree);
        const json_t *ms = json_object_get(s, "ms");
        assert_true(json_real_value(json_object_get(ms, "verify")) > 0);
        assert_true(json_real_value(json_object_get(ms, "draft")) > 0);
        assert_true(json_real_value(json_object_get(ms, "other")) > 0);
        json_decref(j);
    }
}

/* Every budget that is named, the text always the same: a step has 64 rows, so 64 makes 63 nodes. */
static void budgets_up_to_a_full_step(void **state)
{
    (void)state;
    static const int budgets[] = {0, 1, 4, 16, 22, 63, 64};
    json_t *want = json_of(run_line("--spec none --json --ignore-eos -n 80 --chat " STORY));
    double nodes[7] = {0};
    for (int i = 0; i < 7; i++) {
        char args[1024];
        snprintf(args, sizeof args,
                 "-md " DFLASH " --no-adaptive --ddtree-budget %d --json --ignore-eos -n 80 --chat " STORY, budgets[i]);
        json_t *j = json_of(run_line(args)), *s = json_object_get(j, "speculation");
        assert_true(json_equal(json_object_get(j, "tokens"), json_object_get(want, "tokens")));
        assert_int_equal(json_is_true(json_object_get(s, "tree")), budgets[i] > 0);
        nodes[i] = json_number_value(json_object_get(json_object_get(s, "trees"), "mean_nodes"));
        assert_true(nodes[i] <= (budgets[i] < 63 ? budgets[i] : 63));
        assert_true(i < 2 || nodes[i] >= nodes[i - 1]);
        json_decref(j);
    }
    assert_true(nodes[6] == nodes[5] && nodes[6] > nodes[4]);
    json_decref(want);
}

/* What facet eval tasks reports is the sum of what its lines did. */
static void eval_tasks_sums_the_statistics(void **state)
{
    (void)state;
    static const char *const users[] = {"What is 82 - 61?", "Tell me the capital of Morocco.",
                                        "Say this: A frog sat near the valley and ate soup."};
    static const char *const counts[] = {"steps", "drafted", "accepted", "committed", "plain_steps"};
    static const char *const how = "-md " MTP " --no-adaptive --mtp-gamma 3 --json";
    json_int_t sum[5] = {0};
    FILE *f = fopen(temp_file("tasks.jsonl"), "w");
    for (int i = 0; i < 3; i++) {
        char args[1024];
        snprintf(args, sizeof args, "%s --chat '%s'", how, users[i]);
        json_t *j = json_of(run_line(args));
        for (int k = 0; k < 5; k++) sum[k] += count_of(json_object_get(j, "speculation"), counts[k]);
        fprintf(f,
                "{\"task\":\"t\",\"prompt\":\"<bos><|turn>user\\n%s<turn|>\\n<|turn>model\\n<|channel>thought\\n"
                "<channel|>\",\"answer\":\"%s\"}\n",
                users[i], i ? "T" : "82 - 61 = 21.");
        json_decref(j);
    }
    fclose(f);
    char args[1024];
    snprintf(args, sizeof args, "%s %s", how, temp_file("tasks.jsonl"));
    json_t *j = json_of(run_facet("eval tasks", args, "", 0)), *s = json_object_get(j, "speculation");
    assert_int_equal(count_of(j, "total"), 3);
    assert_int_equal(count_of(j, "right"), 2);
    assert_string_equal(json_string_value(json_object_get(s, "method")), "mtp");
    for (int k = 0; k < 5; k++) assert_int_equal(count_of(s, counts[k]), sum[k]);
    snprintf(args, sizeof args, "-md " MTP " --no-adaptive --mtp-gamma 3 %s", temp_file("tasks.jsonl"));
    const printed *p = run_facet("eval tasks", args, "", 0);
    char line[128];
    snprintf(line, sizeof line,
             "\nspeculation      mtp: %d steps, %d of them plain; %d of %d drafts accepted (%.1f %%)", (int)sum[0],
             (int)sum[4], (int)sum[2], (int)sum[1], 100.0 * (double)sum[2] / (double)sum[1]);
    assert_contains(p->out, line);
    json_decref(j);
    snprintf(args, sizeof args, "--spec none %s", temp_file("tasks.jsonl"));
    assert_lacks(run_facet("eval tasks", args, "", 0)->out, "speculation");
}

/* /stats: the last answer, and all of them. */
static void stats_in_a_chat(void **state)
{
    (void)state;
    const char *how = "--temp 0 -md " MTP " --no-adaptive --mtp-gamma 2";
    const printed *p =
        chat_with(how, "What is 82 - 61?\n/stats\nTell me the capital of Morocco.\n/stats\n/reset\n/stats\n");
    assert_int_equal(p->status, 0);
    assert_string_equal(p->err, "");
    int steps[4] = {0}, drafted[4] = {0}, accepted[4] = {0}, plain, n = 0;
    for (const char *at = p->out; (at = strstr(at, "mtp: ")) && n < 4; at++, n++)
        assert_int_equal(sscanf(at, "mtp: %d steps, %d of them plain; %d of %d drafts", &steps[n], &plain, &accepted[n],
                                &drafted[n]),
                         4);
    assert_int_equal(n, 4); /* two lines each, and none after /reset */
    assert_contains(p->out, "\ndrafts    mtp: ");
    assert_contains(p->out, "\nin all    mtp: ");
    assert_true(steps[0] == steps[1] && drafted[0] == drafted[1] && accepted[0] == accepted[1] && drafted[0] > 0);
    assert_true(steps[3] == steps[1] + steps[2] && drafted[3] == drafted[1] + drafted[2]);
    assert_int_equal(accepted[3], accepted[1] + accepted[2]);
    json_t *j = json_of(run_line("-md " MTP " --no-adaptive --mtp-gamma 2 --json --chat 'What is 82 - 61?'"));
    assert_int_equal(count_of(json_object_get(j, "speculation"), "steps"), steps[0]);
    assert_int_equal(count_of(json_object_get(j, "speculation"), "accepted"), accepted[0]);
    json_decref(j);
    assert_lacks(chat_with("--temp 0", "What is 82 - 61?\n/stats\n")->out, "drafts");
}

/* A person who asked for speculation is told when there was none. */
static void nothing_drafted_is_said(void **state)
{
    (void)state;
    const printed *p = run_line("--spec ngram -n 2 --chat 'What is 82 - 61?'");
    assert_int_equal(p->status, 0);
    assert_string_equal(p->err, "facet: speculation by none: nothing was drafted in 1 steps\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_options_get_one_line),
        cmocka_unit_test(every_command_and_the_environment),
        cmocka_unit_test(drafters_that_do_not_fit_get_one_line),
        cmocka_unit_test(drafters_of_other_targets_of_the_same_width),
        cmocka_unit_test(pitfall_28_statistics_stay_off_the_protocol_stream),
        cmocka_unit_test(the_object_of_run_json),
        cmocka_unit_test(budgets_up_to_a_full_step),
        cmocka_unit_test(eval_tasks_sums_the_statistics),
        cmocka_unit_test(stats_in_a_chat),
        cmocka_unit_test(nothing_drafted_is_said),
    };
    return cmocka_run_group_tests_name("cli_spec", tests, temp_dir_make, temp_dir_remove);
}
