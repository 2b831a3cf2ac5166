/* The daemon is killed (SIGKILL) while it writes snapshots, in turns at random moments and with a file half written.
 * Afterwards each file holds one whole state: at least as new as the last one that the daemon said was written, and
 * another daemon goes on from it with the right tokens. FACET_KILLS=200 for the long form. */
#define _GNU_SOURCE
#include "serve/daemon_events.h"

#include <sys/inotify.h>

#include "base/rng.h"

enum {
    N_TEXTS = 2,
    N_FILES = 3,
    N_MORE = 8,
    N_WRITES = 60,
    DEFAULT_KILLS = 20,
    WRITES_ARE_OVER_MS = 3000,
    PATH_ROOM = 600
};

static char texts[N_TEXTS][1 << 12];   /* prompts: "[2,...]" */
static int n_tokens[N_TEXTS];          /* of them */
static int32_t right[N_TEXTS][N_MORE]; /* what comes behind them */
static int newest[N_FILES];            /* the last write that the daemon said was done; its number is the label */
static int last_sent;

static child start(void)
{
    static const char *const args[] = {FACET,     "daemon", "-m",         MODEL,  "-md",  MTP,          "--device",
                                       "cpu",     "-t",     "1",          "-c",   "1024", "--sessions", "3",
                                       "--cache", "8",      "--protocol", "json", NULL};
    child c = child_start(false, NULL, args);
    expect_kind(&c, "ready");
    return c;
}

static void file_of(int i, char path[PATH_ROOM])
{
    snprintf(path, PATH_ROOM, "%s/file%d", temp_dir, i);
}

static void generate(child *c, int session, int text, int32_t got[N_MORE])
{
    size_t i;
    json_t *t;
    child_send(c,
               "{\"id\":\"g\",\"op\":\"generate\",\"session\":%d,\"stream\":false,\"ignore_eos\":true,"
               "\"n_predict\":%d,\"tokens\":%s}",
               session, N_MORE, texts[text]);
    json_t *o = expect(c, "g", "done"), *ids = json_object_get(o, "tokens");
    assert_int_equal(json_array_size(ids), N_MORE);
    json_array_foreach(ids, i, t) got[i] = (int32_t)json_integer_value(t);
    json_decref(o);
}

/* Both texts in their sessions, and the first write of every file. */
static void prepare(child *c)
{
    char path[PATH_ROOM];
    for (int t = 0; t < N_TEXTS; t++) {
        n_tokens[t] = 200 + 57 * t;
        size_t n = (size_t)snprintf(texts[t], sizeof texts[t], "[2");
        for (int i = 1; i < n_tokens[t]; i++)
            n += (size_t)snprintf(texts[t] + n, sizeof texts[t] - n, ",%d", 300 + (i * (7 + t) + t) % 1500);
        snprintf(texts[t] + n, sizeof texts[t] - n, "]");
        generate(c, t, t, right[t]);
        child_send(c, "{\"id\":\"s\",\"op\":\"snapshot\",\"slot\":%d,\"session\":%d,\"tokens\":%d}", t, t, n_tokens[t]);
        json_decref(expect(c, "s", "result"));
    }
    for (int t = 0; t < N_TEXTS; t++) {
        child_send(c, "{\"id\":\"w\",\"op\":\"save_snapshot\",\"slot\":%d,\"path\":\"%s/text%d\"}", t, temp_dir, t);
        json_decref(expect(c, "w", "result"));
    }
    for (int i = 0; i < N_FILES; i++) {
        file_of(i, path);
        child_send(c, "{\"id\":\"w\",\"op\":\"save_snapshot\",\"slot\":0,\"path\":\"%s\"}", path);
        json_decref(expect(c, "w", "result"));
    }
}

/* Number of the write that a file holds: its snapshot, loaded, must go on with the right tokens. */
static int look(child *c, int file)
{
    int32_t got[N_MORE];
    char path[PATH_ROOM];
    file_of(file, path);
    child_send(c, "{\"id\":\"l\",\"op\":\"load_snapshot\",\"slot\":9,\"path\":\"%s\"}", path);
    json_t *o = expect(c, "l", "result"), *r = json_object_get(o, "result");
    const int number = atoi(text_of(r, "label")), text = number % N_TEXTS;
    assert_int_equal(int_of(r, "tokens"), n_tokens[text]);
    json_decref(o);
    child_send(c, "{\"id\":\"r\",\"op\":\"restore\",\"slot\":9,\"session\":2}");
    o = expect(c, "r", "result");
    assert_int_equal(int_of(json_object_get(o, "result"), "tokens"), n_tokens[text]);
    json_decref(o);
    generate(c, 2, text, got);
    assert_memory_equal(got, right[text], sizeof got);
    return number;
}

/* Sends writes to the files in turn: write k keeps text k % N_TEXTS in a slot, with k as its label, and saves that. */
static void send_writes(child *c)
{
    char path[PATH_ROOM];
    for (int t = 0; t < N_TEXTS; t++) {
        child_send(c, "{\"id\":\"l\",\"op\":\"load_snapshot\",\"slot\":%d,\"path\":\"%s/text%d\"}", t, temp_dir, t);
        json_decref(expect(c, "l", "result"));
        child_send(c, "{\"id\":\"r\",\"op\":\"restore\",\"slot\":%d,\"session\":%d}", t, t);
        json_decref(expect(c, "r", "result"));
    }
    for (int i = 0; i < N_WRITES / 2; i++) {
        const int k = ++last_sent, t = k % N_TEXTS;
        file_of(k % N_FILES, path);
        child_send(c, "{\"id\":\"k\",\"op\":\"snapshot\",\"slot\":%d,\"session\":%d,\"label\":\"%d\"}", t, t, k);
        child_send(c, "{\"id\":%d,\"op\":\"save_snapshot\",\"slot\":%d,\"path\":\"%s\"}", k, t, path);
    }
}

/* Takes an event of the writes. */
static void take_event(child *c)
{
    json_t *o = event(c);
    assert_non_null(o);
    if (strcmp(text_of(o, "event"), "result") != 0) dump(o);
    assert_string_equal(text_of(o, "event"), "result");
    if (json_is_integer(json_object_get(o, "id"))) {
        const int k = (int)int_of(o, "id");
        newest[k % N_FILES] = k;
    }
    json_decref(o);
}

/* What it had said already; its last line may be cut. */
static void take_rest(child *c)
{
    for (;;) {
        if (memchr(c->rest, '\n', c->n_rest)) {
            take_event(c);
            continue;
        }
        const ssize_t n = read(c->out, c->rest + c->n_rest, sizeof c->rest - c->n_rest);
        if (n <= 0) return;
        c->n_rest += (size_t)n;
    }
}

static int count_left_behind(void)
{
    DIR *d = opendir(temp_dir);
    int n = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) n += strstr(e->d_name, ".tmp-") != NULL;
    closedir(d);
    return n;
}

static void wait_at_random(child *c, rng *r)
{
    const int n_events = 2 + (int)rng_below(r, N_WRITES - 4);
    for (int i = 0; i < n_events; i++) take_event(c);
    nanosleep(&(struct timespec){.tv_nsec = (long)rng_below(r, 4000) * 1000}, NULL);
}

/* The path of the next file that somebody begins to write; false when that is over. */
static bool next_begun(int watch, char *path, size_t size)
{
    union {
        struct inotify_event event;
        char bytes[sizeof(struct inotify_event) + NAME_MAX + 1];
    } room;
    if (!wait_readable(watch, WRITES_ARE_OVER_MS)) return false;
    assert_true(read(watch, &room, sizeof room) > 0); /* a file name a read, or a few: the first is the oldest */
    snprintf(path, size, "%s/%s", temp_dir, room.event.name);
    return true;
}

/* Stops the daemon whenever it has begun a file, after some that are left in peace, until it stands with the file half
 * written: not renamed yet. */
static void wait_in_a_file(child *c, rng *r, int watch)
{
    char path[PATH_ROOM];
    int status, n_spared = (int)rng_below(r, N_WRITES / 3);
    while (next_begun(watch, path, sizeof path)) {
        if (n_spared-- > 0) continue;
        kill(c->pid, SIGSTOP);
        assert_int_equal(waitpid(c->pid, &status, WUNTRACED), c->pid);
        if (access(path, F_OK) == 0) break;
        kill(c->pid, SIGCONT);
    }
}

static void kill_it(child *c)
{
    kill(c->pid, SIGKILL);
    take_rest(c);
    assert_int_equal(child_wait(c), 128 + SIGKILL);
}

static void every_file_is_old_or_new(void **state)
{
    (void)state;
    const char *wanted = getenv("FACET_KILLS");
    const int n_kills = wanted ? atoi(wanted) : DEFAULT_KILLS;
    int n_newer = 0, n_same = 0;
    rng r;
    rng_seed(&r, 31);
    child c = start();
    prepare(&c);
    assert_int_equal(child_finish(&c), 0);
    for (int i = 0; i < n_kills; i++) {
        c = start();
        const int watch = inotify_init1(IN_CLOEXEC);
        assert_true(watch >= 0 && inotify_add_watch(watch, temp_dir, IN_CREATE) >= 0);
        send_writes(&c);
        if (i % 2)
            wait_in_a_file(&c, &r, watch);
        else
            wait_at_random(&c, &r);
        kill_it(&c);
        close(watch);
        c = start();
        for (int f = 0; f < N_FILES; f++) {
            const int number = look(&c, f);
            if (number < newest[f] || number > last_sent || (number && number % N_FILES != f))
                fail_msg("kill %d: file %d holds write %d; %d was done, %d sent", i, f, number, newest[f], last_sent);
            n_newer += number > newest[f];
            n_same += number == newest[f];
            newest[f] = number;
        }
        assert_int_equal(child_finish(&c), 0);
    }
    const int n_cut = count_left_behind();
    print_message("%d kills, %d files each: %d as the last reply said, %d newer; %d kills in the middle of a file\n",
                  n_kills, N_FILES, n_same, n_newer, n_cut);
    assert_true(n_cut > 0);
}

static int begin(void **state)
{
    signal(SIGPIPE, SIG_IGN);
    return temp_dir_make(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_file_is_old_or_new)};
    return cmocka_run_group_tests_name("daemon, killed", tests, begin, temp_dir_remove);
}
