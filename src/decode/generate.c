/* generate.c: one text by itself. */
#include "decode/generate.h"

#include "base/clock.h"
#include "decode/generation.h"

facet_generate_params facet_generate_params_default(void)
{
    return (facet_generate_params){.struct_size = sizeof(facet_generate_params), .n_predict = -1};
}

facet_sampling facet_sampling_of_model(const facet_model *m)
{
    facet_sampling s = facet_sampling_default();
    s.temperature = m->h.sampling_temp;
    s.top_k = m->h.sampling_top_k;
    s.top_p = m->h.sampling_top_p;
    return s;
}

static facet_status step(generation *g, engine_part *part, facet_error *err)
{
    facet_session *s = generation_session(g);
    const uint64_t t0 = clock_ns();
    engine_step_begin(s->engine);
    FACET_TRY(session_add(s, part, err));
    FACET_TRY(engine_step_run(s->engine, NULL, err));
    FACET_TRY(generation_read(g, (double)(clock_ns() - t0) * 1e-6, false, err));
    return generation_take(g, err);
}

static facet_status run(generation *g, facet_error *err)
{
    while (!generation_is_over(g)) {
        engine_part *part;
        FACET_TRY(generation_plan(g, ENGINE_MAX_ROWS, ENGINE_MAX_OUT, &part, err));
        if (part) FACET_TRY(step(g, part, err));
    }
    return FACET_OK;
}

facet_status generate_with(facet_session *s, const int32_t *prompt, size_t n_prompt, const facet_sampling *sampling,
                           const facet_generate_params *p, const strategy_ops *ops, facet_generate_result *out,
                           facet_error *err)
{
    generation *g;
    FACET_TRY(generation_open(s, prompt, n_prompt, sampling, p, ops, &g, err));
    const facet_status status = run(g, err);
    if (status == FACET_OK)
        generation_result(g, out);
    else
        generation_abandon(g);
    generation_close(g);
    return status;
}

facet_status facet_generate(facet_session *s, const int32_t *prompt, size_t n_prompt, const facet_sampling *sampling,
                            const facet_generate_params *p, facet_generate_result *out, facet_error *err)
{
    return generate_with(s, prompt, n_prompt, sampling, p, NULL, out, err);
}
