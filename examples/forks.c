/* forks.c: several continuations of one text: it is evaluated once, and the sessions share its cache. With FILE the
 * state after the text is kept there, and taken from there the next time.
 *
 *     cc forks.c $(pkg-config --cflags --libs facet) -o forks
 *     ./forks MODEL.gguf "<bos>Once upon a time" 3 state.snapshot */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <facet.h>

enum { N_TOKENS = 24, MAX_FORKS = 16, SLOT = 0 };

static bool print_piece(void *ud, int32_t token, const char *text, size_t n)
{
    (void)ud, (void)token;
    for (size_t i = 0; i < n; i++) putchar(text[i] == '\n' ? ' ' : text[i]);
    return true;
}

static facet_status continue_from(const facet_session *trunk, uint64_t seed, const facet_model *model,
                                  const int32_t *prompt, size_t n, facet_error *err)
{
    facet_session *branch;
    facet_generate_result r;
    facet_sampling sampling = facet_sampling_of_model(model);
    facet_generate_params p = facet_generate_params_default();
    sampling.seed = seed; /* the same seed gives the same text */
    p.n_predict = N_TOKENS;
    p.ignore_eos = true;
    p.on_token = print_piece;
    facet_status status = facet_session_fork(trunk, &branch, err); /* copies nothing: pages are shared until written */
    if (status != FACET_OK) return status;
    printf("%d: ", (int)seed);
    status = facet_generate(branch, prompt, n, &sampling, &p, &r, err);
    facet_session_close(branch);
    if (status == FACET_OK) printf("\n   [%d prompt tokens evaluated]\n", (int)r.n_prefill);
    return status;
}

/* Brings the session to the prompt: from the file, if there is one that fits, and into it, if there is none. */
static facet_status prepare(facet_engine *engine, facet_session *trunk, const int32_t *prompt, size_t n,
                            const char *file, facet_error *err)
{
    if (file && facet_snapshot_load(engine, SLOT, file, err) == FACET_OK) {
        facet_status status = facet_snapshot_restore(trunk, SLOT, NULL, 0, err);
        if (status != FACET_OK) return status;
        printf("[%d tokens from %s]\n", (int)facet_session_n_tokens(trunk), file);
    } else if (file) {
        printf("[%s: %s]\n", facet_status_name(err->status), err->message);
    }
    /* compares token by token what is there with what is wanted, and evaluates the rest */
    facet_status status = facet_session_sync(trunk, prompt, n, err);
    if (status == FACET_OK && file) status = facet_snapshot_store(trunk, SLOT, 0, -1, "forks", err);
    if (status == FACET_OK && file) status = facet_snapshot_save(engine, SLOT, file, err);
    return status;
}

int main(int argc, char **argv)
{
    const int n_forks = argc == 4 || argc == 5 ? atoi(argv[3]) : 0;
    if (n_forks < 1 || n_forks > MAX_FORKS) {
        fprintf(stderr, "usage: %s MODEL.gguf PROMPT N (1 to %d) [FILE]\n", argv[0], MAX_FORKS);
        return 2;
    }
    facet_error err = {FACET_OK, ""};
    facet_model *model = NULL;
    facet_engine *engine = NULL;
    facet_session *trunk = NULL;
    int32_t *prompt = NULL;
    size_t n = 0;
    facet_engine_params params = facet_engine_params_default();
    params.n_ctx = 2048;
    params.n_sessions = 2;        /* so many can be full at a time; forks that share pages take less */
    params.cache_bytes = 1 << 24; /* room for snapshots beside them */

    facet_status status = facet_model_open(argv[1], &model, &err);
    if (status == FACET_OK) status = facet_engine_open(model, &params, &engine, &err);
    if (status == FACET_OK) status = facet_session_open(engine, &trunk, &err);
    if (status == FACET_OK) status = facet_tokenize(model, argv[2], strlen(argv[2]), true, true, &prompt, &n, &err);
    if (status == FACET_OK) status = prepare(engine, trunk, prompt, n, argc == 5 ? argv[4] : NULL, &err);
    for (int i = 1; i <= n_forks && status == FACET_OK; i++)
        status = continue_from(trunk, (uint64_t)i, model, prompt, n, &err);
    if (status != FACET_OK) fprintf(stderr, "%s: %s\n", argv[0], err.message);
    facet_free(prompt);
    facet_session_close(trunk);
    facet_engine_close(engine);
    facet_model_close(model);
    return status == FACET_OK ? 0 : 1;
}
