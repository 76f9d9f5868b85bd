"""Tiny random models of many families, with weights large enough that every token matters."""

import torch
import transformers

VOCABULARY = 97
TINY = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LLAMA = TINY | {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 128}
GPT2 = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
WINDOW = {"sliding_window": 4}  # shorter than the documents, so that a mask without it is noticed
ALTERNATING = WINDOW | {"layer_types": ["sliding_attention", "full_attention"]}
OLD_FALCON = {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True}
BOTH, EAGER = ("sdpa", "eager"), ("eager",)
NATIVE, MASKED, REFUSED = "native", "block_diagonal", None
KV_HEADS = {"new_decoder_architecture": True, "num_kv_heads": 2}

# family: (class, config, its attentions, its separation of packed documents)
FAMILIES = {
    "llama": ("Llama", LLAMA, BOTH, NATIVE),
    "mistral": ("Mistral", LLAMA | WINDOW, BOTH, NATIVE),
    "mixtral": ("Mixtral", LLAMA | EXPERTS, BOTH, NATIVE),
    "qwen2": ("Qwen2", LLAMA, BOTH, NATIVE),
    "qwen2 windowed": ("Qwen2", LLAMA | WINDOW | {"use_sliding_window": True, "max_window_layers": 1}, BOTH, NATIVE),
    "qwen3": ("Qwen3", LLAMA | {"head_dim": 8}, BOTH, NATIVE),
    "gemma": ("Gemma", LLAMA | {"head_dim": 8}, BOTH, NATIVE),
    "gemma2": ("Gemma2", LLAMA | ALTERNATING | {"head_dim": 8}, EAGER, NATIVE),
    "gemma3": ("Gemma3", LLAMA | ALTERNATING | {"head_dim": 8}, BOTH, NATIVE),
    "phi": ("Phi", LLAMA | {"num_key_value_heads": 4}, BOTH, NATIVE),
    "phi3": ("Phi3", LLAMA | WINDOW, BOTH, NATIVE),
    "gpt2": ("GPT2", GPT2, BOTH, NATIVE),
    "gpt-neox": ("GPTNeoX", TINY | {"intermediate_size": 64}, BOTH, NATIVE),
    "gpt-j": ("GPTJ", GPT2 | {"rotary_dim": 4}, EAGER, NATIVE),
    "stablelm": ("StableLm", LLAMA, BOTH, NATIVE),
    "starcoder2": ("Starcoder2", LLAMA | WINDOW, BOTH, NATIVE),
    "olmo2": ("Olmo2", LLAMA, BOTH, NATIVE),
    "cohere": ("Cohere", LLAMA | {"logit_scale": 1.0}, BOTH, NATIVE),
    "granite moe": ("GraniteMoe", LLAMA | EXPERTS, BOTH, NATIVE),
    "falcon 7b": ("Falcon", TINY, BOTH, NATIVE),
    "falcon 40b": ("Falcon", TINY | KV_HEADS, BOTH, NATIVE),
    "opt": ("OPT", LLAMA | {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.2}, BOTH, MASKED),
    "biogpt": ("BioGpt", LLAMA, BOTH, MASKED),
    "falcon alibi": ("Falcon", TINY | OLD_FALCON, BOTH, NATIVE),
    "bloom": ("Bloom", TINY, EAGER, REFUSED),
    "mpt": ("Mpt", {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128,
                    "initializer_range": 0.2}, EAGER, REFUSED),
    "mamba": ("Mamba", TINY | {"state_size": 8}, EAGER, REFUSED),
    "gpt-oss": ("GptOss", LLAMA | EXPERTS | ALTERNATING | {"head_dim": 8}, EAGER, REFUSED),
}  # fmt: skip


def make(family, attention="sdpa", dtype=torch.float32, **more):
    """Return a tiny random model of a family, with weights large enough that every token matters."""
    name, settings, *_ = FAMILIES[family]
    config = getattr(transformers, {"Gemma3": "Gemma3TextConfig"}.get(name, f"{name}Config"))(**settings | more)
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
