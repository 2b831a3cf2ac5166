/* facet chat on a pseudo terminal: editing, history, Ctrl-C, Ctrl-D, colours, the progress bar. */
#define _GNU_SOURCE
#include "testing.h"

#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <termios.h>

#include "file/temp_dir.h"

#include "chat_testing.h"

enum { PATIENCE_MS = 60000 }; /* without a byte: it hangs */

typedef struct terminal {
    int fd;
    pid_t pid;
    size_t n, seen; /* bytes printed so far, and up to what the test has looked at */
    char out[1 << 20];
} terminal;

/* Starts `facet COMMAND -m MODEL --device cpu -t 1 ARGS` (ARGS: separated by single blanks), its history below `state`.
 * in: its standard input, or -1 for the terminal. */
static terminal *start_command(const char *command, const char *args, const char *state, int in)
{
    static terminal t;
    char copy[1024], *argv[40] = {"facet"};
    int n = 1;
    snprintf(copy, sizeof copy, "%s -m %s --device cpu -t 1 %s", command, CHAT_MODEL, args);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) argv[n++] = word;
    const struct winsize size = {.ws_row = 24, .ws_col = 200};
    t = (terminal){0};
    t.pid = forkpty(&t.fd, NULL, NULL, &size);
    assert_true(t.pid >= 0);
    if (t.pid == 0) {
        if (in >= 0) dup2(in, STDIN_FILENO);
        setenv("TERM", "xterm", 1);
        setenv("XDG_STATE_HOME", state, 1);
        setenv("HOME", "/nonexistent", 1);
        execv(FACET_BINARY_DIR "/facet", argv);
        _exit(127);
    }
    return &t;
}

static terminal *start(const char *args, const char *state)
{
    return start_command("chat", args, state, -1);
}

/* More output; false when the program has gone. */
static bool read_more(terminal *t)
{
    struct pollfd p = {.fd = t->fd, .events = POLLIN};
    if (poll(&p, 1, PATIENCE_MS) == 0) {
        kill(t->pid, SIGKILL);
        fail_msg("it hangs after: %s", t->out + (t->n > 800 ? t->n - 800 : 0));
    }
    const ssize_t n = read(t->fd, t->out + t->n, sizeof t->out - 1 - t->n);
    if (n <= 0) return false;
    t->n += (size_t)n;
    t->out[t->n] = 0;
    return true;
}

/* Reads up to a text behind what was seen so far; returns where it begins. */
static char *wait_for(terminal *t, const char *text)
{
    char *at;
    while (!(at = memmem(t->out + t->seen, t->n - t->seen, text, strlen(text))))
        if (!read_more(t)) fail_msg("it ended before '%s': %s", text, t->out + t->seen);
    t->seen = (size_t)(at - t->out) + strlen(text);
    return at;
}

static void type(terminal *t, const char *keys)
{
    assert_int_equal(write(t->fd, keys, strlen(keys)), strlen(keys));
}

/* True when the main thread of the program sleeps. */
static bool is_asleep(pid_t pid)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    read_text(path, line, sizeof line);
    const char *name_end = strrchr(line, ')');
    return name_end && name_end[1] == ' ' && name_end[2] == 'S';
}

/* Waits until the editor is ready: it has written its prompt, taken the terminal out of line mode, and waits for keys.
 */
static void wait_for_prompt(terminal *t, const char *prompt)
{
    struct termios mode;
    wait_for(t, prompt);
    for (;; usleep(1000)) {
        assert_int_equal(tcgetattr(t->fd, &mode), 0);
        if (!(mode.c_lflag & ICANON) && is_asleep(t->pid)) return;
    }
}

static int end(terminal *t)
{
    int status;
    while (read_more(t)) continue;
    close(t->fd);
    assert_int_equal(waitpid(t->pid, &status, 0), t->pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* Ctrl-D at an empty prompt. */
static int leave(terminal *t)
{
    wait_for_prompt(t, "> ");
    type(t, "\x04");
    return end(t);
}

static void lines_are_edited_and_remembered(void **state)
{
    (void)state;
    terminal *t = start("--temp 0", temp_dir);
    wait_for(t, "32768 tokens of context. /help lists the commands");
    wait_for_prompt(t, "> ");
    type(t, "hat is 8 - 60\x7f"
            "1?\001W"); /* erases the 0; to the beginning */
    for (int i = 0; i < 7; i++) type(t, "\033[C");
    type(t, "\033[C2\r"); /* behind the 8 */
    wait_for(t, "82 - 61 = 21.");
    wait_for_prompt(t, "> ");
    type(t, "\033[A\r"); /* the same again */
    wait_for(t, "82 - 61 = 21.");
    wait_for_prompt(t, "> ");
    type(t, "Say this: \xc3\xa9\xc3\xa9\x7f\r"); /* erases one character of two bytes */
    wait_for_prompt(t, "> ");
    char save[600];
    snprintf(save, sizeof save, "/save %s\r", temp_file("saved"));
    type(t, save);
    wait_for(t, "6 messages saved");
    assert_int_equal(leave(t), 0);
    json_t *saved = saved_messages("saved");
    assert_message(saved, 0, "user", "What is 82 - 61?");
    assert_message(saved, 2, "user", "What is 82 - 61?");
    assert_message(saved, 4, "user", "Say this: \xc3\xa9");
    json_decref(saved);

    struct stat st;
    assert_int_equal(stat(temp_file("facet/history"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(temp_file("facet"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    t = start("--temp 0", temp_dir);
    wait_for_prompt(t, "> ");
    type(t, "\033[A\033[A\033[A\r"); /* over /save and the copy */
    wait_for(t, "82 - 61 = 21.");
    assert_int_equal(leave(t), 0);
}

static void without_a_place_there_is_no_history(void **state)
{
    (void)state;
    terminal *t = start("--temp 0", "/proc/nonexistent");
    wait_for_prompt(t, "> ");
    type(t, "What is 9 * 6?\r");
    wait_for(t, "9 * 6 = 54.");
    assert_int_equal(leave(t), 0);
    assert_lacks(t->out, "facet:");
}

static void ctrl_c_at_the_prompt_drops_the_message(void **state)
{
    (void)state;
    terminal *t = start("--temp 0", temp_dir);
    wait_for_prompt(t, "> ");
    type(t, "What is 82 - 61?\x03");
    wait_for_prompt(t, "\n> ");
    type(t, "\"\"\"\r");
    wait_for_prompt(t, "| ");
    type(t, "more\r");
    wait_for_prompt(t, "| ");
    type(t, "and more\x03");
    wait_for_prompt(t, "\n> ");
    type(t, "one\\\r");
    wait_for_prompt(t, "| ");
    type(t, "\x03");
    wait_for_prompt(t, "\n> ");
    type(t, "What is 9 * 6?\r");
    wait_for(t, "9 * 6 = 54.");
    wait_for_prompt(t, "> ");
    type(t, "/stats\r");
    wait_for(t, "turns     1\r\n");
    assert_int_equal(leave(t), 0);
    assert_lacks(t->out, "= 21");
}

static size_t count(const char *from, const char *to, char c)
{
    size_t n = 0;
    for (; from < to; from++) n += *from == c;
    return n;
}

/* The bias makes the model write one letter (token 451, "a") without end. */
static void ctrl_c_stops_an_answer_and_keeps_what_was_shown(void **state)
{
    (void)state;
    terminal *t = start("--temp 0 --logit-bias 451=1000 -n 30000", temp_dir);
    wait_for_prompt(t, "> ");
    type(t, "go\r");
    const char *begin = wait_for(t, "aaaaaaaaaa");
    type(t, "\x03");
    const char *at_end = wait_for(t, "\r\n");
    const size_t n_shown = count(begin, at_end, 'a');
    char save[600];
    snprintf(save, sizeof save, "/save %s\r", temp_file("saved"));
    wait_for_prompt(t, "> ");
    type(t, save);
    wait_for(t, "2 messages saved");
    wait_for_prompt(t, "> ");
    type(t, "/retry\r"); /* the program lives, and can be stopped again */
    wait_for(t, "aaaaaaaaaa");
    type(t, "\x03\x03\x03");
    wait_for_prompt(t, "> ");
    type(t, "/stats\r");
    wait_for(t, "turns     1\r\n");
    assert_int_equal(leave(t), 0);
    json_t *saved = saved_messages("saved");
    const char *content = message_field(saved, 1, "content");
    assert_int_equal(strspn(content, "a"), strlen(content));
    assert_int_equal(strlen(content), n_shown);
    assert_true(n_shown < 30000);
    json_decref(saved);
}

/* The blanks that wipe out "prefill [" and the rest of the bar. */
static const char erased[] = "\r                                         \r";

/* A file of one turn; 1000 repetitions are 15 thousand tokens. */
static void write_long_talk(const char *path, int n_repetitions)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("[{\"role\": \"user\", \"content\": \"", f);
    for (int i = 0; i < n_repetitions; i++) fputs("The yellow bell was on the table. A frog sat near the valley. ", f);
    fputs("\"}, {\"role\": \"assistant\", \"content\": \"Yes.\"}]\n", f);
    fclose(f);
}

static void a_long_prompt_has_a_bar_and_can_be_stopped(void **state)
{
    (void)state;
    char load[600];
    write_long_talk(temp_file("long"), 1000);
    snprintf(load, sizeof load, "/load %s\r", temp_file("long"));
    terminal *t = start("--temp 0", temp_dir);
    wait_for_prompt(t, "> ");
    type(t, load);
    wait_for(t, "2 messages loaded: ");
    wait_for_prompt(t, "> ");
    type(t, "What is 9 * 6?\r");
    wait_for(t, "\rprefill [                         ]   0 %");
    type(t, "\x03");
    wait_for(t, erased); /* before anything else is written */
    wait_for(t, "facet: stopped before the answer began");
    wait_for_prompt(t, "> ");
    type(t, "/stats\r"); /* as if it had not been said */
    wait_for(t, "turns     1\r\n");
    wait_for_prompt(t, "> ");
    type(t, "/reset\r");
    wait_for_prompt(t, "> ");
    type(t, "What is 9 * 6?\r");
    char *question = wait_for(t, "What is 9 * 6?\r\n");
    wait_for(t, "9 * 6 = 54.");
    assert_null(strstr(question, "prefill")); /* too short for a bar */
    assert_int_equal(leave(t), 0);
}

static void a_bar_is_gone_before_the_text_of_facet_run(void **state)
{
    (void)state;
    char args[600];
    write_long_talk(temp_file("long"), 100);
    snprintf(args, sizeof args, "-n 4 -f %s", temp_file("long"));
    terminal *t = start_command("run", args, temp_dir, -1);
    wait_for(t, "\rprefill [                         ]   0 %");
    wait_for(t, "\rprefill [#");
    const char *text = wait_for(t, erased) + strlen(erased);
    assert_int_equal(end(t), 0);
    assert_lacks(text, "prefill");
    assert_true(strlen(text) > 2);
}

/* Lines from a pipe: Ctrl-C ends an answer, and the program while it waits for a line. */
static void ctrl_c_without_an_editor(void **state)
{
    (void)state;
    int in[2];
    assert_int_equal(pipe(in), 0);
    terminal *t = start_command("chat", "--temp 0 --logit-bias 451=1000 -n 30000", temp_dir, in[0]);
    close(in[0]);
    assert_int_equal(write(in[1], "go\nagain\n", 9), 9);
    wait_for(t, "aaaaaaaaaa");
    type(t, "\x03");
    wait_for(t, "\r\naaaaaaaaaa");
    type(t, "\x03");
    assert_int_equal(write(in[1], "/stats\n", 7), 7);
    wait_for(t, "turns     2\r\n");
    while (!is_asleep(t->pid)) usleep(1000);
    type(t, "\x03");
    assert_int_equal(end(t), 1000 + SIGINT);
    assert_lacks(t->out, "> ");
    close(in[1]);
}

static void the_bar_is_gone_before_the_answer(void **state)
{
    (void)state;
    terminal *t = start("--temp 0", temp_dir);
    wait_for_prompt(t, "> ");
    for (int i = 0; i < 20; i++) type(t, "The yellow bell was on the table. ");
    type(t, "\r");
    wait_for(t, "\rprefill [");
    const char *answer = wait_for(t, erased) + strlen(erased);
    assert_null(strstr(answer, "prefill"));
    assert_int_equal(leave(t), 0);
}

static void a_thought_is_dimmed_unless_colours_are_unwanted(void **state)
{
    (void)state;
    static const char dimmed[] = "\033[2mI compute the result: 82 - 61 = 21.\033[0m\r\n82 - 61 = 21.\r\n";
    terminal *t = start("--temp 0 --think", temp_dir);
    wait_for_prompt(t, "> ");
    type(t, "What is 82 - 61?\r");
    wait_for(t, dimmed);
    assert_int_equal(leave(t), 0);
    setenv("NO_COLOR", "1", 1);
    t = start("--temp 0 --think", temp_dir);
    wait_for_prompt(t, "> ");
    type(t, "What is 82 - 61?\r");
    wait_for(t, "[thought]\r\nI compute the result: 82 - 61 = 21.\r\n[/thought]\r\n82 - 61 = 21.\r\n");
    assert_int_equal(leave(t), 0);
    assert_lacks(t->out, "\033[2m");
    setenv("NO_COLOR", "", 1); /* empty counts as not set */
    t = start("--temp 0 --think", temp_dir);
    wait_for_prompt(t, "> ");
    type(t, "What is 82 - 61?\r");
    wait_for(t, dimmed);
    assert_int_equal(leave(t), 0);
    unsetenv("NO_COLOR");
}

/* A model must not be able to steer the terminal. */
static void control_characters_do_not_reach_the_terminal(void **state)
{
    (void)state;
    char args[256];
    int32_t escape = -1;
    assert_int_equal(sscanf(run_facet("tokenize", "--no-bos", "\033", 1)->out, "%d", &escape), 1);
    snprintf(args, sizeof args, "--temp 0 -n 3 --logit-bias %d=1000", escape);
    terminal *t = start(args, temp_dir);
    wait_for_prompt(t, "> ");
    type(t, "go\r");
    wait_for(t, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\r\n");
    assert_int_equal(leave(t), 0);
    const printed *p = chat_with(args, "go\n"); /* a file gets what the model wrote */
    assert_string_equal(p->out, "\033\033\033\n");
}

/* The history must be all that was left in its folder. */
static int remove_all(void **state)
{
    remove(temp_file("facet/history"));
    return rmdir(temp_file("facet")) || temp_dir_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_edited_and_remembered),
        cmocka_unit_test(without_a_place_there_is_no_history),
        cmocka_unit_test(ctrl_c_at_the_prompt_drops_the_message),
        cmocka_unit_test(ctrl_c_stops_an_answer_and_keeps_what_was_shown),
        cmocka_unit_test(a_long_prompt_has_a_bar_and_can_be_stopped),
        cmocka_unit_test(a_bar_is_gone_before_the_text_of_facet_run),
        cmocka_unit_test(ctrl_c_without_an_editor),
        cmocka_unit_test(the_bar_is_gone_before_the_answer),
        cmocka_unit_test(a_thought_is_dimmed_unless_colours_are_unwanted),
        cmocka_unit_test(control_characters_do_not_reach_the_terminal),
    };
    return cmocka_run_group_tests_name("chat_terminal", tests, temp_dir_make, remove_all);
}
