"""Tiny models of the shipped recipes' own architectures, with tokenizers and rows, made without a network."""

import json
import random
from pathlib import Path
from typing import Any

WORDS = [
    "the",
    "falcon",
    "flew",
    "over",
    "a",
    "green",
    "hill",
    "and",
    "saw",
    "small",
    "mice",
    "run",
    "from",
    "it",
    "in",
    "fear",
    "while",
    "we",
    "sat",
    "still",
]


def tokenizer(folder: Path, chat: bool = False, bert: bool = False) -> None:
    """Write a byte-level tokenizer with an end token, and the template or the classification tokens on request."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[CLS]", "[SEP]"] if bert else ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bert)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    inner.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    if bert:
        inner.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
        named = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    else:
        named = {"eos_token": "<|im_end|>" if chat else "<|endoftext|>"}
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **named)
    if chat:
        made.chat_template = (
            "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
            " + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
        )
    made.save_pretrained(folder)


def falcon(folder: Path, initializer_range: float = 0.02) -> Path:
    """Write a Falcon; with a larger initializer_range its layers, not its embeddings, decide what it predicts."""
    from transformers import FalconConfig, FalconForCausalLM

    config = FalconConfig(
        vocab_size=400,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=initializer_range,
    )
    return _write(folder, FalconForCausalLM, config)


def llama(folder: Path) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=400, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return _write(folder, LlamaForCausalLM, config, chat=True)


def distilbert(folder: Path) -> Path:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(
        vocab_size=400, dim=64, hidden_dim=128, n_layers=2, n_heads=4, max_position_embeddings=512
    )
    return _write(folder, DistilBertModel, config, bert=True)


def bert(folder: Path) -> Path:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=400, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    )
    return _write(folder, BertModel, config, bert=True)


def text_rows(file: Path, count: int = 24) -> Path:
    """Write rows of plain text; each begins with its own number, so that rows can be told apart in a batch."""
    return _rows(file, [{"text": f"{row}: {sentence(row)}"} for row in range(count)])


def row_numbers(batch: dict[str, Any], tokenizer: Any) -> list[int]:
    """Return the numbers of the rows of plain text in a batch, padded or end to end."""
    rows = batch["input_ids"]
    if "position_ids" in batch:
        rows = rows[0].tensor_split((batch["position_ids"][0] == 0).nonzero().flatten().tolist()[1:])
    return [int(tokenizer.decode(row).partition(":")[0]) for row in rows]


def chat_rows(file: Path, count: int = 24) -> Path:
    """Write rows of prompt and completion as messages, each answer JSON."""
    rows = []
    for row in range(count):
        answer = json.dumps({"source": "news", "sentiment": "neutral" if row % 2 else "positive"})
        rows.append(
            {
                "prompt": [{"role": "user", "content": sentence(row)}],
                "completion": [{"role": "assistant", "content": answer}],
            }
        )
    return _rows(file, rows)


def labelled_rows(file: Path, text: str, label: str, classes: list[str] | int, count: int = 24) -> Path:
    """Write rows of one text and one class, by name or by number."""
    names = list(range(classes)) if isinstance(classes, int) else classes
    return _rows(file, [{text: sentence(row), label: names[row % len(names)]} for row in range(count)])


def tagged_rows(file: Path, count: int = 24) -> Path:
    """Write rows of words, each falcon tagged as a bird."""
    rows = []
    for row in range(count):
        words = ["falcon", *sentence(row).split()]
        rows.append({"tokens": words, "tags": ["B-BIRD" if word == "falcon" else "O" for word in words]})
    return _rows(file, rows)


def sentence(seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=8))


def _rows(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def _write(folder: Path, model_class: type, config: Any, **tokens: bool) -> Path:
    import torch

    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)
    tokenizer(folder, **tokens)
    return folder
