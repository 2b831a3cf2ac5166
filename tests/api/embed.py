"""What another language does with libfacet.so: opens it with dlopen, declares what it needs of facet.h by hand, and
generates with a callback of its own.

    embed.py LIBRARY MODEL PROMPT     prints {"text": …, "tokens": […], "n_vocab": n, "error": "…"}"""
import ctypes as c
import json
import sys


class Error(c.Structure):
    _fields_ = [("status", c.c_int), ("message", c.c_char * 512)]


class EngineParams(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("device", c.c_char_p), ("n_threads", c.c_int), ("n_ctx", c.c_int32),
                ("n_sessions", c.c_int), ("cache_type_k", c.c_char_p), ("cache_type_v", c.c_char_p),
                ("use_mmap", c.c_bool), ("wants_hidden", c.c_bool), ("n_captures", c.c_int),
                ("capture_layers", c.c_void_p), ("drafters", c.c_void_p), ("n_drafters", c.c_int),
                ("draft_ctx", c.c_int32), ("tree_temp", c.c_float), ("block_mask", c.c_char_p),
                ("progress", c.c_void_p), ("progress_ud", c.c_void_p), ("cache_bytes", c.c_uint64),
                ("reuse_prompts", c.c_bool), ("auto_unpark", c.c_bool), ("cache_layers", c.c_char_p),
                ("cache_preset", c.c_char_p), ("rebuild_keys", c.c_bool), ("sparse_alpha", c.c_float), ("sparse_mass", c.c_float),
                ("sparse_min", c.c_int32), ("sparse_hard", c.c_float), ("sparse_prefill", c.c_float),
                ("sparse_prefill_alpha", c.c_float), ("sparse_check", c.c_bool)]


class Sampling(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("temperature", c.c_float), ("top_k", c.c_int), ("top_p", c.c_float),
                ("min_p", c.c_float), ("seed", c.c_uint64), ("repeat_penalty", c.c_float),
                ("presence_penalty", c.c_float), ("frequency_penalty", c.c_float), ("penalty_last_n", c.c_int),
                ("bias", c.c_void_p), ("n_bias", c.c_size_t)]


class Speculation(c.Structure):
    _fields_ = [("method", c.c_int), ("adapt", c.c_int), ("draft_max", c.c_int), ("mtp_gamma", c.c_int),
                ("tree_budget", c.c_int), ("is_chain_seeded", c.c_bool), ("p_min", c.c_float),
                ("width_theta", c.c_float), ("width_min", c.c_int), ("mtp_pos", c.c_int)]


TokenFn = c.CFUNCTYPE(c.c_bool, c.c_void_p, c.c_int32, c.POINTER(c.c_char), c.c_size_t)


class GenerateParams(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("n_predict", c.c_int32), ("ignore_eos", c.c_bool),
                ("show_special", c.c_bool), ("stop", c.c_void_p), ("n_stop", c.c_size_t), ("on_token", TokenFn),
                ("ud", c.c_void_p), ("progress", c.c_void_p), ("progress_ud", c.c_void_p),
                ("speculation", Speculation), ("grammar", c.c_void_p), ("answer", c.c_uint),
                ("on_logprobs", c.c_void_p), ("n_logprobs", c.c_int)]


def main(library, path, prompt):
    facet = c.CDLL(library)
    for name, kind in (("facet_engine_params_default", EngineParams), ("facet_sampling_default", Sampling),
                       ("facet_generate_params_default", GenerateParams)):
        getattr(facet, name).restype = kind
        size = getattr(facet, name)().struct_size
        assert size == c.sizeof(kind), f"{name}: {size} bytes, declared here with {c.sizeof(kind)}"
    err = Error()

    def call(name, *args):
        if getattr(facet, name)(*args, c.byref(err)) != 0:
            raise RuntimeError(err.message.decode())

    try:
        call("facet_model_open", b"/nonexistent.gguf", c.byref(c.c_void_p()))
        raise AssertionError("a model that is not there was opened")
    except RuntimeError as e:
        error = str(e)
    model, engine, session = c.c_void_p(), c.c_void_p(), c.c_void_p()
    ids, n = c.POINTER(c.c_int32)(), c.c_size_t()
    call("facet_model_open", path.encode(), c.byref(model))
    params = facet.facet_engine_params_default()
    params.n_ctx = 1024
    call("facet_engine_open", model, c.byref(params), c.byref(engine))
    call("facet_session_open", engine, c.byref(session))
    text = prompt.encode()
    call("facet_tokenize", model, text, c.c_size_t(len(text)), c.c_bool(True), c.c_bool(True), c.byref(ids),
         c.byref(n))
    tokens, pieces = [], []

    def on_token(_, token, piece, length):
        if token >= 0:
            tokens.append(token)
        pieces.append(piece[:length])
        return True

    generate = facet.facet_generate_params_default()
    generate.n_predict = 32
    generate.on_token = TokenFn(on_token)
    result = c.create_string_buffer(4096)  # facet_generate_result, which is not looked into
    call("facet_generate", session, ids, n, c.byref(facet.facet_sampling_default()), c.byref(generate), result)
    facet.facet_free(ids)
    print(json.dumps({"text": b"".join(pieces).decode(), "tokens": tokens,
                      "n_vocab": facet.facet_model_n_vocab(model), "error": error}))
    facet.facet_session_close(session)
    facet.facet_engine_close(engine)
    facet.facet_model_close(model)


main(*sys.argv[1:])
