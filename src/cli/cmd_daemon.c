/* cmd_daemon.c: facet daemon: an engine behind pipes. */
#define _GNU_SOURCE /* pipe2 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "serve/daemon.h"
#include "serve/daemon_samp.h"

enum {
    OPT_PROTOCOL = 300,
    OPT_STREAM_FD,
    OPT_SESSIONS,
    OPT_QUEUE,
    OPT_MAX_LINE,
    OPT_STALL_TIMEOUT,
    OPT_SAMP,
    OPT_VERBOSE,
    OPT_CACHE,
    OPT_AUTO_UNPARK,
    OPT_HELP,
    OPT_MAX_CTX,
    OPT_DDTREE,
    OPT_NO_CHAIN_SEED,
    OPT_DRAFT_CTX_MAX,
    OPT_TARGET_GPU,
    OPT_IGNORED
};
enum { DEFAULT_CTX = 16384, DEFAULT_CACHE_MIB = 512, DDTREE_BUDGET = 22, UNSET = -1 };

typedef struct daemon_options {
    cli_options common;
    daemon_config config;
    bool is_verbose, has_tree;
    char device[32]; /* of --target-gpu */
} daemon_options;

static void help(void)
{
    printf(
        "usage: facet daemon [OPTIONS] [MODEL [DRAFT]]\n"
        "Serves commands from standard input (docs/protocol.md). Standard output carries replies and nothing else.\n\n"
        "       --protocol P          lines (default), or json: an object per line, both ways\n"
        "       --stream-fd N         lines: token ids go to this descriptor\n"
        "       --sessions N          json: numbered conversations, each with the whole context (default 1)\n"
        "       --queue N             commands that wait at most (default 64)\n"
        "       --max-line N          bytes of a line (default 65536; json: 16777216)\n"
        "       --stall-timeout S     a reader who takes nothing for S seconds loses what is generated (30)\n"
        "       --cache MIB           room for snapshots and for the beginnings of prompts (default 512)\n"
        "       --auto-unpark         a command that needs a parked part brings it back\n"
        "       --samp T,P,K,R,SEED[,F,PP]  sampling of commands that do not say\n"
        "       --verbose             every note on standard error, not only warnings\n"
        "  For clients of other daemons: --daemon, --max-ctx, --ddtree, --ddtree-no-chain-seed, --draft-ctx-max,\n"
        "  --target-gpu; taken and without effect: --fast-rollback, --seq-verify, --profile-scaling, --test-window,\n"
        "  --peer-access, --draft-feature-mirror. The context is 16384 tokens, or the model's limit, unless given.\n");
    cli_print_options_but(stdout, CLI_GENERATION, 260);
}

static const struct option own[] = {{"protocol", required_argument, NULL, OPT_PROTOCOL},
                                    {"stream-fd", required_argument, NULL, OPT_STREAM_FD},
                                    {"sessions", required_argument, NULL, OPT_SESSIONS},
                                    {"queue", required_argument, NULL, OPT_QUEUE},
                                    {"max-line", required_argument, NULL, OPT_MAX_LINE},
                                    {"stall-timeout", required_argument, NULL, OPT_STALL_TIMEOUT},
                                    {"samp", required_argument, NULL, OPT_SAMP},
                                    {"cache", required_argument, NULL, OPT_CACHE},
                                    {"auto-unpark", no_argument, NULL, OPT_AUTO_UNPARK},
                                    {"verbose", no_argument, NULL, OPT_VERBOSE},
                                    {"help", no_argument, NULL, OPT_HELP},
                                    {"max-ctx", required_argument, NULL, OPT_MAX_CTX},
                                    {"ddtree", no_argument, NULL, OPT_DDTREE},
                                    {"ddtree-no-chain-seed", no_argument, NULL, OPT_NO_CHAIN_SEED},
                                    {"draft-ctx-max", required_argument, NULL, OPT_DRAFT_CTX_MAX},
                                    {"target-gpu", required_argument, NULL, OPT_TARGET_GPU},
                                    {"daemon", no_argument, NULL, OPT_IGNORED},
                                    {"fast-rollback", no_argument, NULL, OPT_IGNORED},
                                    {"seq-verify", no_argument, NULL, OPT_IGNORED},
                                    {"profile-scaling", no_argument, NULL, OPT_IGNORED},
                                    {"test-window", no_argument, NULL, OPT_IGNORED},
                                    {"peer-access", no_argument, NULL, OPT_IGNORED},
                                    {"draft-feature-mirror", no_argument, NULL, OPT_IGNORED}};
enum { N_OWN = sizeof own / sizeof *own };

static bool set_int(const char *name, const char *arg, long long min, long long max, int *out)
{
    long long v;
    if (!cli_int(name, arg, min, max, &v)) return false;
    *out = (int)v;
    return true;
}

static bool set_protocol(daemon_options *o, const char *arg)
{
    const bool is_json = strcmp(arg, "json") == 0;
    if (!is_json && strcmp(arg, "lines") != 0) {
        fprintf(stderr, "facet daemon: --protocol: '%s' is not lines or json\n", arg);
        return false;
    }
    o->config.protocol = is_json ? DAEMON_JSON : DAEMON_LINES;
    return true;
}

static bool set_samp(daemon_options *o, const char *arg)
{
    facet_error err;
    if (samp_parse(arg, &o->common.sampling, &err) == FACET_OK) return true;
    fprintf(stderr, "facet daemon: --%s\n", err.message);
    return false;
}

static bool set_gpu(daemon_options *o, const char *arg)
{
    int n;
    if (!set_int("target-gpu", arg, 0, 1023, &n)) return false;
    snprintf(o->device, sizeof o->device, "cuda:%d", n);
    o->common.engine.device = o->device;
    return true;
}

/* An option of this command: 1 = taken, 0 = another's, -1 = a wrong value (printed). */
static int own_option(daemon_options *o, int val, const char *arg)
{
    daemon_config *c = &o->config;
    long long n;
    bool ok = true;
    switch (val) {
    case OPT_PROTOCOL: ok = set_protocol(o, arg); break;
    case OPT_STREAM_FD: ok = set_int("stream-fd", arg, 0, INT32_MAX, &c->stream_fd); break;
    case OPT_SESSIONS: ok = set_int("sessions", arg, 1, 64, &c->n_sessions); break;
    case OPT_QUEUE: ok = set_int("queue", arg, 1, 1 << 16, &c->n_queue); break;
    case OPT_MAX_LINE:
        ok = cli_int("max-line", arg, 16, 1LL << 30, &n);
        if (ok) c->max_line = (size_t)n;
        break;
    case OPT_STALL_TIMEOUT: ok = set_int("stall-timeout", arg, 1, 1 << 20, &c->stall_timeout_s); break;
    case OPT_SAMP: ok = set_samp(o, arg); break;
    case OPT_VERBOSE: o->is_verbose = true; break;
    case OPT_CACHE:
        ok = cli_int("cache", arg, 0, 1LL << 30, &n);
        if (ok) o->common.engine.cache_bytes = (uint64_t)n << 20;
        break;
    case OPT_AUTO_UNPARK: o->common.engine.auto_unpark = true; break;
    case OPT_MAX_CTX: ok = set_int("max-ctx", arg, 0, INT32_MAX, &o->common.engine.n_ctx); break;
    case OPT_DDTREE: o->has_tree = true; break;
    case OPT_NO_CHAIN_SEED: o->common.generate.speculation.is_chain_seeded = false; break;
    case OPT_DRAFT_CTX_MAX: ok = set_int("draft-ctx-max", arg, 1, 1 << 24, &o->common.engine.draft_ctx); break;
    case OPT_TARGET_GPU: ok = set_gpu(o, arg); break;
    case OPT_IGNORED: break;
    default: return 0;
    }
    return ok ? 1 : -1;
}

static int take_arguments(daemon_options *o, int argc, char **argv)
{
    if (optind < argc) o->common.model = argv[optind++];
    if (optind < argc && cli_option(&o->common, 290, argv[optind++]) != 1) return EXIT_USAGE;
    if (optind < argc) return cli_usage("daemon", "'%s': a model and a draft model, no more", argv[optind]);
    return EXIT_OK;
}

static int parse(int argc, char **argv, daemon_options *o)
{
    struct option table[96];
    memcpy(table, own, sizeof own);
    const size_t n = N_OWN + cli_long_options(table + N_OWN, CLI_GENERATION);
    table[n] = (struct option){0};
    cli_expand_short(argc, argv);
    for (int c; (c = cli_next_option(argc, argv, "m:c:t:n:h", table)) != -1;) {
        if (c == 'h' || c == OPT_HELP) {
            help();
            return -1;
        }
        const int taken = own_option(o, c, optarg);
        if (taken < 0 || (taken == 0 && cli_option(&o->common, c, optarg) != 1)) return EXIT_USAGE;
    }
    facet_speculation *s = &o->common.generate.speculation;
    if (o->has_tree && s->tree_budget < 0) s->tree_budget = DDTREE_BUDGET;
    return take_arguments(o, argc, argv);
}

/* ---- descriptors and signals ---- */

static int signal_pipe[2];

static void on_signal(int signal)
{
    const int saved = errno;
    const char what = signal == SIGINT ? DAEMON_INTERRUPT : DAEMON_TERMINATE;
    if (write(signal_pipe[1], &what, 1) != 1) _exit(EXIT_FAILED); /* the pipe is full of them */
    errno = saved;
}

static bool catch_signals(void)
{
    if (pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) != 0) return false;
    const struct sigaction interrupt = {.sa_handler = on_signal, .sa_flags = SA_RESTART},
                           terminate = {.sa_handler = on_signal, .sa_flags = SA_RESTART | (int)SA_RESETHAND};
    return sigaction(SIGINT, &interrupt, NULL) == 0 && sigaction(SIGTERM, &terminate, NULL) == 0;
}

static int duplicate(int fd)
{
    const int above_standard = 3;
    return fcntl(fd, F_DUPFD_CLOEXEC, above_standard);
}

/* The protocol takes copies of the standard descriptors. Whatever else writes to standard output reaches standard
 * error, and nobody else reads commands. */
static bool guard_descriptors(daemon_config *c)
{
    c->in_fd = duplicate(STDIN_FILENO);
    c->out_fd = duplicate(STDOUT_FILENO);
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (c->in_fd < 0 || c->out_fd < 0 || null < 0) return false;
    const bool has_stderr = fcntl(STDERR_FILENO, F_GETFD) >= 0;
    const bool ok = dup2(null, STDIN_FILENO) >= 0 && dup2(has_stderr ? STDERR_FILENO : null, STDOUT_FILENO) >= 0 &&
                    (has_stderr || dup2(null, STDERR_FILENO) >= 0);
    close(null);
    return ok;
}

static int check_stream(const daemon_config *c)
{
    if (c->stream_fd < 0) return EXIT_OK;
    const int flags = fcntl(c->stream_fd, F_GETFL);
    if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY)
        return cli_usage("daemon", "--stream-fd: %d is not a descriptor that can be written to", c->stream_fd);
    if (c->stream_fd <= STDERR_FILENO)
        return cli_usage("daemon", "--stream-fd: %d is a standard descriptor, wanted one of its own", c->stream_fd);
    return fcntl(c->stream_fd, F_SETFD, FD_CLOEXEC) == 0 ? EXIT_OK : EXIT_FAILED;
}

/* A client that does not read standard error must not hold the engine up: notes are dropped then. */
static void log_to_stderr(void *ud, facet_log_level level, const char *message)
{
    static const char *const names[] = {"error", "warning", "note", "debug"};
    const bool *is_verbose = ud;
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
    char line[1200];
    if (level > FACET_LOG_WARN && !*is_verbose) return;
    const int n = snprintf(line, sizeof line, "facet daemon: %s: %s\n", names[level], message);
    if (n > 0 && poll(&p, 1, 0) == 1 && write(STDERR_FILENO, line, (size_t)n) < 0) return;
}

/* ---- the command ---- */

static facet_status serve(daemon_options *o, facet_model *m, bool *interrupted, facet_error *err)
{
    facet_engine *engine = NULL;
    if (o->common.engine.n_ctx == UNSET)
        o->common.engine.n_ctx = facet_model_n_ctx(m) < DEFAULT_CTX ? facet_model_n_ctx(m) : DEFAULT_CTX;
    o->common.engine.n_sessions = o->config.n_sessions;
    facet_status status = cli_open_engine(&o->common, m, &engine, err);
    cli_progress_end();
    if (status == FACET_OK) {
        o->config.engine = engine;
        o->config.sampling = o->common.sampling;
        o->config.generate = o->common.generate;
        status = daemon_run(&o->config, interrupted, err);
    }
    cli_close_engine(&o->common, engine);
    return status;
}

int cmd_daemon(int argc, char **argv)
{
    daemon_options o = {.config = daemon_config_default(DAEMON_LINES)};
    cli_options_init(&o.common);
    o.common.engine.n_ctx = UNSET;
    o.common.engine.cache_bytes = (uint64_t)DEFAULT_CACHE_MIB << 20;
    o.common.engine.reuse_prompts = true;
    o.common.keeps_drafters = true;
    if (!cli_options_from_environment(&o.common)) return EXIT_USAGE;
    cli_warn_about_environment();
    const int wrong = parse(argc, argv, &o);
    if (wrong) return wrong < 0 ? EXIT_OK : wrong;
    const int bad_stream = check_stream(&o.config);
    if (bad_stream) return bad_stream;
    facet_error err = {0};
    facet_model *m = NULL;
    bool interrupted = false;
    signal(SIGPIPE, SIG_IGN);
    if (!guard_descriptors(&o.config) || !catch_signals()) {
        fprintf(stderr, "facet daemon: standard input or output: %s\n", strerror(errno));
        return EXIT_FAILED;
    }
    o.config.signal_fd = signal_pipe[0];
    facet_set_log(log_to_stderr, &o.is_verbose);
    facet_status status = cli_open_model(&o.common, &m, &err);
    if (status == FACET_OK) status = serve(&o, m, &interrupted, &err);
    facet_set_log(NULL, NULL);
    facet_model_close(m);
    if (status != FACET_OK) return cli_fail(&err);
    return interrupted ? EXIT_INTERRUPTED : EXIT_OK;
}
