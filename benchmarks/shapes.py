"""Models of published shapes with random weights, and rows for them, for machines without a hub.

How fast a model trains, and in how much memory, does not depend on what its weights are.
"""

import json
import random
import string
from pathlib import Path
from typing import Any

import torch

from eyas.model.load import empty_model

SHAPES = {"falcon7b": "FalconConfig", "llama7b": "LlamaConfig"}
"""Config classes of transformers whose defaults are published 7B models."""
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 512,
}
"""Sizes of a tiny model, to rehearse a job on any machine."""


def write_model(shape: str, folder: Path, tiny: bool) -> None:
    """Write a bfloat16 model, created on the meta device, and a tokenizer with one token per byte."""
    import transformers

    config_class = getattr(transformers, SHAPES[shape])
    config = config_class(
        **({name: size for name, size in TINY.items() if hasattr(config_class, name)} if tiny else {})
    )
    model = empty_model(config, "AutoModelForCausalLM").to(torch.bfloat16)
    model.to_empty(device=torch.accelerator.current_accelerator() or torch.device("cpu"))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0.0, weight.shape[-1] ** -0.5)
            else:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
    model.tie_weights()
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)


def write_rows(file: Path, rows: int, longest: int) -> None:
    """Write texts of a quarter of `longest` to `longest` one-byte tokens, without shared prefixes."""
    draw = random.Random(0)
    texts = ("".join(draw.choices(string.ascii_lowercase, k=draw.randint(longest // 4, longest))) for _ in range(rows))
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    end = "<|endoftext|>"
    known = {each: number for number, each in enumerate([end, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    inner = Tokenizer(models.BPE(vocab=known, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=end, pad_token=end)
