"""Greedy answers to prompts, in batches of similar length."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eyas.data.batches import by_length
from eyas.inference.shared_prefix import read_prefix
from eyas.model.adapter import has_virtual_tokens

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase


def generate(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[list[int]], max_new_tokens: int
) -> list[str]:
    """Return one answer per prompt, decoded without special tokens.

    Prompts are token ids, batched by length. The prefix that all prompts of a batch share is read once, which changes
    no answer. Padding is inserted after that prefix.
    """
    answers: dict[int, str] = {}
    for batch in by_length([len(prompt) + max_new_tokens for prompt in prompts]):
        written = _answers(model, tokenizer, [prompts[index] for index in batch], max_new_tokens)
        answers |= zip(batch, written, strict=True)
    return [answers[index] for index in range(len(prompts))]


def continue_texts(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    ids: "Tensor",
    mask: "Tensor",
    cache: "Cache | None",
    max_new_tokens: int,
) -> list[str]:
    """Return the text that a model generates after each row of `ids` [rows, length].

    `mask` [rows, length] is 0 on padding. `cache` holds the keys and values of the tokens before the last, or is None.
    """
    import torch

    ids, mask, read = ids.to(model.device), mask.to(model.device), ids.shape[1]
    with torch.inference_mode():
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "cache": cache}
        writer = model
        if has_virtual_tokens(model):
            inputs, writer, read = _behind_virtual_tokens(model, ids, mask), model.get_base_model(), 0
        written = writer.generate(
            **inputs, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id,
            eos_token_id=_end_tokens(model, tokenizer),
        )  # fmt: skip
    texts: list[str] = tokenizer.batch_decode(written[:, read:], skip_special_tokens=True)
    return texts


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
) -> list[str]:
    import torch

    shared, cache = read_prefix(model, prompts, min(map(len, prompts)) - 1)
    longest = max(map(len, prompts))
    ids = [p[:shared] + [tokenizer.pad_token_id] * (longest - len(p)) + p[shared:] for p in prompts]
    mask = [[1] * shared + [0] * (longest - len(p)) + [1] * (len(p) - shared) for p in prompts]
    return continue_texts(model, tokenizer, torch.tensor(ids), torch.tensor(mask), cache, max_new_tokens)


def _end_tokens(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    configured = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
    return sorted(end for end in ends if end is not None)
