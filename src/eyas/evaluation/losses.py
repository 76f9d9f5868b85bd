"""The loss of each row on its own, computed in batches of similar length."""

from collections.abc import Sequence
from typing import Any

BATCH = 16
PADDING = {"attention_mask": 0, "labels": -100, "token_type_ids": 0}


def row_losses(model: Any, encoded: Sequence[dict[str, Any]], pad_token_id: int) -> list[tuple[float, int]]:
    """Return each row's mean loss in nats and the class with the largest logit, in the order of the rows.

    A row holds tensors [1, length], and `labels` [1, length] for a language model (the choice is then that of the last
    position) or [1] for a classifier.
    """
    import torch

    found: dict[int, tuple[float, int]] = {}
    order = sorted(range(len(encoded)), key=lambda index: encoded[index]["input_ids"].shape[1])
    for start in range(0, len(order), BATCH):
        indices = order[start : start + BATCH]
        batch = _padded([encoded[index] for index in indices], pad_token_id)
        on_device = {name: value.to(model.device) for name, value in batch.items()}
        labels = on_device.pop("labels")
        with torch.inference_mode():
            logits = model(**on_device).logits.float()
        for index, row_logits, row_labels in zip(indices, logits, labels, strict=True):
            per_token = labels.dim() == 2  # each position predicts the next
            scored = (row_logits[:-1], row_labels[1:]) if per_token else (row_logits[None], row_labels[None])
            loss = torch.nn.functional.cross_entropy(*scored, ignore_index=-100)
            found[index] = float(loss), int(scored[0][-1].argmax())
    return [found[index] for index in range(len(encoded))]


def _padded(rows: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, Any]:
    import torch

    longest = max(row["input_ids"].shape[1] for row in rows)

    def pad(name: str, value: Any) -> Any:
        if value.dim() == 1:  # a class, not a token a position
            return value
        return torch.nn.functional.pad(value, (0, longest - value.shape[1]), value=PADDING.get(name, pad_token_id))

    return {name: torch.cat([pad(name, row[name]) for row in rows]) for name in rows[0]}
