"""The loss of each row on its own, computed in batches of similar length."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from eyas.data.batches import by_length, padded
from eyas.inference.beginnings import read_beginning

Found = TypeVar("Found")


def token_losses(model: Any, encoded: Sequence[dict[str, Any]], pad_token_id: int) -> list[float]:
    """Return the mean loss in nats of each row's labelled tokens under a language model, in the order of the rows.

    A row holds tensors [1, length], `labels` among them; each position predicts the next.
    """
    return _in_batches(encoded, pad_token_id, lambda batch: _token_losses(model, batch))


def class_losses(model: Any, encoded: Sequence[dict[str, Any]], pad_token_id: int) -> list[tuple[float, int]]:
    """Return each row's loss in nats under a classifier and the class it chose, in the order of the rows.

    A row holds tensors [1, length], and `labels` [1].
    """
    return _in_batches(encoded, pad_token_id, lambda batch: _class_losses(model, batch))


def _token_losses(model: Any, batch: dict[str, Any]) -> list[float]:
    import torch

    from eyas.model.scores import scores_at

    labels = torch.nn.functional.pad(batch.pop("labels")[:, 1:], (0, 1), value=-100)
    asked = (labels != -100).to(model.device)
    targets = labels.to(model.device)[asked]
    batch = _moved(batch, model)
    shared, cache = read_beginning(model, batch["input_ids"].tolist(), int(asked.any(0).int().argmax()))
    if shared:
        batch |= {"input_ids": batch["input_ids"][:, shared:], "past_key_values": cache}
        asked = asked[:, shared:]
    with torch.inference_mode(), scores_at(model, asked):
        scores = model(**batch).logits
    if scores.shape[:2] == asked.shape:  # OPT's head asks its decoder past the model around that
        scores = scores[asked]
    scores = scores.reshape(-1, scores.shape[-1]).float()  # [labelled tokens, vocabulary]
    losses = torch.nn.functional.cross_entropy(scores, targets, reduction="none")
    return [float(own.mean()) for own in losses.split(asked.sum(1).tolist())]


def _class_losses(model: Any, batch: dict[str, Any]) -> list[tuple[float, int]]:
    import torch

    labels = batch.pop("labels")
    with torch.inference_mode():
        scores = model(**_moved(batch, model)).logits.float().cpu()  # [rows, classes]
    losses = torch.nn.functional.cross_entropy(scores, labels, reduction="none")
    return list(zip(losses.tolist(), scores.argmax(-1).tolist(), strict=True))


def _in_batches(
    encoded: Sequence[dict[str, Any]], pad_token_id: int, of_batch: Callable[[dict[str, Any]], list[Found]]
) -> list[Found]:
    found: dict[int, Found] = {}
    for indices in by_length([row["input_ids"].shape[1] for row in encoded]):
        batch = padded([encoded[index] for index in indices], pad_token_id)
        found |= zip(indices, of_batch(batch), strict=True)
    return [found[index] for index in range(len(encoded))]


def _moved(batch: dict[str, Any], model: Any) -> dict[str, Any]:
    return {name: value.to(model.device) for name, value in batch.items()}
