/* cli.h: what the subcommands share. Exit status: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted. */
#ifndef FACET_CLI_CLI_H
#define FACET_CLI_CLI_H

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>

#include "facet.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

/* Options that several commands take. Each has an environment variable FACET_NAME (the long name in capitals, '-' as
 * '_'), which the command line overrules. */
#define CLI_COMMON_OPTIONS(X)                                                                                          \
    X('m', "model", "FILE", "GGUF file of the target (default: $FACET_MODEL, then the bundled small model)")           \
    X('c', "ctx", "N", "context in tokens (0 = the model's limit, or what fits)")                                      \
    X('t', "threads", "N", "threads (0 = one per processor)")                                                          \
    X(256, "device", "D", "cpu, cuda, cuda:N, ref or auto")                                                            \
    X(262, "kv", "PRESET", "cache: exact (f16), balanced (q8_0), small (4.5 bits), tiny (worse)")                      \
    X(257, "cache-type-k", "T", "keys: f16, q8_0, q4_0, tq3_0, rot_q8_0, rot_q4_0 or f32 (-ctk)")                      \
    X(258, "cache-type-v", "T", "values: the same types (-ctv)")                                                       \
    X(261, "cache-layers", "LIST", "types of single layers: 0-3=q8_0,global=q8_0/tq3_0 (K/V)")                         \
    X(263, "rebuild-keys", NULL, "global layers with V = K keep V alone: half the cache per token (CPU)")              \
    X(259, "mmap", NULL, "run from the mapped file: starts at once, slower")                                           \
    X(260, "json", NULL, "one JSON object on standard output")

/* Sparse attention: part of the common ones. */
#define CLI_SPARSE_OPTIONS(X)                                                                                          \
    X(283, "sparse-mass", "P", "global layers read blocks of keys until P of the softmax, as 0.999")                   \
    X(284, "sparse-alpha", "A", "or: blocks whose mean key has A of the best one's weight")                            \
    X(285, "sparse-min", "N", "where fewer keys are seen, all are read (default 16384)")                               \
    X(286, "sparse-hard", "X", "read the rest where more may be missing, by certificate (1 = never)")                  \
    X(287, "sparse-prefill", "P", "prompts, too: blocks until P of the softmax, as 0.95")                              \
    X(288, "sparse-prefill-alpha", "A", "or: blocks with A of the best one's weight, as 0.1")                          \
    X(289, "sparse-check", NULL, "measure what was left out (reads everything)")

#define CLI_SAMPLING_OPTIONS(X)                                                                                        \
    X('n', "predict", "N", "tokens to generate (-1 = to the end of the context)")                                      \
    X(270, "temp", "X", "temperature (0 = greedy)")                                                                    \
    X(271, "top-k", "N", "keep the N likeliest tokens (0 = off)")                                                      \
    X(272, "top-p", "X", "keep the likeliest tokens that sum to X (1 = off)")                                          \
    X(273, "min-p", "X", "drop tokens less likely than X times the best (0 = off)")                                    \
    X(274, "seed", "N", "seed: the same one gives the same text")                                                      \
    X(275, "repeat-penalty", "X", "repetition penalty (1 = off)")                                                      \
    X(276, "presence-penalty", "X", "presence penalty")                                                                \
    X(277, "frequency-penalty", "X", "frequency penalty")                                                              \
    X(278, "repeat-last-n", "N", "tokens that penalties look back at (-1 = all)")                                      \
    X(279, "logit-bias", "ID=X", "add X to the logit of token ID (may be repeated)")                                   \
    X(280, "stop", "TEXT", "end before this text (may be repeated)")                                                   \
    X(281, "ignore-eos", NULL, "go on after end tokens")

#define CLI_SPEC_OPTIONS(X)                                                                                            \
    X(290, "draft", "FILE", "draft model: GGUF or a safetensors folder (-md; may be given twice)")                     \
    X(291, "spec", "METHOD", "none, mtp, dflash, ngram or auto (default: auto with -md, else none)")                   \
    X(292, "draft-max", "N", "drafts per step at most, 1 to 63 (default: what the drafter can)")                       \
    X(293, "mtp-gamma", "N", "drafts per step of an MTP assistant, 1 to 16")                                           \
    X(294, "ddtree-budget", "N", "nodes of a DFlash draft tree, 1 to 64 (0 = a chain)")                                \
    X(295, "ddtree-temp", "X", "temperature of the drafter in a tree (default 1)")                                     \
    X(296, "ddtree-chain-seed", "0|1", "the best chain comes first into a tree (default 0)")                           \
    X(297, "adaptive", "RULE", "draft lengths by cost (default), window, auto (window if MoE) or off")                 \
    X(298, "no-adaptive", NULL, "fixed draft lengths: --adaptive off")                                                 \
    X(299, "draft-ctx", "N", "tokens that a DFlash drafter sees (default 4096)")                                       \
    X(310, "p-min", "X", "MTP drafts end before a token less likely than X")                                           \
    X(314, "mtp-pos", "MODE", "MTP queries stand at const (default), const-1 or incr")                                 \
    X(311, "width-theta", "X", "fixed DFlash chains: verify while confidence reaches X")                               \
    X(313, "width-min", "N", ".. but N rows at least, 1 to 64 (default 4)")                                            \
    X(312, "block-mask", "MASK", "DFlash: auto, all_bidir, swa_causal, all_causal")

enum { CLI_MAX_LIST = 32, CLI_MAX_DRAFTERS = 2 };

typedef struct cli_options {
    const char *model;
    facet_engine_params engine;
    facet_sampling sampling;
    facet_generate_params generate;
    /* set by the user: otherwise the model's own recommendation, or chance, may be taken */
    bool has_temp, has_top_k, has_top_p, has_seed;
    bool is_json;
    const char *draft[CLI_MAX_DRAFTERS];
    int n_drafts;
    bool has_spec;             /* --spec was given */
    bool keeps_drafters;       /* loaded whatever the method: requests may name another one */
    const char *env_k, *env_v; /* cache types from the environment: --kv on the command line drops them */
    facet_drafter *drafters[CLI_MAX_DRAFTERS]; /* open while the engine is */
    facet_logit_bias bias[CLI_MAX_LIST];
    const char *stop[CLI_MAX_LIST];
} cli_options;

void cli_options_init(cli_options *o);
/* Environment first. Returns false after printing what is wrong. */
bool cli_options_from_environment(cli_options *o);
/* Tells on standard error which variables of other programs of the family are set and mean nothing here. */
void cli_warn_about_environment(void);
/* One parsed option (val of CLI_*_OPTIONS). 1 = taken, 0 = not a shared option, -1 = wrong value (printed). */
int cli_option(cli_options *o, int val, const char *arg);
/* Groups of options beside the common ones. */
enum { CLI_SAMPLING = 1, CLI_SPECULATION = 2, CLI_GENERATION = CLI_SAMPLING | CLI_SPECULATION };
/* Writes the shared entries of a getopt table; returns their number. */
size_t cli_long_options(struct option *out, unsigned groups);
void cli_print_options(FILE *f, unsigned groups);
void cli_print_options_but(FILE *f, unsigned groups, int left_out); /* left_out: val of one that the command lacks */
/* -ctk and -ctv, -md and the like are written with one dash: turned into long options in place. */
void cli_expand_short(int argc, char **argv);

/* getopt_long, which says what is wrong by cli_usage (argv[0] is the command) and then returns '?'. */
int cli_next_option(int argc, char **argv, const char *letters, const struct option *table);

/* Numbers; print "facet CMD: --NAME: …" and return false when malformed or out of range. */
bool cli_int(const char *name, const char *arg, long long min, long long max, long long *out);
bool cli_float(const char *name, const char *arg, double min, double max, double *out);

/* "facet: message" on stderr; the exit status that fits the error. */
int cli_fail(const facet_error *err);
/* "facet CMD: …" on stderr; EXIT_USAGE. */
int cli_usage(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Names of the cache types of K and V that valid options stand for. */
void cli_cache_types(const facet_engine_params *p, const char *name[2]);

/* The model of the options, or the bundled one (said on stderr). Engine with a progress bar on a terminal. */
facet_status cli_open_model(const cli_options *o, facet_model **out, facet_error *err);
/* With the drafters of the options, unless --spec says that they are not used. */
facet_status cli_open_engine(cli_options *o, facet_model *m, facet_engine **out, facet_error *err);
void cli_close_engine(cli_options *o, facet_engine *e);
const char *cli_model_path(const cli_options *o);

/* Ctrl-C: cancels this session; a second one ends the program. NULL gives Ctrl-C its usual effect back. */
void cli_watch_interrupt(facet_session *s);
/* Ctrl-C only makes cli_was_interrupted() true, however often it comes, and thereby ends what reports to cli_progress;
 * switching on clears it. */
void cli_note_interrupt(bool is_on);
bool cli_was_interrupted(void);

/* facet_progress_fn: a bar on standard error when that is a terminal, erased at the end; false after Ctrl-C. */
bool cli_progress(void *ud, const char *phase, uint64_t done, uint64_t total);
bool cli_progress_prefill(void *ud, const char *phase, uint64_t done, uint64_t total); /* none for short prompts */
void cli_progress_end(void); /* erases a bar that stands there; before other text is written */

/* True when escape sequences may be written to fd: a terminal that is not dumb, and $NO_COLOR is not set. */
bool cli_use_color(int fd);

/* Prompt text from an argument, -f FILE or standard input. *text is owned (facet_free). */
facet_status cli_read_prompt(const char *argument, const char *file, char **text, size_t *n, facet_error *err);

int cmd_run(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_daemon(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_detokenize(int argc, char **argv);
int cmd_render(int argc, char **argv);
int cmd_logits(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_bench(int argc, char **argv);

#endif
