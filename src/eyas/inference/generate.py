"""Answers to prompts, greedily, in batches of similar length."""

from collections.abc import Sequence
from typing import Any

from eyas.data.batches import by_length
from eyas.inference.shared_prefix import read_beginning


def generate(model: Any, tokenizer: Any, prompts: Sequence[list[int]], max_new_tokens: int) -> list[str]:
    """Return one answer a prompt, in the order of the prompts, decoded without special tokens.

    Prompts are token ids, batched by length. They are padded on the left of what they do not share, and what they all
    begin with is read once, which changes no answer.
    """
    answers: dict[int, str] = {}
    for batch in by_length([len(prompt) + max_new_tokens for prompt in prompts]):
        written = _answers(model, tokenizer, [prompts[index] for index in batch], max_new_tokens)
        answers |= zip(batch, written, strict=True)
    return [answers[index] for index in range(len(prompts))]


def go_on(model: Any, tokenizer: Any, ids: Any, mask: Any, cache: Any, max_new_tokens: int) -> list[str]:
    """Return what a model writes after `ids` [rows, length] of which `mask` says what counts, of each row."""
    import torch

    with torch.inference_mode():
        written = model.generate(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), past_key_values=cache,
            max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id,
            eos_token_id=_end_tokens(model, tokenizer),
        )  # fmt: skip
    found: list[str] = tokenizer.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True)
    return found


def _answers(model: Any, tokenizer: Any, prompts: list[list[int]], max_new_tokens: int) -> list[str]:
    import torch

    shared, cache = read_beginning(model, prompts, min(map(len, prompts)) - 1)
    longest = max(map(len, prompts))
    ids = [p[:shared] + [tokenizer.pad_token_id] * (longest - len(p)) + p[shared:] for p in prompts]
    mask = [[1] * shared + [0] * (longest - len(p)) + [1] * (len(p) - shared) for p in prompts]
    return go_on(model, tokenizer, torch.tensor(ids), torch.tensor(mask), cache, max_new_tokens)


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    named = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    return sorted(end for end in ends if end is not None)
