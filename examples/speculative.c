/* speculative.c: the same text with and without a draft model, and what the drafts did.
 *
 *     cc speculative.c $(pkg-config --cflags --libs facet) -o speculative
 *     ./speculative MODEL.gguf DRAFTER.gguf "<bos><|turn>user\nWhat is 82 - 61?<turn|>\n<|turn>model\n" */
#include <stdio.h>
#include <string.h>

#include <facet.h>

enum { MAX_TOKENS = 256 };

typedef struct output {
    int32_t token[MAX_TOKENS];
    int n;
} output;

static bool keep(void *ud, int32_t token, const char *text, size_t n)
{
    output *o = ud;
    (void)text, (void)n;
    if (token >= 0 && o->n < MAX_TOKENS) o->token[o->n++] = token;
    return true;
}

static facet_status run(facet_engine *engine, facet_spec_method method, const int32_t *prompt, size_t n, output *out,
                        facet_error *err)
{
    facet_session *session;
    facet_generate_result r;
    const facet_sampling sampling = facet_sampling_default();
    facet_generate_params p = facet_generate_params_default();
    p.n_predict = MAX_TOKENS;
    p.on_token = keep;
    p.ud = out;
    p.speculation = facet_speculation_default(method);
    facet_status status = facet_session_open(engine, &session, err);
    if (status != FACET_OK) return status;
    status = facet_generate(session, prompt, n, &sampling, &p, &r, err);
    facet_session_close(session);
    if (status != FACET_OK) return status;
    printf("%s: %d tokens in %.1f ms, %.2f per step; %llu of %llu drafts accepted; by position:",
           facet_spec_method_name(method), (int)r.n_tokens, r.decode_ms, r.spec.mean_accepted,
           (unsigned long long)r.spec.accepted, (unsigned long long)r.spec.drafted);
    for (int i = 0; i < FACET_SPEC_DEPTHS && r.spec.reached[i]; i++) printf(" %.2f", r.spec.acceptance[i]);
    printf("\n");
    return FACET_OK;
}

static facet_status compare(const facet_model *model, facet_engine *engine, facet_spec_method method, const char *text,
                            facet_error *err)
{
    int32_t *prompt;
    size_t n;
    output plain = {{0}, 0}, drafted = {{0}, 0};
    facet_status status = facet_tokenize(model, text, strlen(text), true, true, &prompt, &n, err);
    if (status != FACET_OK) return status;
    status = run(engine, FACET_SPEC_NONE, prompt, n, &plain, err);
    if (status == FACET_OK) status = run(engine, method, prompt, n, &drafted, err);
    facet_free(prompt);
    if (status != FACET_OK) return status;
    const bool is_same =
        plain.n == drafted.n && memcmp(plain.token, drafted.token, (size_t)plain.n * sizeof *plain.token) == 0;
    printf("%s\n", is_same ? "the tokens are the same" : "THE TOKENS DIFFER");
    return FACET_OK;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: %s MODEL.gguf DRAFTER.gguf PROMPT\n", argv[0]);
        return 2;
    }
    facet_error err = {FACET_OK, ""};
    facet_model *model = NULL;
    facet_drafter *drafter = NULL;
    facet_engine *engine = NULL;
    facet_engine_params params = facet_engine_params_default();
    facet_spec_method method = FACET_SPEC_NONE;
    params.n_ctx = 4096;
    params.n_sessions = 2;

    facet_status status = facet_model_open(argv[1], &model, &err);
    if (status == FACET_OK) status = facet_drafter_open(argv[2], model, &drafter, &err);
    if (status == FACET_OK) {
        params.drafters = &drafter;
        params.n_drafters = 1;
        facet_spec_method_by_name(facet_drafter_kind(drafter), &method);
        status = facet_engine_open(model, &params, &engine, &err);
    }
    if (status == FACET_OK) status = compare(model, engine, method, argv[3], &err);
    if (status != FACET_OK) fprintf(stderr, "%s: %s\n", argv[0], err.message);
    facet_engine_close(engine);
    facet_drafter_close(drafter); /* after the engine that uses it */
    facet_model_close(model);
    return status == FACET_OK ? 0 : 1;
}
