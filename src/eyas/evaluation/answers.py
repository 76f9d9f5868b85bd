"""Each row's loss, and what the model answers to its prompt, which is read once for both."""

from collections.abc import Sequence
from typing import Any

from eyas.evaluation.losses import in_batches, read
from eyas.inference.generate import continue_texts, generate


def losses_and_answers(
    model: Any, tokenizer: Any, encoded: Sequence[dict[str, Any]], prompts: Sequence[list[int]], max_new_tokens: int
) -> list[tuple[float, str]]:
    """Return each row's mean loss in nats of its labelled tokens and the answer to its prompt, in the rows' order.

    A row holds tensors [1, length], `labels` among them; its prompt is the tokens that it begins with. Where it does
    not begin so, as a template may have it, or the model keeps more than keys and values, the prompt is read apart.
    """

    def of_batch(indices: list[int], batch: dict[str, Any]) -> list[tuple[float, str]]:
        import torch

        ids, asked = batch["input_ids"], [prompts[index] for index in indices]
        losses, cache = read(model, batch)
        if cache is None or any(row[: len(prompt)] != prompt for row, prompt in zip(ids.tolist(), asked, strict=True)):
            return list(zip(losses, generate(model, tokenizer, asked, max_new_tokens), strict=True))
        last = torch.tensor([[prompt[-1]] for prompt in asked])  # read once more, for its scores
        lengths = torch.tensor([[len(prompt) - 1] for prompt in asked])
        mask = torch.cat([torch.arange(ids.shape[1])[None] < lengths, torch.ones_like(lengths).bool()], dim=1).long()
        answers = continue_texts(model, tokenizer, torch.cat([ids, last], dim=1), mask, cache, max_new_tokens)
        return list(zip(losses, answers, strict=True))

    return in_batches(encoded, tokenizer.pad_token_id, of_batch, more=max_new_tokens)
