/* chat.c: a conversation whose answers stream, and which another thread can stop: here after a number of milliseconds.
 *
 *     cc chat.c $(pkg-config --cflags --libs facet) -lpthread -o chat
 *     ./chat MODEL.gguf 2000 "Write a story about Mia." "And what is 82 - 61?" */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <facet.h>

/* ---- the thread that stops an answer ---- */

typedef struct watchdog {
    facet_session *session;
    long ms;
    atomic_bool is_done;
} watchdog;

static void *watch(void *arg)
{
    watchdog *w = arg;
    const struct timespec tick = {0, 5 * 1000 * 1000};
    for (long t = 0; t < w->ms && !atomic_load(&w->is_done); t += 5) nanosleep(&tick, NULL);
    if (!atomic_load(&w->is_done)) facet_session_cancel(w->session); /* from any thread; ends within one step */
    return NULL;
}

/* ---- one turn ---- */

typedef struct answer {
    facet_chat_parser *parser;
    facet_error err;
    char text[8192]; /* JSON string of the answer's content */
    size_t n;
} answer;

static size_t put_json(char *out, size_t size, size_t n, const char *s, size_t len)
{
    for (size_t i = 0; i < len && n + 8 < size; i++) {
        if (s[i] == '"' || s[i] == '\\')
            n += (size_t)snprintf(out + n, size - n, "\\%c", s[i]);
        else if ((unsigned char)s[i] < 0x20)
            n += (size_t)snprintf(out + n, size - n, "\\u%04x", s[i]);
        else
            out[n++] = s[i], out[n] = 0;
    }
    return n;
}

static void on_event(void *ud, const facet_chat_event *e)
{
    answer *a = ud;
    if (e->kind == FACET_CHAT_CALL) {
        printf("[calls %.*s %.*s]", (int)e->n, e->text, (int)e->n_arguments, e->arguments);
        return;
    }
    printf(e->kind == FACET_CHAT_THOUGHT ? "(%.*s)" : "%.*s", (int)e->n, e->text);
    fflush(stdout);
    if (e->kind == FACET_CHAT_CONTENT) a->n = put_json(a->text, sizeof a->text, a->n, e->text, e->n);
}

static bool on_token(void *ud, int32_t token, const char *text, size_t n)
{
    answer *a = ud;
    (void)text, (void)n;
    return token < 0 || facet_chat_parser_push(a->parser, token, &a->err) == FACET_OK;
}

/* messages: a JSON array without its closing bracket, to which question and answer are added. */
static facet_status turn(const facet_model *model, facet_session *session, long ms, char *messages, size_t size,
                         const char *question, facet_error *err)
{
    size_t n = strlen(messages), n_text = 0, n_ids = 0;
    char *text = NULL, *request = malloc(size + 2);
    int32_t *ids = NULL;
    answer a = {0};
    watchdog w = {.session = session, .ms = ms};
    pthread_t thread;
    facet_generate_result r;
    facet_generate_params p = facet_generate_params_default();
    const facet_sampling s = facet_sampling_default();
    p.on_token = on_token;
    p.ud = &a;
    n += (size_t)snprintf(messages + n, size - n, "%s{\"role\":\"user\",\"content\":\"", n > 1 ? "," : "");
    n = put_json(messages, size, n, question, strlen(question));
    n += (size_t)snprintf(messages + n, size - n, "\"}");
    snprintf(request, size + 2, "%s]", messages);

    facet_status status = facet_chat_render(model, request, NULL, 0, &text, &n_text, err);
    if (status == FACET_OK) status = facet_tokenize(model, text, n_text, false, true, &ids, &n_ids, err);
    if (status == FACET_OK) status = facet_chat_parser_open(model, text, n_text, on_event, &a, &a.parser, err);
    if (status == FACET_OK) {
        pthread_create(&thread, NULL, watch, &w);
        status = facet_generate(session, ids, n_ids, &s, &p, &r, err);
        atomic_store(&w.is_done, true);
        pthread_join(thread, NULL);
    }
    if (status == FACET_OK) status = facet_chat_parser_finish(a.parser, err);
    /* the session keeps what the next prompt shares with this one: only new tokens are evaluated */
    if (status == FACET_OK)
        printf("\n[%s; %d of %zu prompt tokens evaluated]\n",
               r.stop == FACET_STOP_CANCELLED ? "stopped"
               : r.stop == FACET_STOP_EOS     ? "end"
                                              : "limit",
               (int)r.n_prefill, n_ids);
    snprintf(messages + n, size - n, ",{\"role\":\"assistant\",\"content\":\"%s\"}", a.text);
    facet_chat_parser_close(a.parser);
    facet_free(ids);
    facet_free(text);
    free(request);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: %s MODEL.gguf MILLISECONDS MESSAGE…\n", argv[0]);
        return 2;
    }
    static char messages[1 << 16] = "[";
    facet_error err = {FACET_OK, ""};
    facet_model *model = NULL;
    facet_engine *engine = NULL;
    facet_session *session = NULL;
    facet_engine_params params = facet_engine_params_default();
    params.n_ctx = 4096;

    facet_status status = facet_model_open(argv[1], &model, &err);
    if (status == FACET_OK) status = facet_engine_open(model, &params, &engine, &err);
    if (status == FACET_OK) status = facet_session_open(engine, &session, &err);
    for (int i = 3; i < argc && status == FACET_OK; i++) {
        printf("> %s\n", argv[i]);
        status = turn(model, session, atol(argv[2]), messages, sizeof messages, argv[i], &err);
    }
    if (status != FACET_OK) fprintf(stderr, "%s: %s\n", argv[0], err.message);
    facet_session_close(session);
    facet_engine_close(engine);
    facet_model_close(model);
    return status == FACET_OK ? 0 : 1;
}
