// What a C++ program does with facet.h: the RAII way, lambdas as callbacks. Prints the answer and checks it against a
// loop of its own over sampler and session.
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <facet.h>

namespace
{

template <typename T, void (*Close)(T *)> struct closer {
    void operator()(T *p) const
    {
        Close(p);
    }
};
template <typename T, void (*Close)(T *)> using owned = std::unique_ptr<T, closer<T, Close>>;
using model = owned<facet_model, facet_model_close>;
using engine = owned<facet_engine, facet_engine_close>;
using session = owned<facet_session, facet_session_close>;
using sampler = owned<facet_sampler, facet_sampler_close>;

void check(facet_status status, const facet_error &err)
{
    if (status != FACET_OK) throw std::runtime_error(std::string(facet_status_name(status)) + ": " + err.message);
}

std::vector<int32_t> tokens_of(const facet_model *m, const std::string &text)
{
    facet_error err{};
    int32_t *ids = nullptr;
    size_t n = 0;
    check(facet_tokenize(m, text.data(), text.size(), true, true, &ids, &n, &err), err);
    std::vector<int32_t> list(ids, ids + n);
    facet_free(ids);
    return list;
}

int run(const char *path, const std::string &prompt)
{
    facet_error err{};
    facet_model *m = nullptr;
    facet_engine *e = nullptr;
    facet_session *s = nullptr, *t = nullptr;
    facet_sampler *sm = nullptr;
    check(facet_model_open(path, &m, &err), err);
    const model a(m);
    facet_engine_params params = facet_engine_params_default();
    params.n_ctx = 1024;
    params.n_sessions = 2;
    check(facet_engine_open(m, &params, &e, &err), err);
    const engine b(e);
    check(facet_session_open(e, &s, &err), err);
    const session c(s);
    const auto ids = tokens_of(m, prompt);

    std::vector<int32_t> got;
    facet_generate_params g = facet_generate_params_default();
    g.n_predict = 32;
    g.ud = &got;
    g.on_token = [](void *ud, int32_t token, const char *text, size_t n) {
        if (token >= 0) static_cast<std::vector<int32_t> *>(ud)->push_back(token);
        return std::fwrite(text, 1, n, stdout) == n;
    };
    const facet_sampling greedy = facet_sampling_default();
    facet_generate_result r;
    check(facet_generate(s, ids.data(), ids.size(), &greedy, &g, &r, &err), err);
    std::printf("\n");

    check(facet_session_open(e, &t, &err), err);
    const session d(t);
    check(facet_sampler_open(m, &greedy, &sm, &err), err);
    const sampler f(sm);
    check(facet_session_sync(t, ids.data(), ids.size(), &err), err);
    std::vector<int32_t> own;
    for (int32_t token; own.size() < 32; own.push_back(token)) {
        check(facet_sampler_pick(sm, t, &token, &err), err);
        if (facet_model_is_end(m, token)) break;
        check(facet_session_append(t, &token, 1, &err), err);
    }
    return own == got && r.n_tokens == static_cast<int32_t>(own.size()) ? 0 : 1;
}

} // namespace

int main(int argc, char **argv)
{
    try {
        return argc == 3 ? run(argv[1], argv[2]) : 2;
    } catch (const std::exception &e) {
        std::fprintf(stderr, "%s\n", e.what());
        return 1;
    }
}
