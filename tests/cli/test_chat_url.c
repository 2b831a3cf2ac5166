/* facet chat --url: a conversation with a server. */
#define _GNU_SOURCE
#include "testing.h"

#include <signal.h>
#include <sys/wait.h>

#include "file/temp_dir.h"
#include "serve/server_world.h"

#include "cli/chat_testing.h"

/* `facet chat --url ...` with input as its standard input. */
static const printed *talk(const world *w, const char *args, const char *input)
{
    static printed p;
    char line[2048], in[512], out[512], err[512];
    snprintf(in, sizeof in, "%s", temp_file("in"));
    snprintf(out, sizeof out, "%s", temp_file("out"));
    snprintf(err, sizeof err, "%s", temp_file("err"));
    write_file(in, input, strlen(input));
    snprintf(line, sizeof line, "FACET_MODEL=/nonexistent %s/facet chat --url http://127.0.0.1:%d %s <%s >%s 2>%s",
             FACET_BINARY_DIR, w->port, args, in, out, err);
    const int status = system(line);
    p.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    read_text(out, p.out, sizeof p.out);
    read_text(err, p.err, sizeof p.err);
    return &p;
}

static void a_conversation(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    char input[1024];
    snprintf(input, sizeof input, "What is 82 - 61?\nWhich month comes after June?\n/stats\n/save %s\n",
             temp_file("saved"));
    const printed *p = talk(&w, "", input);
    assert_int_equal(p->status, 0);
    assert_begins(p->out, "82 - 61 = 21.\nThe month after June is July.\n");
    assert_contains(p->out, "turns     2\n");
    assert_contains(p->out, "decode    ");
    assert_lacks(p->out, "memory");
    json_t *m = saved_messages("saved");
    assert_int_equal(json_array_size(m), 4);
    assert_message(m, 3, "assistant", "The month after June is July.");
    json_decref(m);
    snprintf(input, sizeof input, "/load %s\n/retry\n", temp_file("saved"));
    p = talk(&w, "", input);
    assert_string_equal(p->out, "4 messages loaded\nThe month after June is July.\n");
    world_close(&w);
}

static void thoughts_settings_and_stop_texts(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    const printed *p = talk(&w, "--think", "What is 82 - 61?\n");
    assert_string_equal(p->out, "[thought]\nI compute the result: 82 - 61 = 21.\n[/thought]\n82 - 61 = 21.\n");
    p = talk(&w, "--stop ' ='", "What is 82 - 61?\n");
    assert_string_equal(p->out, "82 - 61\n");
    p = talk(&w, "-n 2", "What is 82 - 61?\n");
    assert_string_equal(p->out, "82\n");
    assert_contains(p->err, "the answer is cut at its limit of tokens");
    p = talk(&w, "--temp 3 --seed 5 -n 12", "Tell me a story.\n");
    static char first[sizeof p->out];
    memcpy(first, p->out, sizeof first);
    assert_string_equal(talk(&w, "--temp 3 --seed 5 -n 12", "Tell me a story.\n")->out, first);
    world_close(&w);
}

static void what_the_server_says(void **state)
{
    static const char *const keys[] = {"sesame", NULL};
    (void)state;
    server_config c = world_config();
    c.api.keys = keys;
    world w = world_open(c, 1024);
    const printed *p = talk(&w, "", "x\n");
    assert_int_equal(p->status, 2);
    assert_contains(p->err, "status 401: this server wants an API key");
    p = talk(&w, "--api-key sesame", "What is 82 - 61?\n");
    assert_string_equal(p->out, "82 - 61 = 21.\n");
    p = talk(&w, "--api-key sesame -n 5000", "x\n");
    assert_int_equal(p->status, 1);
    assert_contains(p->err, "status 400: This model's maximum context length is 1024 tokens.");
    p = talk(&w, "-m x", "x\n");
    assert_int_equal(p->status, 2);
    assert_contains(p->err, "--url and -m exclude each other");
    const int port = w.port;
    world_close(&w);
    w.port = port;
    p = talk(&w, "", "x\n");
    assert_int_equal(p->status, 1);
    assert_contains(p->err, "/v1/models: Couldn't connect to server");
    char line[512];
    snprintf(line, sizeof line, FACET_BINARY_DIR "/facet chat --url ftp://x </dev/null 2>/dev/null");
    assert_int_equal(WEXITSTATUS(system(line)), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_conversation),
        cmocka_unit_test(thoughts_settings_and_stop_texts),
        cmocka_unit_test(what_the_server_says),
    };
    return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
