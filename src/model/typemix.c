#include "model/typemix.h"

#include <string.h>
#include <strings.h>

typedef struct mix_rule {
    const char *name;
    uint32_t file_type;
    tensor_type body, more, embedding; /* `more`: attn_v and ffn_down of the "more-bits" layers */
} mix_rule;

static const mix_rule rules[TYPEMIX_COUNT] = {
    [TYPEMIX_F16] = {"F16", 1, TYPE_F16, TYPE_F16, TYPE_F16},
    [TYPEMIX_BF16] = {"BF16", 32, TYPE_BF16, TYPE_BF16, TYPE_BF16},
    [TYPEMIX_Q4_0] = {"Q4_0", 2, TYPE_Q4_0, TYPE_Q4_0, TYPE_Q6_K},
    [TYPEMIX_Q8_0] = {"Q8_0", 7, TYPE_Q8_0, TYPE_Q8_0, TYPE_Q8_0},
    [TYPEMIX_Q4_K_M] = {"Q4_K_M", 15, TYPE_Q4_K, TYPE_Q6_K, TYPE_Q6_K},
    [TYPEMIX_Q5_K_M] = {"Q5_K_M", 17, TYPE_Q5_K, TYPE_Q6_K, TYPE_Q6_K},
    [TYPEMIX_Q6_K] = {"Q6_K", 18, TYPE_Q6_K, TYPE_Q6_K, TYPE_Q6_K},
};

bool typemix_by_name(const char *name, enum typemix *out)
{
    for (int i = 0; i < TYPEMIX_COUNT; i++) {
        if (strcasecmp(rules[i].name, name) != 0) continue;
        *out = (typemix)i;
        return true;
    }
    return false;
}

const char *typemix_name(typemix mix)
{
    return rules[mix].name;
}

uint32_t typemix_file_type(typemix mix)
{
    return rules[mix].file_type;
}

/* "blk.12.attn_v.weight" -> "attn_v.weight"; other names as they are. */
static const char *name_in_layer(const char *name)
{
    if (strncmp(name, "blk.", 4) != 0) return name;
    const char *p = name + 4 + strspn(name + 4, "0123456789");
    return p > name + 4 && *p == '.' ? p + 1 : name;
}

static bool is_one_of(const char *name, const char *const *list)
{
    while (*list && strcmp(name, *list) != 0) list++;
    return *list != NULL;
}

static bool is_matrix(const char *base, int n_dims)
{
    static const char suffix[] = ".weight";
    size_t n = strlen(base), k = sizeof suffix - 1;
    if (n_dims < 2 || n < k || strcmp(base + n - k, suffix) != 0) return false;
    return !strstr(base, "_norm") && strcmp(base, "ffn_gate_inp.weight") != 0;
}

/* Item i of n: the first and the last eighth, and every third between. */
static bool has_more_bits(int i, int n)
{
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

static tensor_type fit_width(tensor_type type, uint64_t width)
{
    if (width % type_get(type)->block_len == 0) return type;
    if (width % 32 != 0) return TYPE_F16;
    switch (type) {
    case TYPE_Q4_K: return TYPE_Q5_0;
    case TYPE_Q5_K: return TYPE_Q5_1;
    default: return TYPE_Q8_0;
    }
}

tensor_type typemix_choose(typemix mix, const char *tensor_name, int n_dims, const uint64_t ne[4], int layer,
                           int n_layers, const struct typemix_counts *counts)
{
    static const char *const embeddings[] = {"token_embd.weight", "output.weight", "per_layer_token_embd.weight", NULL};
    static const char *const downs[] = {"ffn_down.weight", "ffn_down_exps.weight", NULL};
    const mix_rule *rule = &rules[mix];
    const char *base = name_in_layer(tensor_name);

    if (!is_matrix(base, n_dims)) return TYPE_F32;
    if (strcmp(base, "per_layer_model_proj.weight") == 0) return mix == TYPEMIX_F16 ? TYPE_F16 : TYPE_BF16;
    tensor_type type = rule->body;
    if (is_one_of(base, embeddings)) type = rule->embedding;
    if (is_one_of(base, downs) && has_more_bits(layer, n_layers)) type = rule->more;
    if (strcmp(base, "attn_v.weight") == 0 && has_more_bits(counts->attn_v_index, counts->n_attn_v)) type = rule->more;
    return fit_width(type, ne[0]);
}
