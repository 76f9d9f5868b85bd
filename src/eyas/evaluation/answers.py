"""Loss and answer of each row, from one forward pass over its prompt."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eyas.evaluation.losses import in_batches, read
from eyas.inference.generate import continue_rows, generate, rooms_for_answers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def losses_and_answers(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    encoded: Sequence[dict[str, Any]],
    prompts: Sequence[list[int]],
    max_new_tokens: int,
) -> list[tuple[float, str]]:
    """Return each row's loss and the answer to its prompt.

    The loss is the mean over labeled tokens, in nats. A row holds tensors [1, length], `labels` among them, and starts
    with its prompt. The prompt gets a forward pass of its own in three cases: a template lets the row start
    differently, the model caches more than keys and values, or it has too few positions for the longest answer.
    """
    rooms = rooms_for_answers(model, prompts, max_new_tokens)

    def of_batch(indices: list[int], batch: dict[str, Any]) -> list[tuple[float, str]]:
        import torch

        ids, own_prompts = batch["input_ids"], [prompts[index] for index in indices]
        losses, cache = read(model, batch)
        starts = (row[: len(prompt)] for row, prompt in zip(ids.tolist(), own_prompts, strict=True))
        short = any(rooms[index] < max_new_tokens for index in indices)
        if cache is None or short or list(starts) != own_prompts:
            answers = generate(model, tokenizer, own_prompts, max_new_tokens)
            return [(loss, answer.text) for loss, answer in zip(losses, answers, strict=True)]
        last = torch.tensor([[prompt[-1]] for prompt in own_prompts])  # again, for its logits
        lengths = torch.tensor([[len(prompt) - 1] for prompt in own_prompts])
        mask = torch.cat([torch.arange(ids.shape[1])[None] < lengths, torch.ones_like(lengths).bool()], dim=1).long()
        answers = continue_rows(model, tokenizer, torch.cat([ids, last], dim=1), mask, cache, max_new_tokens)
        return [(loss, answer.text) for loss, answer in zip(losses, answers, strict=True)]

    return in_batches(encoded, tokenizer.pad_token_id, of_batch, more=max_new_tokens)
