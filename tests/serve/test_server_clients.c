/* The official client libraries, installed from npm, against a server. The suites are tests/clients/NAME.mjs. Skipped
 * where node, npm or the registry is missing; $FACET_TEST_CLIENTS names a folder in which they are installed already.
 * Beside them random JSON schemas, checked by python3-jsonschema ($FACET_SCHEMAS: how many), nginx in front as
 * docs/server.md has it, and a short form of bench/serve_load.py. */
#define _GNU_SOURCE
#include "testing.h"

#include <sys/wait.h>

#include "server_world.h"

#define PACKAGES "openai@6.49.0 @anthropic-ai/sdk@1.13.0 playwright-core@1.64.1"

static char folder[512];
static bool is_ours;

/* The command's exit status; what it printed goes to out. */
static int run(char *out, size_t n, const char *command)
{
    FILE *f = popen(command, "r");
    assert_non_null(f);
    const size_t got = fread(out, 1, n - 1, f);
    out[got] = 0;
    while (fgetc(f) != EOF) continue;
    const int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The libraries in a folder of their own; why not, or NULL. */
static const char *install(void)
{
    static char why[1024];
    char command[2048], out[512];
    const char *given = getenv("FACET_TEST_CLIENTS");
    if (run(out, sizeof out, "node --version && npm --version") != 0) return "node or npm is not installed";
    is_ours = !given || !*given;
    snprintf(folder, sizeof folder, "%s", is_ours ? "/tmp/facet-clients-XXXXXX" : given);
    if (is_ours && !mkdtemp(folder)) return "no temporary folder";
    snprintf(
        command, sizeof command,
        "cp %s/tests/clients/*.mjs %s/ && cd %s && { test -d node_modules/playwright-core || timeout 900 npm install "
        "--no-package-lock --no-audit --no-fund --prefer-offline --loglevel error " PACKAGES "; } 2>&1 | tail -2",
        FACET_SOURCE_DIR, folder, folder);
    run(out, sizeof out, command);
    snprintf(command, sizeof command,
             "cd %s/node_modules && test -d openai -a -d @anthropic-ai/sdk -a -d playwright-core", folder);
    if (run(why, sizeof why, command) == 0) return NULL;
    snprintf(why, sizeof why, "npm cannot install " PACKAGES ": %s", out);
    why[strcspn(why, "\n")] = 0;
    return why;
}

static int open_clients(void **state)
{
    *state = (void *)(uintptr_t)install();
    return 0;
}

static int close_clients(void **state)
{
    char command[600], out[64];
    (void)state;
    if (!is_ours || !folder[0]) return 0;
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return run(out, sizeof out, command);
}

/* Drafts at every step, whether they pay or not: what a test sees must not depend on the clock. */
static server_config steady_config(void)
{
    server_config c = world_config();
    c.api.speculation.adapt = FACET_ADAPT_OFF;
    return c;
}

static void run_suite(void **state, const char *name)
{
    static const char *const keys[] = {"sesame", NULL};
    static char out[1 << 17];
    char command[1024];
    if (*state) {
        print_message("skipped: %s\n", (const char *)*state);
        skip();
    }
    server_config c = steady_config();
    c.api.keys = keys;
    world w = world_open(c, 1024);
    snprintf(command, sizeof command, "cd %s && FACET_URL=http://127.0.0.1:%d timeout 300 node %s.mjs 2>&1", folder,
             w.port, name);
    const int status = run(out, sizeof out, command);
    if (status != 0) fail_msg("status %d: %s", status, out);
    world_close(&w);
}

static void page(void **state)
{
    char out[512] = "";
    if (!*state && run(out, sizeof out, "command -v chromium") != 0) {
        print_message("skipped: chromium is not installed\n");
        skip();
    }
    out[strcspn(out, "\n")] = 0;
    if (!*state) setenv("CHROMIUM", out, 1);
    run_suite(state, "page");
}

static void openai(void **state)
{
    run_suite(state, "openai");
}

static void anthropic(void **state)
{
    run_suite(state, "anthropic");
}

/* Every answer to a schema fits it, with drafts of every kind; what cannot be guaranteed is refused with its place. */
static void schemas(void **state)
{
    static char out[1 << 17];
    char command[1024];
    (void)state;
    if (run(out, sizeof out, "python3 -W ignore -c 'import jsonschema' 2>&1") != 0) {
        print_message("skipped: python3-jsonschema is not installed\n");
        skip();
    }
    world w = world_open_with(steady_config(), 1024, true);
    snprintf(command, sizeof command,
             "FACET_URL=http://127.0.0.1:%d timeout 1200 python3 -W ignore %s/tests/clients/schemas.py 2>&1", w.port,
             FACET_SOURCE_DIR);
    const int status = run(out, sizeof out, command);
    print_message("%s", out);
    if (status != 0) fail_msg("status %d", status);
    world_close(&w);
}

/* TLS, streams that come at once, large bodies, clients that go. */
static void proxy(void **state)
{
    static char out[1 << 16];
    char command[1024];
    (void)state;
    if (run(out, sizeof out, "PATH=$PATH:/usr/sbin; command -v nginx && command -v openssl && command -v python3") !=
        0) {
        print_message("skipped: nginx, openssl or python3 is not installed\n");
        skip();
    }
    server_config c = world_config();
    c.engine.n_parallel = 1;
    c.api.stream_bytes = 4096;
    c.http.send_buffer_bytes = 8192;
    c.http.stall_timeout_s = 600;
    c.http.ping_s = 1;
    world w = world_open(c, 16384);
    snprintf(command, sizeof command,
             "PATH=$PATH:/usr/sbin FACET_URL=http://127.0.0.1:%d timeout 300 python3 %s/tests/clients/proxy.py 2>&1",
             w.port, FACET_SOURCE_DIR);
    const int status = run(out, sizeof out, command);
    if (status != 0) fail_msg("status %d: %s", status, out);
    world_close(&w);
}

static void load(void **state)
{
    static char out[1 << 16];
    (void)state;
    if (run(out, sizeof out, "python3 --version") != 0) {
        print_message("skipped: python3 is not installed\n");
        skip();
    }
    const int status = run(out, sizeof out,
                           "timeout 300 python3 " FACET_SOURCE_DIR "/bench/serve_load.py --facet " FACET_BINARY_DIR
                           "/facet --seconds 5 --clients 16 --idle 40 --slow 40 -- -m " WORLD_MODEL
                           " --device cpu -t 1 -c 512 --temp 0 --idle-timeout 2 2>&1");
    if (status != 0) fail_msg("status %d: %s", status, out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(openai),  cmocka_unit_test(anthropic), cmocka_unit_test(page),
                                       cmocka_unit_test(schemas), cmocka_unit_test(proxy),     cmocka_unit_test(load)};
    return cmocka_run_group_tests(tests, open_clients, close_clients);
}
