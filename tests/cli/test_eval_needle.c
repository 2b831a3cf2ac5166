/* facet eval needle as a person runs it: prompts and answers are the library's, sums add up in the table, in JSON and
 * in the picture, which a parser of XML reads. */
#define _GNU_SOURCE
#include "testing.h"

#include <jansson.h>
#include <sys/wait.h>

#include "../file/temp_dir.h"
#include "decode/needle.h"

#define MODEL FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf"
enum { N_CTX = 2, N_DEPTH = 3, N = 3, N_CELLS = N_CTX * N_DEPTH };
static const int ctx[N_CTX] = {200, 420}, depth[N_DEPTH] = {0, 40, 100};
/* Answers in which the digit of %d cannot be said: numbers with it come out wrong. */
#define OPTIONS "--ctx 200,420 --depth 0,40,100 --n 3 --seed 5 -ctk q8_0 -ctv tq3_0 --logit-bias %d=-1000"

typedef struct output {
    int status;
    char text[16384];
} output;

/* `facet ARGS`, standard output alone. */
static void run(output *out, const char *args)
{
    char command[2048];
    snprintf(command, sizeof command, "env -u FACET_MODEL %s/facet %s 2>/dev/null </dev/null", FACET_BINARY_DIR, args);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    out->text[fread(out->text, 1, sizeof out->text - 1, p)] = 0;
    const int status = pclose(p);
    out->status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static facet_model *model;
static int32_t digit; /* the token of '7' */

static int setup(void **state)
{
    facet_error err;
    int32_t *ids;
    size_t n;
    if (temp_dir_make(state) != 0 || facet_model_open(MODEL, &model, &err) != FACET_OK) return -1;
    if (facet_tokenize(model, "7", 1, false, false, &ids, &n, &err) != FACET_OK || n != 1) return -1;
    digit = ids[0];
    facet_free(ids);
    return 0;
}

static int teardown(void **state)
{
    facet_model_close(model);
    return temp_dir_remove(state);
}

static json_t *run_json(const char *more)
{
    output out;
    char args[1024];
    snprintf(args, sizeof args, "eval needle -m %s --device cpu --json " OPTIONS " %s", MODEL, (int)digit, more);
    run(&out, args);
    assert_int_equal(out.status, 0);
    json_error_t e;
    json_t *j = json_loads(out.text, 0, &e);
    if (!j) fail_msg("%s: %s", e.text, out.text);
    return j;
}

static int number(const json_t *j, const char *name)
{
    const json_t *v = json_object_get(j, name);
    assert_true(json_is_integer(v));
    return (int)json_integer_value(v);
}

static const char *string(const json_t *j, const char *name)
{
    const char *s = json_string_value(json_object_get(j, name));
    assert_non_null(s);
    return s;
}

static bool on_token(void *ud, int32_t token, const char *text, size_t n)
{
    (void)token;
    char *answer = ud;
    const size_t len = strlen(answer);
    assert_true(len + n < 512);
    memcpy(answer + len, text, n);
    answer[len + n] = 0;
    return true;
}

/* What the library makes of the same prompt with the same settings. */
static void library_answer(facet_session *s, const needle_prompt *p, char answer[512])
{
    facet_sampling sampling = facet_sampling_default();
    facet_generate_params g = facet_generate_params_default();
    facet_generate_result r;
    facet_error err;
    const facet_logit_bias bias = {digit, -1000};
    sampling.bias = &bias;
    sampling.n_bias = 1;
    g.n_predict = 32;
    g.on_token = on_token;
    g.ud = answer;
    answer[0] = 0;
    assert_ok(facet_generate(s, p->ids, p->n_ids, &sampling, &g, &r, &err), err);
}

static void check_prompt(facet_session *s, const json_t *j, const needle_params *params)
{
    needle_prompt p;
    facet_error err;
    char answer[512];
    assert_ok(needle_build(model, params, &p, &err), err);
    library_answer(s, &p, answer);
    assert_int_equal(number(j, "prompt_tokens"), p.n_ids);
    assert_int_equal(number(j, "needle_at"), p.needle);
    assert_string_equal(string(j, "key"), p.key);
    assert_string_equal(string(j, "answer"), answer);
    const json_t *right = json_object_get(j, "right");
    assert_true(json_is_boolean(right));
    assert_int_equal(json_is_true(right), strstr(answer, p.key) != NULL);
    assert_int_equal(json_is_true(right), strchr(p.key, '7') == NULL); /* the model finds every number it can say */
    needle_free(&p);
}

static facet_engine *open_engine(facet_session **s)
{
    facet_engine *e;
    facet_error err;
    facet_engine_params p = facet_engine_params_default();
    p.device = "cpu";
    p.n_ctx = 420;
    p.cache_type_k = "q8_0";
    p.cache_type_v = "tq3_0";
    assert_ok(facet_engine_open(model, &p, &e, &err), err);
    assert_ok(facet_session_open(e, s, &err), err);
    return e;
}

static void json_has_prompts_and_answers(void **state)
{
    (void)state;
    facet_session *s;
    facet_engine *e = open_engine(&s);
    json_t *j = run_json("");
    assert_string_equal(string(j, "model"), "facet-small-Q4_K_M.gguf");
    assert_string_equal(string(j, "device"), "cpu");
    assert_string_equal(string(j, "cache_type_k"), "q8_0");
    assert_string_equal(string(j, "cache_type_v"), "tq3_0");
    assert_int_equal(number(j, "seed"), 5);
    assert_int_equal(number(j, "n"), N);
    const json_t *cells = json_object_get(j, "cells");
    assert_int_equal(json_array_size(cells), N_CELLS);
    int right = 0;
    for (int i = 0; i < N_CELLS; i++) {
        const json_t *cell = json_array_get(cells, (size_t)i), *prompts = json_object_get(cell, "prompts");
        int cell_right = 0;
        assert_int_equal(number(cell, "ctx"), ctx[i % N_CTX]);
        assert_int_equal(number(cell, "depth"), depth[i / N_CTX]);
        assert_int_equal(number(cell, "total"), N);
        assert_int_equal(json_array_size(prompts), N);
        for (int k = 0; k < N; k++) {
            const needle_params params = {
                .n_tokens = ctx[i % N_CTX] - 32, .depth = depth[i / N_CTX], .seed = 5 + (uint64_t)k};
            check_prompt(s, json_array_get(prompts, (size_t)k), &params);
            cell_right += json_is_true(json_object_get(json_array_get(prompts, (size_t)k), "right"));
        }
        assert_int_equal(number(cell, "right"), cell_right);
        right += cell_right;
    }
    assert_int_equal(number(j, "right"), right);
    assert_int_equal(number(j, "total"), N_CELLS * N);
    assert_true(right > 0 && right < N_CELLS * N); /* else the other tests see one colour */
    json_decref(j);
    facet_session_close(s);
    facet_engine_close(e);
}

/* Percent of a cell in JSON. */
static double share(const json_t *j, int d, int c)
{
    const json_t *cell = json_array_get(json_object_get(j, "cells"), (size_t)(d * N_CTX + c));
    return 100.0 * number(cell, "right") / number(cell, "total");
}

static void table_has_the_shares(void **state)
{
    (void)state;
    output out;
    char args[1024], want[256];
    json_t *j = run_json("");
    snprintf(args, sizeof args, "eval needle -m %s --device cpu " OPTIONS, MODEL, (int)digit);
    run(&out, args);
    assert_int_equal(out.status, 0);
    assert_non_null(strstr(out.text, "facet-small-Q4_K_M.gguf on cpu, K q8_0, V tq3_0, seed 5, 3 prompts a cell\n"));
    assert_non_null(strstr(out.text, "\ndepth         200      420\n"));
    for (int d = 0; d < N_DEPTH; d++) {
        snprintf(want, sizeof want, "\n%3d %%    %6.0f %% %6.0f %%\n", depth[d], share(j, d, 0), share(j, d, 1));
        if (!strstr(out.text, want)) fail_msg("no line '%s' in:\n%s", want, out.text);
    }
    double all[N_CTX] = {0};
    for (int d = 0; d < N_DEPTH; d++)
        for (int c = 0; c < N_CTX; c++) all[c] += share(j, d, c) / N_DEPTH;
    snprintf(want, sizeof want, "\nall      %6.0f %% %6.0f %%\n\nright    %d of %d\n", all[0], all[1],
             number(j, "right"), N_CELLS * N);
    if (!strstr(out.text, want)) fail_msg("no line '%s' in:\n%s", want, out.text);
    json_decref(j);
}

/* Standard output of the reader of pictures. */
static void read_svg(const char *path, char *out, size_t n)
{
    char command[1024];
    snprintf(command, sizeof command, "python3 %s/tests/cli/read_svg.py %s 2>&1", FACET_SOURCE_DIR, path);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    out[fread(out, 1, n - 1, p)] = 0;
    if (pclose(p) != 0) fail_msg("%s: %s", path, out);
}

static void picture_has_every_cell(void **state)
{
    (void)state;
    char more[512], out[8192], want[128];
    const char *path = temp_file("map.svg");
    snprintf(more, sizeof more, "--svg %s", path);
    json_t *j = run_json(more);
    read_svg(path, out, sizeof out);
    const char *line = out;
    for (int d = 0; d < N_DEPTH; d++)
        for (int c = 0; c < N_CTX; c++) {
            const int right = (int)(share(j, d, c) * N / 100 + 0.5);
            const char *end = strchr(line, '\n');
            assert_non_null(end);
            snprintf(want, sizeof want, "context %d, depth %d %%: %d of %d right; %.0f %%; #", ctx[c], depth[d], right,
                     N, share(j, d, c));
            if (strncmp(line, want, strlen(want)) != 0) fail_msg("'%s' is not '%s'", line, want);
            if (right == N) assert_true(strncmp(end - 7, "#0f766e", 7) == 0);
            if (right == 0) assert_true(strncmp(end - 7, "#c2410c", 7) == 0);
            line = end + 1;
        }
    snprintf(want, sizeof want, "%d of %d right", number(j, "right"), N_CELLS * N);
    assert_true(strncmp(line, "axes: facet-small-Q4_K_M.gguf K q8_0, V tq3_0, cpu: ", 52) == 0);
    assert_non_null(strstr(line, want));
    assert_non_null(strstr(line, " tokens of context 200 420 depth 0 % 40 % 100 % right: 0 % 100 %\n"));
    json_decref(j);
}

/* A name with XML's own characters; one cell; no chat. */
static void picture_of_a_strange_name(void **state)
{
    (void)state;
    char link[400], svg[400], args[1500], text[8192];
    output out;
    snprintf(link, sizeof link, "%s/a<b>&\"c\".gguf", temp_dir);
    snprintf(svg, sizeof svg, "%s", temp_file("strange.svg"));
    assert_int_equal(symlink(MODEL, link), 0);
    snprintf(args, sizeof args, "eval needle -m '%s' --device cpu --raw -c 200 --depth 50 -n 12 --svg %s", link, svg);
    run(&out, args);
    assert_int_equal(out.status, 0);
    assert_non_null(strstr(out.text, "right    1 of 1\n"));
    read_svg(svg, text, sizeof text);
    assert_non_null(strstr(text, "context 200, depth 50 %: 1 of 1 right; 100 %; #0f766e\n"));
    assert_non_null(strstr(text, "axes: a<b>&\"c\".gguf K f16, V f16, cpu: 1 of 1 right"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_has_prompts_and_answers),
        cmocka_unit_test(table_has_the_shares),
        cmocka_unit_test(picture_has_every_cell),
        cmocka_unit_test(picture_of_a_strange_name),
    };
    return cmocka_run_group_tests_name("eval needle", tests, setup, teardown);
}
