"""Greedy answers to prompts, in batches of similar length."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eyas.data.batches import by_length
from eyas.errors import DataError
from eyas.inference.shared_prefix import read_prefix
from eyas.model.adapter import has_virtual_tokens, virtual_tokens
from eyas.model.load import model_limits_of
from eyas.model.stop_tokens import stop_tokens

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answer:
    """Generated text, without special tokens."""

    text: str
    is_cut: bool
    """True for an answer without an end token: it reached the longest answer, or the model's last position."""


def generate(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[list[int]], max_new_tokens: int
) -> list[Answer]:
    """Return one answer per prompt.

    Prompts are token ids, batched by length. The prefix that all prompts of a batch share is read once, which changes
    no answer. Padding is inserted after that prefix. An answer ends where the model has no further position. Raises
    DataError for a prompt that leaves no position.
    """
    answers: dict[int, Answer] = {}
    rooms = rooms_for_answers(model, prompts, max_new_tokens)
    for room in set(rooms):
        same = [index for index, one in enumerate(rooms) if one == room]
        for batch in by_length([len(prompts[index]) + room for index in same]):
            indices = [same[index] for index in batch]
            written = _answers(model, tokenizer, [prompts[index] for index in indices], room)
            answers |= zip(indices, written, strict=True)
    return [answers[index] for index in range(len(prompts))]


def rooms_for_answers(model: "PreTrainedModel", prompts: Sequence[list[int]], max_new_tokens: int) -> list[int]:
    """Return the number of tokens that each answer may have, at most `max_new_tokens`.

    Raises DataError for a prompt that leaves no position for an answer.
    """
    positions = model_limits_of(model)[0] - virtual_tokens(model)
    for number, prompt in enumerate(prompts, start=1):
        if len(prompt) >= positions:
            raise DataError(
                f"prompt {number}: has {len(prompt):,} tokens and the model reads {positions:,}, so no position is "
                "left for an answer; shorten it"
            )
    return [min(max_new_tokens, positions - len(prompt)) for prompt in prompts]


def continue_rows(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    ids: "Tensor",
    mask: "Tensor",
    cache: "Cache | None",
    max_new_tokens: int,
) -> list[Answer]:
    """Return the answer that a model generates greedily after each row of `ids` [rows, length].

    `mask` [rows, length] is 0 on padding. `cache` holds the keys and values of the tokens before the last, or is None.
    """
    import torch

    ids, mask, read = ids.to(model.device), mask.to(model.device), ids.shape[1]
    with torch.inference_mode():
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "cache": cache}
        if has_virtual_tokens(model):
            inputs, read = _behind_virtual_tokens(model, ids, mask), 0
        with _greedy(model, tokenizer, max_new_tokens) as writer:
            new = writer.generate(**inputs)[:, read:]
            ends = torch.tensor(writer.generation_config.eos_token_id or [], dtype=new.dtype, device=new.device)
    ended = torch.isin(new, ends).any(1).tolist()
    texts = tokenizer.batch_decode(new, skip_special_tokens=True)
    return [Answer(text, is_cut=not end) for text, end in zip(texts, ended, strict=True)]


def _behind_virtual_tokens(model: "PeftModel", ids: "Tensor", mask: "Tensor") -> dict[str, Any]:
    """Return the embeddings and mask of rows, padded on the left, with the adapter's virtual tokens in front.

    peft 0.21 puts them before the padding, away from the row, and with transformers 5.24 again at each step.
    """
    import torch

    rows = model.get_base_model().get_input_embeddings()(ids)
    virtual = model.get_prompt(1)[0].to(rows.dtype)
    filled = mask.argmax(1).tolist()  # where each row starts
    embeddings = [torch.cat([row[:start], virtual, row[start:]]) for row, start in zip(rows, filled, strict=True)]
    masks = [torch.cat([row, row.new_ones(len(virtual))]) for row in mask]
    return {"inputs_embeds": torch.stack(embeddings), "attention_mask": torch.stack(masks)}


def _answers(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts: list[list[int]], max_new_tokens: int
) -> list[Answer]:
    import torch

    shared, cache = read_prefix(model, prompts, min(map(len, prompts)) - 1)
    longest = max(map(len, prompts))
    ids = [p[:shared] + [tokenizer.pad_token_id] * (longest - len(p)) + p[shared:] for p in prompts]
    mask = [[1] * shared + [0] * (longest - len(p)) + [1] * (len(p) - shared) for p in prompts]
    return continue_rows(model, tokenizer, torch.tensor(ids), torch.tensor(mask), cache, max_new_tokens)


@contextmanager
def _greedy(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", max_new_tokens: int
) -> "Iterator[PreTrainedModel]":
    """Give the model that writes, without any setting of its own generation_config except its stop tokens.

    transformers 5.24 fills each setting that a call leaves out from `model.generation_config`: a repetition penalty or
    beams would change a greedy answer.
    """
    from transformers import GenerationConfig

    writer = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = writer.generation_config
    ends = {*stop_tokens(own), tokenizer.eos_token_id} - {None}
    writer.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=sorted(ends) or None,
    )
    try:
        yield writer
    finally:
        writer.generation_config = own
