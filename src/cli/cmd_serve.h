/* cmd_serve.h: facet serve. */
#ifndef FACET_CLI_CMD_SERVE_H
#define FACET_CLI_CMD_SERVE_H

#include "cli/cli.h"
#include "serve/server.h"

enum { SERVE_MAX_KEYS = 256 };

/* Each has an environment variable FACET_NAME as the common options do. */
#define SERVE_OPTIONS(X)                                                                                               \
    X(400, "host", "NAME", "address to listen on (default 127.0.0.1: this machine only)")                              \
    X(401, "port", "N", "port (default 8080; 0 = a free one)")                                                         \
    X(402, "api-key", "KEY", "clients must show this key (may be repeated)")                                           \
    X(403, "api-key-file", "FILE", "keys, one a line")                                                                 \
    X(404, "cors", "WHO", "pages that may use it: local (default), none, *, or origins with commas")                   \
    X(405, "alias", "NAME", "the model's name in replies (default: the file's)")                                       \
    X(406, "parallel", "N", "texts at a time, 1 to 64 (default 4); each has room for -c tokens")                       \
    X(407, "queue", "N", "texts that may wait (default 128)")                                                          \
    X(408, "cache-mb", "N", "MiB for prompts that are kept for others that begin alike (default 512)")                 \
    X(409, "prompt-rows", "N", "rows of prompts in a step beside others' tokens (default 128)")                        \
    X(410, "max-tokens", "N", "tokens of an answer that does not say (default: what fits)")                            \
    X(411, "clamp", NULL, "cut max_tokens to what fits, do not refuse it")                                             \
    X(412, "max-texts", "N", "texts of one request (default 64)")                                                      \
    X(413, "think", NULL, "think where a request does not say")                                                        \
    X(414, "thinking-budget", "N", "tokens of a thought (default -1: no limit)")                                       \
    X(415, "reply-budget", "N", "tokens that a thought leaves for the answer (default 512)")                           \
    X(420, "max-connections", "N", "open connections (default 4096)")                                                  \
    X(421, "max-per-address", "N", "of one address (default 0: no limit)")                                             \
    X(422, "max-body", "BYTES", "size of a request (default 33554432)")                                                \
    X(423, "max-header", "BYTES", "size of its header (default 36864)")                                                \
    X(424, "idle-timeout", "S", "seconds for a request's header (default 60)")                                         \
    X(425, "body-timeout", "S", "seconds for its body (default 60)")                                                   \
    X(426, "stall-timeout", "S", "seconds until a client that does not read is cut (default 30)")                      \
    X(427, "http-threads", "N", "threads that read and write (default 2)")                                             \
    X(428, "grace", "S", "seconds for running texts at SIGTERM (default 30)")                                          \
    X(429, "log", "FORM", "text (default), json or none")

typedef struct serve_arguments {
    cli_options common;
    server_config server;
    const char *alias, *key_file;
    const char *keys[SERVE_MAX_KEYS + 1]; /* NULL at the end; those of the file are owned */
    int n_keys, n_given;                  /* n_given: the first ones, not owned */
    int grace_s, cache_mb;
    bool is_quiet, is_log_json;
} serve_arguments;

/* Command line and environment. EXIT_OK; -1 after --help; or the exit status. */
int serve_parse(int argc, char **argv, serve_arguments *o);
/* The keys of the command line and those that the file has now. */
facet_status serve_read_keys(serve_arguments *o, facet_error *err);
void serve_free_keys(serve_arguments *o);

int cmd_serve(int argc, char **argv);

#endif
