/* cmd_logits.c: facet logits: float32 logits of given token ids. */
#include <stdlib.h>
#include <string.h>

#include "base/file_map.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "decode/logits.h"

enum { OPT_TOKENS = 300, OPT_ALL, OPT_OUT, OPT_HELP };

static void help(void)
{
    printf("usage: facet logits --tokens 1,2,3 --out FILE [OPTIONS]\nWrites raw little-endian float32 logits [rows, "
           "vocabulary].\n\n"
           "       --tokens IDS          token ids, separated by commas\n"
           "       --all                 a row for every token, not only for the last\n"
           "       --out FILE            where to write\n");
    cli_print_options(stdout, 0);
}

static facet_status parse_ids(const char *s, int32_t **out, size_t *n, facet_error *err)
{
    int32_t *ids = mem_calloc(strlen(s) + 1, sizeof *ids);
    if (!ids) return error_memory(err, "token ids", strlen(s));
    *n = 0;
    for (char *end; *s; s = *end == ',' ? end + 1 : end) {
        const long id = strtol(s, &end, 10);
        if (end == s || (*end && *end != ',') || id < 0 || id > INT32_MAX) {
            mem_free(ids);
            return error_set(err, FACET_ERR_ARG, "--tokens: '%.20s' is not a list of ids", s);
        }
        ids[(*n)++] = (int32_t)id;
    }
    *out = ids;
    return *n ? FACET_OK : error_set(err, FACET_ERR_ARG, "--tokens: empty");
}

static facet_status write_rows(facet_engine *e, const int32_t *ids, size_t n, bool wants_all, file_writer *w,
                               facet_error *err)
{
    logits_reader r = {0};
    const float *rows;
    size_t n_rows = 1;
    facet_status status = logits_open(e, &r, err);
    if (status == FACET_OK) status = logits_start(&r, ids, n, wants_all ? 0 : n - 1, err);
    while (status == FACET_OK && n_rows) {
        status = logits_next(&r, &rows, &n_rows, err);
        if (status == FACET_OK) status = file_writer_put(w, rows, n_rows * e->model->h.n_vocab * sizeof *rows, err);
    }
    logits_close(&r);
    return status;
}

static facet_status run(cli_options *o, const char *tokens, bool wants_all, const char *path, facet_error *err)
{
    facet_model *m = NULL;
    facet_engine *e = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    file_writer w = {.fd = -1};
    facet_status status = parse_ids(tokens, &ids, &n, err);
    if (status == FACET_OK) status = cli_open_model(o, &m, err);
    if (status == FACET_OK) status = cli_open_engine(o, m, &e, err);
    if (status == FACET_OK) status = file_writer_open(path, &w, err);
    if (status == FACET_OK) status = write_rows(e, ids, n, wants_all, &w, err);
    if (status == FACET_OK) status = file_writer_commit(&w, err);
    file_writer_abort(&w);
    mem_free(ids);
    cli_close_engine(o, e);
    facet_model_close(m);
    return status;
}

int cmd_logits(int argc, char **argv)
{
    cli_options o;
    const char *tokens = NULL, *path = NULL;
    bool wants_all = false;
    struct option table[64] = {{"tokens", required_argument, NULL, OPT_TOKENS},
                               {"all", no_argument, NULL, OPT_ALL},
                               {"out", required_argument, NULL, OPT_OUT},
                               {"help", no_argument, NULL, OPT_HELP}};
    cli_long_options(table + 4, 0);
    cli_options_init(&o);
    cli_expand_short(argc, argv);
    if (!cli_options_from_environment(&o)) return EXIT_USAGE;
    for (int c; (c = cli_next_option(argc, argv, "m:c:t:h", table)) != -1;) {
        switch (c) {
        case OPT_TOKENS: tokens = optarg; break;
        case OPT_ALL: wants_all = true; break;
        case OPT_OUT: path = optarg; break;
        case 'h':
        case OPT_HELP: help(); return EXIT_OK;
        default:
            if (cli_option(&o, c, optarg) != 1) return EXIT_USAGE;
        }
    }
    if (!tokens || !path || optind < argc) return cli_usage("logits", "give --tokens IDS and --out FILE");
    facet_error err = {0};
    return run(&o, tokens, wants_all, path, &err) == FACET_OK ? EXIT_OK : cli_fail(&err);
}
