"""The loss of each row on its own, computed in batches of similar length."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from eyas.data.batches import by_length, padded
from eyas.inference.shared_prefix import plain_cache, read_prefix

Found = TypeVar("Found")


def token_losses(model: Any, encoded: Sequence[dict[str, Any]], pad_token_id: int) -> list[float]:
    """Return the mean loss in nats of each row's labelled tokens under a language model, in the order of the rows.

    A row holds tensors [1, length], `labels` among them; each position predicts the next.
    """
    return in_batches(encoded, pad_token_id, lambda _indices, batch: read(model, batch)[0])


def class_losses(model: Any, encoded: Sequence[dict[str, Any]], pad_token_id: int) -> list[tuple[float, int]]:
    """Return each row's loss in nats under a classifier and the class it chose, in the order of the rows.

    A row holds tensors [1, length], and `labels` [1].
    """
    return in_batches(encoded, pad_token_id, lambda _indices, batch: _class_losses(model, batch))


def in_batches(
    encoded: Sequence[dict[str, Any]],
    pad_token_id: int,
    of_batch: Callable[[list[int], dict[str, Any]], list[Found]],
    more: int = 0,
) -> list[Found]:
    """Return what is found of rows in batches of similar length, in the order of the rows.

    `of_batch` is given the indices of some rows and these as one batch, which has room for `more` tokens a row.
    """
    found: dict[int, Found] = {}
    for indices in by_length([row["input_ids"].shape[1] + more for row in encoded]):
        batch = padded([encoded[index] for index in indices], pad_token_id)
        found |= zip(indices, of_batch(indices, batch), strict=True)
    return [found[index] for index in range(len(encoded))]


def read(model: Any, batch: dict[str, Any]) -> tuple[list[float], Any]:
    """Return the loss of each row of a batch [rows, length], and the cache that has read it if that is a plain one."""
    import torch

    from eyas.model.scores import scores_at

    labels = torch.nn.functional.pad(batch.pop("labels")[:, 1:], (0, 1), value=-100)
    asked = (labels != -100).to(model.device)
    targets = labels.to(model.device)[asked]
    batch = _moved(batch, model)
    shared, cache = read_prefix(model, batch["input_ids"].tolist(), int(asked.any(0).int().argmax()))
    if shared:
        batch |= {"input_ids": batch["input_ids"][:, shared:], "past_key_values": cache}
        asked = asked[:, shared:]
    with torch.inference_mode(), scores_at(model, asked):
        outputs = model(**batch, use_cache=True)
    scores = outputs.logits
    if scores.shape[:2] == asked.shape:  # OPT's head asks its decoder past the model around that
        scores = scores[asked]
    scores = scores.reshape(-1, scores.shape[-1]).float()  # [labelled tokens, vocabulary]
    losses = torch.nn.functional.cross_entropy(scores, targets, reduction="none")
    return [float(own.mean()) for own in losses.split(asked.sum(1).tolist())], plain_cache(model, outputs)


def _class_losses(model: Any, batch: dict[str, Any]) -> list[tuple[float, int]]:
    import torch

    labels = batch.pop("labels")
    with torch.inference_mode():
        scores = model(**_moved(batch, model)).logits.float().cpu()  # [rows, classes]
    losses = torch.nn.functional.cross_entropy(scores, labels, reduction="none")
    return list(zip(losses.tolist(), scores.argmax(-1).tolist(), strict=True))


def _moved(batch: dict[str, Any], model: Any) -> dict[str, Any]:
    return {name: value.to(model.device) for name, value in batch.items()}
