/* cmd_eval.c: facet eval KIND …: measuring a model. */
#include <string.h>

#include "cli/eval.h"

static const struct {
    const char *name, *help;
    int (*run)(int argc, char **argv);
} kinds[] = {
    {"tasks", "prompts with known answers", eval_tasks},
    {"ppl", "perplexity of a text", eval_ppl},
    {"kl", "divergence of one configuration from another on a text", eval_kl},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static int help(void)
{
    printf("usage: facet eval KIND FILE [OPTIONS]\nMeasures a model.\n\n");
    for (int i = 0; i < N_KINDS; i++) printf("  %-8s %s\n", kinds[i].name, kinds[i].help);
    printf("\nfacet eval KIND --help tells a kind's options.\n");
    return EXIT_OK;
}

int cmd_eval(int argc, char **argv)
{
    const char *kind = argc > 1 ? argv[1] : "";
    if (strcmp(kind, "--help") == 0 || strcmp(kind, "-h") == 0) return help();
    for (int i = 0; i < N_KINDS; i++)
        if (strcmp(kind, kinds[i].name) == 0) return kinds[i].run(argc - 1, argv + 1);
    return cli_usage("eval", "'%s': give tasks, ppl or kl, then a file", kind);
}
