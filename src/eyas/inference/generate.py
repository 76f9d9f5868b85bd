"""Greedy answers to prompts, in batches of similar length."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eyas.data.batches import by_length
from eyas.inference.shared_prefix import read_prefix
from eyas.model.adapter import has_virtual_tokens

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase


def generate(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[list[int]], max_new_tokens: int
) -> list[str]:
    """Return one answer per prompt, decoded without special tokens.

    Prompts are token ids, batched by length. The prefix that all prompts of a batch share is read once, which changes
    no answer. Padding is inserted after that prefix. With virtual tokens there is none: peft 0.21 puts it between them
    and the prompt, which moves the prompt away from them.
    """
    answers: dict[int, str] = {}
    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    for batch in by_length(lengths, equal=has_virtual_tokens(model)):
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

    with torch.inference_mode(), warnings.catch_warnings():
        # peft 0.21 counts positions behind its virtual tokens itself, and says so for each batch.
        warnings.filterwarnings("ignore", message="Position ids are not supported")
        written = model.generate(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), past_key_values=cache,
            max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id,
            eos_token_id=_end_tokens(model, tokenizer),
        )  # fmt: skip
    texts: list[str] = tokenizer.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True)
    return texts


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
