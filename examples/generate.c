/* generate.c: completes a text, and prints what it cost.
 *
 *     cc generate.c $(pkg-config --cflags --libs facet) -o generate
 *     ./generate MODEL.gguf "<bos>Once upon a time" */
#include <stdio.h>
#include <string.h>

#include <facet.h>

static bool print_piece(void *ud, int32_t token, const char *text, size_t n)
{
    (void)ud, (void)token;
    return fwrite(text, 1, n, stdout) == n; /* false stops the generation */
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL.gguf PROMPT\n", argv[0]);
        return 2;
    }
    facet_error err = {FACET_OK, ""};
    facet_model *model = NULL;
    facet_engine *engine = NULL;
    facet_session *session = NULL;
    int32_t *prompt = NULL;
    size_t n = 0;
    facet_engine_params params = facet_engine_params_default();
    params.n_ctx = 4096;
    const facet_sampling sampling = facet_sampling_default(); /* greedy; facet_sampling_of_model() draws */
    facet_generate_params generate = facet_generate_params_default();
    generate.n_predict = 256;
    generate.on_token = print_piece;
    facet_generate_result r;

    facet_status status = facet_model_open(argv[1], &model, &err);
    if (status == FACET_OK) status = facet_engine_open(model, &params, &engine, &err);
    if (status == FACET_OK) status = facet_session_open(engine, &session, &err);
    if (status == FACET_OK) status = facet_tokenize(model, argv[2], strlen(argv[2]), true, true, &prompt, &n, &err);
    if (status == FACET_OK) status = facet_generate(session, prompt, n, &sampling, &generate, &r, &err);
    if (status == FACET_OK)
        printf("\n[%d prompt tokens in %.0f ms, %d generated in %.0f ms]\n", (int)r.n_prefill, r.prefill_ms,
               (int)r.n_tokens, r.decode_ms);
    else
        fprintf(stderr, "%s: %s: %s\n", argv[0], facet_status_name(status), err.message);

    facet_free(prompt);
    facet_session_close(session); /* every close accepts NULL; sessions before engines, engines before models */
    facet_engine_close(engine);
    facet_model_close(model);
    return status == FACET_OK ? 0 : 1;
}
