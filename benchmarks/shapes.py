"""Models of a published shape with random weights, and rows for them, where no hub is in reach.

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
"""The classes of transformers whose defaults are the published models of 7B."""
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 512,
}
"""What a shape is made of to rehearse a job on any machine."""


def write_model(shape: str, folder: Path, tiny: bool) -> None:
    """Write a bfloat16 model and a tokenizer of one token a byte: built without memory, filled where it will train."""
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
    """Write texts of a quarter of `longest` to `longest` tokens, one byte each, no two of which begin alike."""
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
