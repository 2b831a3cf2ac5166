/* cmd_eval.c: facet eval KIND …: measuring a model. */
#include <string.h>

#include "cli/eval.h"

static const struct {
    char *name, *help; /* name: as complaints call it */
    int (*run)(int argc, char **argv);
} kinds[] = {
    {"eval tasks", "prompts with known answers", eval_tasks},
    {"eval ppl", "perplexity of a text", eval_ppl},
    {"eval kl", "divergence of one configuration from another on a text", eval_kl},
    {"eval needle", "a number hidden in long texts, by length and depth", eval_needle},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static const char *kind_name(int i)
{
    return kinds[i].name + strlen("eval ");
}

static int help(void)
{
    printf("usage: facet eval KIND [FILE] [OPTIONS]\nMeasures a model.\n\n");
    for (int i = 0; i < N_KINDS; i++) printf("  %-8s %s\n", kind_name(i), kinds[i].help);
    printf("\nfacet eval KIND --help tells a kind's options.\n");
    return EXIT_OK;
}

int cmd_eval(int argc, char **argv)
{
    const char *kind = argc > 1 ? argv[1] : "";
    if (strcmp(kind, "--help") == 0 || strcmp(kind, "-h") == 0) return help();
    for (int i = 0; i < N_KINDS; i++)
        if (strcmp(kind, kind_name(i)) == 0) {
            argv[1] = kinds[i].name;
            return kinds[i].run(argc - 1, argv + 1);
        }
    return cli_usage("eval", "'%s': give tasks, ppl or kl and a file, or needle", kind);
}
