#include "model/hf_names.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/meta.h"

typedef struct name_pair {
    const char *hf, *gguf;
} name_pair;

static const name_pair gemma_layer[] = {
    {"input_layernorm.weight", "attn_norm.weight"},
    {"post_attention_layernorm.weight", "post_attention_norm.weight"},
    {"pre_feedforward_layernorm.weight", "ffn_norm.weight"},
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight"},
    {"post_feedforward_layernorm_1.weight", "post_ffw_norm_1.weight"},
    {"post_feedforward_layernorm_2.weight", "post_ffw_norm_2.weight"},
    {"pre_feedforward_layernorm_2.weight", "pre_ffw_norm_2.weight"},
    {"layer_scalar", "layer_output_scale.weight"},
    {"router.proj.weight", "ffn_gate_inp.weight"},
    {"router.scale", "ffn_gate_inp.scale"},
    {"router.per_expert_scale", "ffn_down_exps.scale"},
    {"experts.gate_up_proj", "ffn_gate_up_exps.weight"},
    {"experts.down_proj", "ffn_down_exps.weight"},
    {"per_layer_input_gate.weight", "inp_gate.weight"},
    {"per_layer_projection.weight", "proj.weight"},
    {"post_per_layer_input_norm.weight", "post_norm.weight"},
    {NULL, NULL},
};

static const name_pair dflash_layer[] = {
    {"input_layernorm.weight", "attn_norm.weight"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {NULL, NULL},
};

static const name_pair any_layer[] = {
    {"self_attn.q_proj.weight", "attn_q.weight"},      {"self_attn.k_proj.weight", "attn_k.weight"},
    {"self_attn.v_proj.weight", "attn_v.weight"},      {"self_attn.o_proj.weight", "attn_output.weight"},
    {"self_attn.q_norm.weight", "attn_q_norm.weight"}, {"self_attn.k_norm.weight", "attn_k_norm.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},       {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},       {NULL, NULL},
};

static const name_pair outside[] = {
    {"embed_tokens.weight", "token_embd.weight"},
    {"norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
    {"embed_tokens_per_layer.weight", "per_layer_token_embd.weight"},
    {"per_layer_model_projection.weight", "per_layer_model_proj.weight"},
    {"per_layer_projection_norm.weight", "per_layer_proj_norm.weight"},
    {"pre_projection.weight", "nextn.pre_projection.weight"},
    {"post_projection.weight", "nextn.post_projection.weight"},
    {"masked_embedding.centroids.weight", "masked_embd_centroids.weight"},
    {"masked_embedding.token_ordering", "masked_embd_ordering"},
    {"fc.weight", "fc.weight"},
    {"hidden_norm.weight", "enc.output_norm.weight"},
    {NULL, NULL},
};

static const char *find(const name_pair *list, const char *name)
{
    while (list->hf && strcmp(list->hf, name) != 0) list++;
    return list->gguf;
}

static bool begins(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static const char *without_prefix(const char *name)
{
    static const char *const prefixes[] = {"model.language_model.", "language_model.model.", "language_model.",
                                           "model.", NULL};
    for (const char *const *p = prefixes; *p; p++)
        if (begins(name, *p)) return name + strlen(*p);
    return name;
}

static bool is_other_part(const char *name)
{
    static const char *const parts[] = {"vision_tower.",
                                        "vision_embedder.",
                                        "audio_tower.",
                                        "embed_vision.",
                                        "embed_audio.",
                                        "multi_modal_projector.",
                                        NULL};
    for (const char *const *p = parts; *p; p++)
        if (begins(name, *p)) return true;
    return strstr(name, "rotary_emb.inv_freq") != NULL;
}

hf_name hf_name_map(const char *arch, bool is_tied, const char *name, char *out, size_t out_bytes, int *layer)
{
    *layer = -1;
    name = without_prefix(name);
    if (is_other_part(name)) return HF_NAME_SKIPPED;
    if (begins(name, "layers.")) {
        char *end;
        long n = strtol(name + 7, &end, 10);
        if (end == name + 7 || *end != '.' || n < 0 || n > 1 << 20) return HF_NAME_UNKNOWN;
        const char *found = find(strcmp(arch, META_DFLASH) == 0 ? dflash_layer : gemma_layer, end + 1);
        if (!found) found = find(any_layer, end + 1);
        if (!found) return HF_NAME_UNKNOWN;
        *layer = (int)n;
        snprintf(out, out_bytes, "blk.%ld.%s", n, found);
        return HF_NAME_KNOWN;
    }
    const char *found = find(outside, name);
    if (!found) return HF_NAME_UNKNOWN;
    if (is_tied && strcmp(found, "output.weight") == 0) return HF_NAME_SKIPPED;
    snprintf(out, out_bytes, "%s", found);
    return HF_NAME_KNOWN;
}

int hf_name_compare(const char *a, const char *b)
{
    while (*a && *b) {
        if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
            char *end_a, *end_b;
            unsigned long long x = strtoull(a, &end_a, 10), y = strtoull(b, &end_b, 10);
            if (x != y) return x < y ? -1 : 1;
            a = end_a;
            b = end_b;
        } else if (*a != *b) {
            break;
        } else {
            a++;
            b++;
        }
    }
    return (unsigned char)*a - (unsigned char)*b;
}
