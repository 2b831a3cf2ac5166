#include "quant/type.h"

#include <strings.h>

#include "quant/codec.h"

static const type_info types[TYPE_COUNT] = {
    [TYPE_F32] = {"F32", 1, 4, decode_f32, encode_f32},
    [TYPE_F16] = {"F16", 1, 2, decode_f16, encode_f16},
    [TYPE_BF16] = {"BF16", 1, 2, decode_bf16, encode_bf16},
    [TYPE_Q4_0] = {"Q4_0", 32, 18, decode_q4_0, encode_q4_0},
    [TYPE_Q4_1] = {"Q4_1", 32, 20, decode_q4_1, encode_q4_1},
    [TYPE_Q5_0] = {"Q5_0", 32, 22, decode_q5_0, encode_q5_0},
    [TYPE_Q5_1] = {"Q5_1", 32, 24, decode_q5_1, encode_q5_1},
    [TYPE_Q8_0] = {"Q8_0", 32, 34, decode_q8_0, encode_q8_0},
    [TYPE_Q2_K] = {"Q2_K", 256, 84, decode_q2_K, encode_q2_K},
    [TYPE_Q3_K] = {"Q3_K", 256, 110, decode_q3_K, encode_q3_K},
    [TYPE_Q4_K] = {"Q4_K", 256, 144, decode_q4_K, encode_q4_K},
    [TYPE_Q5_K] = {"Q5_K", 256, 176, decode_q5_K, encode_q5_K},
    [TYPE_Q6_K] = {"Q6_K", 256, 210, decode_q6_K, encode_q6_K},
    [TYPE_IQ4_NL] = {"IQ4_NL", 32, 18, decode_iq4_nl, encode_iq4_nl},
    [TYPE_IQ4_XS] = {"IQ4_XS", 256, 136, decode_iq4_xs, NULL},
    [TYPE_MXFP4] = {"MXFP4", 32, 17, decode_mxfp4, NULL},
    [TYPE_NVFP4] = {"NVFP4", 64, 36, decode_nvfp4, NULL},
    [TYPE_I8] = {"I8", 1, 1, NULL, NULL},
    [TYPE_I16] = {"I16", 1, 2, NULL, NULL},
    [TYPE_I32] = {"I32", 1, 4, NULL, NULL},
    [TYPE_I64] = {"I64", 1, 8, NULL, NULL},
    [TYPE_F64] = {"F64", 1, 8, NULL, NULL},
};

/* In use in the wild or inside other programs; named in messages only. */
static const char *const unread_names[TYPE_COUNT] = {
    [9] = "Q8_1",   [15] = "Q8_K",  [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S", [21] = "IQ3_S",
    [22] = "IQ2_S", [29] = "IQ1_M", [34] = "TQ1_0",   [35] = "TQ2_0",  [41] = "Q1_0",    [42] = "Q2_0",
};

static const unpack_rule *const rules[TYPE_COUNT] = {
    [TYPE_Q4_0] = &rule_q4_0,   [TYPE_Q4_1] = &rule_q4_1,   [TYPE_Q5_0] = &rule_q5_0,     [TYPE_Q5_1] = &rule_q5_1,
    [TYPE_Q8_0] = &rule_q8_0,   [TYPE_Q2_K] = &rule_q2_K,   [TYPE_Q3_K] = &rule_q3_K,     [TYPE_Q4_K] = &rule_q4_K,
    [TYPE_Q5_K] = &rule_q5_K,   [TYPE_Q6_K] = &rule_q6_K,   [TYPE_IQ4_NL] = &rule_iq4_nl, [TYPE_IQ4_XS] = &rule_iq4_xs,
    [TYPE_MXFP4] = &rule_mxfp4, [TYPE_NVFP4] = &rule_nvfp4,
};

const type_info *type_get(uint32_t id)
{
    return id < TYPE_COUNT && types[id].name ? &types[id] : NULL;
}

const char *type_name(uint32_t id)
{
    if (id >= TYPE_COUNT) return NULL;
    return types[id].name ? types[id].name : unread_names[id];
}

bool type_by_name(const char *name, tensor_type *out)
{
    for (uint32_t id = 0; id < TYPE_COUNT; id++) {
        if (!types[id].name || strcasecmp(types[id].name, name) != 0) continue;
        *out = (tensor_type)id;
        return true;
    }
    return false;
}

const unpack_rule *unpack_rule_get(uint32_t type_id)
{
    return type_id < TYPE_COUNT ? rules[type_id] : NULL;
}
