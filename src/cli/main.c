/* main.c: facet COMMAND … */
#include <string.h>

#include "base/cpu.h"
#include "cli/cli.h"
#include "cli/cmd_convert.h"
#include "cli/cmd_quantize.h"
#include "cli/cmd_serve.h"
#include "compute/backend.h"

typedef struct command {
    const char *name, *help;
    int (*run)(int argc, char **argv);
} command;

static const command commands[] = {
    {"run", "complete a prompt", cmd_run},
    {"chat", "talk with a model", cmd_chat},
    {"daemon", "serve commands from standard input", cmd_daemon},
    {"serve", "serve a model over HTTP", cmd_serve},
    {"eval", "measure a model: tasks, perplexity, divergence, needles", cmd_eval},
    {"bench", "speed of prefill, decode and verify steps", cmd_bench},
    {"inspect", "metadata, tensors, plan and memory of a file", cmd_inspect},
    {"tokenize", "token ids of a text", cmd_tokenize},
    {"detokenize", "text of token ids", cmd_detokenize},
    {"render", "a chat as the exact prompt", cmd_render},
    {"logits", "float32 logits of token ids", cmd_logits},
    {"convert", "safetensors to GGUF", cmd_convert},
    {"quantize", "GGUF to GGUF of another type mix", cmd_quantize},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void help(FILE *f)
{
    fprintf(f, "usage: facet COMMAND [OPTIONS]\nRuns Google's Gemma 4 models from GGUF files.\n\n");
    for (int i = 0; i < N_COMMANDS; i++) fprintf(f, "  %-12s %s\n", commands[i].name, commands[i].help);
    fprintf(f, "\nfacet COMMAND --help tells a command's options; facet --version the version, CPU features and CUDA "
               "devices.\n");
}

static int version(void)
{
    char cuda[1024];
    backend_cuda_describe(cuda, sizeof cuda);
    printf("facet %s\ncpu: %d processors, %s\ncuda: %s\n", facet_version(), cpu_count(), cpu_features_text(),
           *cuda ? cuda : "none");
    return EXIT_OK;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        help(stdout);
        return EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) return version();
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    for (int i = 2; i < argc; i++) /* PROGRAM MODEL [DRAFT] --daemon ...: as other daemons are started */
        if (strcmp(argv[i], "--daemon") == 0) return cmd_daemon(argc, argv);
    fprintf(stderr, "facet: unknown command '%s' (facet --help lists them)\n", argv[1]);
    return EXIT_USAGE;
}
