"""Loss of each row, computed in batches of similar length."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from eyas.data.batches import by_length, padded
from eyas.data.masks import IGNORED
from eyas.inference.shared_prefix import plain_cache, read_prefix

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

Result = TypeVar("Result")


def token_losses(model: "PreTrainedModel", encoded: Sequence[dict[str, Any]], pad_token_id: int) -> list[float]:
    """Return each row's loss under a language model, in nats.

    The loss is the mean over labeled tokens. A row holds tensors [1, length], `labels` among them.
    Each position predicts the next token.
    """
    return in_batches(encoded, pad_token_id, lambda _indices, batch: read(model, batch)[0])


def class_losses(
    model: "PreTrainedModel", encoded: Sequence[dict[str, Any]], pad_token_id: int
) -> list[tuple[float, int]]:
    """Return each row's loss under a classifier, in nats, and its predicted class.

    A row holds tensors [1, length], and `labels` [1].
    """
    return in_batches(encoded, pad_token_id, lambda _indices, batch: _class_losses(model, batch))


def tag_losses(
    model: "PreTrainedModel", encoded: Sequence[dict[str, Any]], pad_token_id: int
) -> list[tuple[float, list[int]]]:
    """Return each row's mean loss over its labeled tokens, in nats, and their predicted classes.

    A row holds tensors [1, length], `labels` among them; each position has its own class.
    """
    return in_batches(encoded, pad_token_id, lambda _indices, batch: _tag_losses(model, batch))


def in_batches(
    encoded: Sequence[dict[str, Any]],
    pad_token_id: int,
    of_batch: Callable[[list[int], dict[str, Any]], list[Result]],
    more: int = 0,
) -> list[Result]:
    """Apply `of_batch` to batches of similar length; return results in the rows' order.

    `of_batch` takes the indices of some rows and those rows as one batch. A row may grow by `more` tokens.
    """
    results: dict[int, Result] = {}
    for indices in by_length([row["input_ids"].shape[1] + more for row in encoded]):
        batch = padded([encoded[index] for index in indices], pad_token_id)
        results |= zip(indices, of_batch(indices, batch), strict=True)
    return [results[index] for index in range(len(encoded))]


def read(model: "PreTrainedModel", batch: dict[str, Any]) -> "tuple[list[float], Cache | None]":
    """Return the loss of each row of a batch, and the model's cache.

    The batch holds tensors [rows, length]. The cache is None if it holds more than keys and values.
    """
    import torch

    from eyas.model.scores import scores_at

    labels = torch.nn.functional.pad(batch.pop("labels")[:, 1:], (0, 1), value=-100)
    labeled = (labels != -100).to(model.device)
    targets = labels.to(model.device)[labeled]
    batch = _moved(batch, model)
    shared, cache = read_prefix(model, batch["input_ids"].tolist(), int(labeled.any(0).int().argmax()))
    if shared:
        batch |= {"input_ids": batch["input_ids"][:, shared:], "cache": cache}
        labeled = labeled[:, shared:]
    with torch.inference_mode(), scores_at(model, labeled):
        outputs = model(**batch, use_cache=True)
    scores = outputs.logits
    if len(scores) == len(labeled) and scores.shape[1] >= labeled.shape[1]:
        # OPT calls its decoder directly, past the hook of scores_at. Virtual tokens stand before the row.
        scores = scores[:, -labeled.shape[1] :][labeled]
    scores = scores.reshape(-1, scores.shape[-1]).float()  # [labeled tokens, vocabulary]
    losses = torch.nn.functional.cross_entropy(scores, targets, reduction="none")
    return [float(own.mean()) for own in losses.split(labeled.sum(1).tolist())], plain_cache(model, outputs)


def _class_losses(model: "PreTrainedModel", batch: dict[str, Any]) -> list[tuple[float, int]]:
    import torch

    labels = batch.pop("labels")
    with torch.inference_mode():
        scores = model(**_moved(batch, model)).logits.float().cpu()  # [rows, classes]
    losses = torch.nn.functional.cross_entropy(scores, labels, reduction="none")
    return list(zip(losses.tolist(), scores.argmax(-1).tolist(), strict=True))


def _tag_losses(model: "PreTrainedModel", batch: dict[str, Any]) -> list[tuple[float, list[int]]]:
    import torch

    labels = batch.pop("labels")
    with torch.inference_mode():
        scores = model(**_moved(batch, model)).logits.float().cpu()  # [rows, length, classes]
    labeled = labels != IGNORED
    losses = torch.nn.functional.cross_entropy(scores[labeled], labels[labeled], reduction="none")
    sizes = labeled.sum(1).tolist()
    each = zip(losses.split(sizes), scores[labeled].argmax(-1).split(sizes), strict=True)
    return [(float(own.mean()), choices.tolist()) for own, choices in each]


def _moved(batch: dict[str, Any], model: "PreTrainedModel") -> dict[str, Any]:
    return {name: value.to(model.device) for name, value in batch.items()}
