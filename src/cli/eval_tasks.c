/* eval_tasks.c: facet eval tasks FILE: prompts with known answers. */
#include <ctype.h>
#include <jansson.h>
#include <string.h>

#include "base/buf.h"
#include "base/file_map.h"
#include "base/mem.h"
#include "cli/eval.h"
#include "cli/sparse_report.h"
#include "cli/spec_report.h"
#include "serve/spec_json.h"

enum { OPT_HELP = 300, DEFAULT_MAX_TOKENS = 128, MAX_TASKS = 256 };

typedef struct task_count {
    char name[64];
    int right, total;
} task_count;

typedef struct tally {
    task_count tasks[MAX_TASKS];
    int n_tasks, right, total;
    facet_spec_stats spec;
} tally;

static void help(void)
{
    printf("usage: facet eval tasks FILE [OPTIONS]\nRuns a JSONL file of {\"task\", \"prompt\", \"answer\", "
           "\"max_tokens\"} greedily; an answer is right when the\n"
           "generated text, stripped, starts with it. What speculation did is summed over all lines.\n\n");
    cli_print_options(stdout, CLI_GENERATION);
}

static bool on_token(void *ud, int32_t token, const char *text, size_t n)
{
    (void)token;
    return buf_append(ud, text, n);
}

static bool is_right(const buf *text, const char *answer)
{
    const char *s = text->data ? text->data : "";
    while (isspace((unsigned char)*s)) s++;
    while (isspace((unsigned char)*answer)) answer++;
    size_t n = strlen(answer);
    while (n && isspace((unsigned char)answer[n - 1])) n--;
    return strncmp(s, answer, n) == 0;
}

static void count(tally *t, const char *name, bool right)
{
    int i = 0;
    while (i < t->n_tasks && strncmp(t->tasks[i].name, name, sizeof t->tasks[i].name - 1) != 0) i++;
    if (i == t->n_tasks && i < MAX_TASKS) snprintf(t->tasks[t->n_tasks++].name, sizeof t->tasks[i].name, "%s", name);
    t->total++;
    t->right += right;
    if (i == MAX_TASKS) return;
    t->tasks[i].total++;
    t->tasks[i].right += right;
}

static facet_status run_line(facet_model *m, facet_session *s, const cli_options *o, const json_t *line, tally *t,
                             facet_error *err)
{
    const char *name = json_string_value(json_object_get(line, "task")),
               *prompt = json_string_value(json_object_get(line, "prompt"));
    const char *answer = json_string_value(json_object_get(line, "answer"));
    if (!prompt || !answer) return error_set(err, FACET_ERR_FORMAT, "wanted the strings \"prompt\" and \"answer\"");
    const json_t *max = json_object_get(line, "max_tokens");
    int32_t *ids = NULL;
    size_t n = 0;
    buf text = {0};
    facet_generate_params g = o->generate;
    facet_generate_result r;
    g.n_predict = json_is_integer(max) ? (int32_t)json_integer_value(max)
                  : g.n_predict > 0    ? g.n_predict
                                       : DEFAULT_MAX_TOKENS;
    g.on_token = on_token;
    g.ud = &text;
    g.show_special = false;
    facet_status status = facet_tokenize(m, prompt, strlen(prompt), true, true, &ids, &n, err);
    if (status == FACET_OK) status = facet_generate(s, ids, n, &o->sampling, &g, &r, err);
    if (status == FACET_OK) count(t, name ? name : "", is_right(&text, answer));
    if (status == FACET_OK) facet_spec_stats_add(&t->spec, &r.spec);
    facet_free(ids);
    buf_free(&text);
    return status;
}

static facet_status run_file(facet_model *m, facet_session *s, const cli_options *o, const char *path, tally *t,
                             facet_error *err)
{
    char *data;
    size_t n;
    FACET_TRY(file_read_all(path, (size_t)1 << 30, &data, &n, err));
    facet_status status = FACET_OK;
    int number = 0;
    for (char *line = data, *next; line < data + n && status == FACET_OK; line = next) {
        char *end = memchr(line, '\n', (size_t)(data + n - line));
        next = end ? end + 1 : data + n;
        const size_t len = (size_t)((end ? end : data + n) - line);
        number++;
        if (strspn(line, " \t\r") >= len) continue;
        json_error_t e;
        json_t *j = json_loadb(line, len, 0, &e);
        status = j ? run_line(m, s, o, j, t, err) : error_set(err, FACET_ERR_FORMAT, "%s", e.text);
        if (status != FACET_OK) error_prefix(err, "%s: line %d", path, number);
        json_decref(j);
        cli_progress(NULL, "tasks", (uint64_t)(next - data), n);
    }
    mem_free(data);
    return status;
}

static void print(const tally *t, const cli_options *o, const facet_sparse_stats *sparse)
{
    if (o->is_json) {
        json_t *by_task = json_object();
        for (int i = 0; i < t->n_tasks; i++)
            json_object_set_new(by_task, t->tasks[i].name, json_pack("[ii]", t->tasks[i].right, t->tasks[i].total));
        json_t *j = json_pack("{s:i, s:i, s:o, s:o, s:o}", "total", t->total, "right", t->right, "by_task", by_task,
                              "speculation", spec_json(&t->spec), "sparse", cli_sparse_json(sparse));
        json_dumpf(j, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(j);
        return;
    }
    for (int i = 0; i < t->n_tasks; i++)
        printf("%-16s %d of %d\n", t->tasks[i].name, t->tasks[i].right, t->tasks[i].total);
    printf("%-16s %d of %d\n", "right", t->right, t->total);
    cli_print_spec(stdout, "speculation      ", o->generate.speculation.method, &t->spec);
    cli_print_sparse(stdout, "sparse attention ", sparse);
}

int eval_tasks(int argc, char **argv)
{
    cli_options o;
    struct option table[64] = {{"help", no_argument, NULL, OPT_HELP}};
    cli_long_options(table + 1, CLI_GENERATION);
    cli_options_init(&o);
    cli_expand_short(argc, argv);
    if (!cli_options_from_environment(&o)) return EXIT_USAGE;
    for (int c; (c = cli_next_option(argc, argv, "m:c:t:n:h", table)) != -1;) {
        if (c == 'h' || c == OPT_HELP) return help(), EXIT_OK;
        if (cli_option(&o, c, optarg) != 1) return EXIT_USAGE;
    }
    if (argc - optind != 1) return cli_usage("eval tasks", "give one FILE of tasks");
    facet_error err = {0};
    facet_model *m = NULL;
    facet_engine *e = NULL;
    facet_session *s = NULL;
    tally t = {0};
    facet_sparse_stats sparse = {0};
    facet_status status = cli_open_model(&o, &m, &err);
    if (status == FACET_OK) status = cli_open_engine(&o, m, &e, &err);
    if (status == FACET_OK) status = facet_session_open(e, &s, &err);
    if (status == FACET_OK) status = run_file(m, s, &o, argv[optind], &t, &err);
    facet_session_close(s);
    if (e) facet_engine_sparse(e, &sparse);
    cli_close_engine(&o, e);
    facet_model_close(m);
    if (status != FACET_OK) return cli_fail(&err);
    print(&t, &o, &sparse);
    return fflush(stdout) == 0 ? EXIT_OK : EXIT_FAILED;
}
