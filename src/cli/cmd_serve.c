/* cmd_serve.c: facet serve: the model behind an HTTP server, until SIGTERM or SIGINT. */
#include "cli/cmd_serve.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/clock.h"

typedef struct service {
    serve_arguments args;
    facet_model *model;
    facet_engine *engine;
    server *server;
    char alias[256];
} service;

/* ---- log ---- */

static void print_json_string(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') fputc('\\', f);
        fputc((unsigned char)*s < 0x20 ? ' ' : *s, f);
    }
    fputc('"', f);
}

/* facet_log_fn; called by several threads. */
static void write_log(void *ud, facet_log_level level, const char *message)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    const service *s = ud;
    struct timespec now;
    struct tm tm;
    char when[32];
    if (s->args.is_quiet || level == FACET_LOG_DEBUG) return;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    flockfile(stderr);
    if (s->args.is_log_json) {
        fprintf(stderr, "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"message\":", when, now.tv_nsec / 1000000,
                names[level]);
        print_json_string(stderr, message);
        fputs("}\n", stderr);
    } else {
        fprintf(stderr, "%s %s %s\n", when, names[level], message);
    }
    funlockfile(stderr);
}

/* ---- set-up ---- */

static void choose_sampling(service *s)
{
    const cli_options *o = &s->args.common;
    const facet_sampling own = facet_sampling_of_model(s->model);
    facet_sampling *to = &s->args.server.api.sampling;
    *to = o->sampling;
    to->bias = o->bias;
    if (!o->has_temp) to->temperature = own.temperature;
    if (!o->has_top_k) to->top_k = own.top_k;
    if (!o->has_top_p) to->top_p = own.top_p;
    s->args.server.api.has_seed = o->has_seed;
}

/* The file's name without its folder and ".gguf". */
static void choose_alias(service *s)
{
    const char *path = cli_model_path(&s->args.common), *slash = strrchr(path, '/');
    snprintf(s->alias, sizeof s->alias, "%s", s->args.alias ? s->args.alias : slash ? slash + 1 : path);
    char *dot = strrchr(s->alias, '.');
    if (!s->args.alias && dot && strcmp(dot, ".gguf") == 0) *dot = 0;
    s->args.server.api.model_id = s->alias;
}

/* A connection is a file descriptor, and the limit of those is often low unless asked for. */
static void raise_file_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur == r.rlim_max) return;
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
}

static facet_status check_file_limit(int n_connections, facet_error *err)
{
    enum { OTHERS = 64 };
    struct rlimit r;
    raise_file_limit();
    if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur == RLIM_INFINITY ||
        r.rlim_cur >= (rlim_t)n_connections + OTHERS)
        return FACET_OK;
    err->status = FACET_ERR_LIMIT;
    snprintf(err->message, sizeof err->message,
             "--max-connections %d: the system allows %llu open files: want at least %d (ulimit -n)", n_connections,
             (unsigned long long)r.rlim_cur, n_connections + OTHERS);
    return FACET_ERR_LIMIT;
}

static facet_status open_service(service *s, facet_error *err)
{
    server_config *c = &s->args.server;
    cli_options *o = &s->args.common;
    facet_status status = check_file_limit(c->http.max_connections, err);
    if (status == FACET_OK) status = serve_read_keys(&s->args, err);
    if (status == FACET_OK) status = cli_open_model(o, &s->model, err);
    if (status != FACET_OK) return status;
    choose_sampling(s);
    choose_alias(s);
    o->engine.n_sessions = c->engine.n_parallel;
    o->engine.reuse_prompts = true;
    o->keeps_drafters = true;
    o->engine.cache_bytes = (uint64_t)s->args.cache_mb << 20;
    status = cli_open_engine(o, s->model, &s->engine, err);
    if (status != FACET_OK) return status;
    c->api.model = s->model;
    c->api.speculation = o->generate.speculation;
    if (c->api.max_tokens < 0) c->api.max_tokens = o->generate.n_predict;
    c->api.keys = s->args.n_keys ? s->args.keys : NULL;
    c->engine.engine = s->engine;
    return server_open(c, &s->server, err);
}

static void close_service(service *s)
{
    server_close(s->server);
    cli_close_engine(&s->args.common, s->engine);
    facet_model_close(s->model);
    serve_free_keys(&s->args);
}

/* ---- running ---- */

/* SIGTERM and SIGINT end the server, SIGHUP lets it read its keys again. */
static const sigset_t *signals(void)
{
    static sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    return &set;
}

static void reload(service *s)
{
    facet_error err;
    facet_status status = serve_read_keys(&s->args, &err);
    if (status == FACET_OK) status = server_set_keys(s->server, s->args.n_keys ? s->args.keys : NULL, &err);
    if (status == FACET_OK)
        fprintf(stderr, "facet: %d keys\n", s->args.n_keys);
    else
        fprintf(stderr, "facet: the old keys hold: %s\n", err.message);
}

/* True: the server is to end. */
static bool wait_signal(service *s, int ms)
{
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    const int signal = sigtimedwait(signals(), NULL, &t);
    if (signal == SIGHUP) reload(s);
    return signal == SIGTERM || signal == SIGINT;
}

/* What runs may end within the time of grace, unless a second signal comes. */
static void drain(service *s)
{
    const uint64_t until = clock_ns() + (uint64_t)s->args.grace_s * 1000000000u;
    fprintf(stderr, "facet: shutting down: running answers have %d s (again to cut them)\n", s->args.grace_s);
    server_drain(s->server);
    while (!server_is_idle(s->server) && clock_ns() < until)
        if (wait_signal(s, 50)) break;
}

static void serve(service *s)
{
    const http_config *h = &s->args.server.http;
    fprintf(stderr, "facet: %s, %d tokens of context, %d texts at a time: http://%s:%d\n", s->alias,
            facet_engine_n_ctx(s->engine), s->args.server.engine.n_parallel, h->host, server_port(s->server));
    while (!wait_signal(s, 1000)) continue;
    drain(s);
}

static int run(service *s)
{
    facet_error err = {0};
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
    pthread_sigmask(SIG_BLOCK, signals(), NULL); /* also of all threads to come */
    facet_set_log(write_log, s);
    const facet_status status = open_service(s, &err);
    if (status == FACET_OK) serve(s);
    close_service(s);
    facet_set_log(NULL, NULL);
    return status == FACET_OK ? EXIT_OK : cli_fail(&err);
}

int cmd_serve(int argc, char **argv)
{
    static service s;
    s.args = (serve_arguments){.server = server_config_default(), .grace_s = 30, .cache_mb = 512};
    cli_options_init(&s.args.common);
    s.args.common.sampling.penalty_last_n = 256;
    const int wrong = serve_parse(argc, argv, &s.args);
    if (wrong) return wrong < 0 ? EXIT_OK : wrong;
    return run(&s);
}
