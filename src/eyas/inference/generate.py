"""Answers to prompts, greedily, in batches of similar length."""

from collections.abc import Iterator, Sequence
from typing import Any

from eyas.data.batches import by_length
from eyas.inference.beginnings import read_beginning


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


def _answers(model: Any, tokenizer: Any, prompts: list[list[int]], max_new_tokens: int) -> Iterator[str]:
    import torch

    shared, cache = read_beginning(model, prompts, min(map(len, prompts)) - 1)
    longest = max(map(len, prompts))
    padding = tokenizer.pad_token_id
    ids = [p[:shared] + [padding] * (longest - len(p)) + p[shared:] for p in prompts]
    mask = [[1] * shared + [0] * (longest - len(p)) + [1] * (len(p) - shared) for p in prompts]
    with torch.inference_mode():
        written = model.generate(
            input_ids=torch.tensor(ids, device=model.device), attention_mask=torch.tensor(mask, device=model.device),
            past_key_values=cache, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=padding,
            eos_token_id=_end_tokens(model, tokenizer),
        )  # fmt: skip
    yield from tokenizer.batch_decode(written[:, longest:], skip_special_tokens=True)


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    named = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    return sorted(end for end in ends if end is not None)
