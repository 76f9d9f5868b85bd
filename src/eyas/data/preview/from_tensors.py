"""From the tensors of a batch to what they show."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from eyas.data.masks import IGNORED
from eyas.data.preview.batch import Batch, BatchRow, Document, Kind, Token
from eyas.data.preview.provenance import Origins
from eyas.data.preview.token_text import token_texts
from eyas.data.splits import Split


def preview(batch: Mapping[str, Any], split: Split, tokenizer: Any, labels: Sequence[str] | None) -> Batch:
    """Return what a batch of tensors holds: `input_ids` [rows, length] with `labels` of its shape, or one class a row.

    What is no padding is said by `attention_mask`; a flat row has `position_ids` instead, which begin again at 0 with
    each document.
    """
    origins = Origins(split)
    columns = {name: batch[name].tolist() for name in ("input_ids", "labels", "attention_mask", "position_ids")
               if name in batch}  # fmt: skip
    rows = []
    for index, ids in enumerate(columns["input_ids"]):
        row = {name: column[index] for name, column in columns.items()}
        read = _read(row, tokenizer.pad_token_id)
        borders = [0, *_later_starts(row, read), len(ids)]
        documents = [_document(row, read, range(*ends), split, origins, tokenizer) for ends in pairwise(borders)]
        rows.append(BatchRow(documents, labels[row["labels"]] if labels is not None else None))
    return Batch(rows)


def _read(row: Mapping[str, Any], pad_token_id: int) -> list[bool]:
    """Return which tokens are no padding."""
    if "attention_mask" in row:
        return [bool(attended) for attended in row["attention_mask"]]
    ids, positions = row["input_ids"], row["position_ids"]
    read = [True] * len(ids)
    # TRL pads a flat row to a multiple with position 0, as if each such token were a document.
    for index in range(len(ids) - 1, 0, -1):
        if positions[index] or ids[index] != pad_token_id:
            break
        read[index] = False
    return read


def _later_starts(row: Mapping[str, Any], read: Sequence[bool]) -> list[int]:
    """Return where documents begin, but for the first."""
    positions = row.get("position_ids", ())
    return [index for index, position in enumerate(positions) if index and position == 0 and read[index]]


def _document(
    row: Mapping[str, Any], read: Sequence[bool], where: range, split: Split, origins: Origins, tokenizer: Any
) -> Document:
    ids, labels = row["input_ids"], row["labels"]
    kept = [index for index in where if read[index]]
    texts = dict(zip(kept, token_texts([ids[index] for index in kept], tokenizer), strict=True))
    a_class = isinstance(labels, int)
    tokens = []
    for index in where:
        label = None if a_class else labels[index]
        kind: Kind = "padding" if not read[index] else "masked" if label in (None, IGNORED) else "trained"
        tokens.append(Token(index, ids[index], label, texts.get(index, ""), kind))
    found = origins.of([ids[index] for index in kept], labels if a_class else [labels[index] for index in kept])
    examples = [split.examples[index] for index in found]
    places = list(dict.fromkeys(split.place(example["row"]) for example in examples))
    return Document(tokens, places, examples[0]["full_length"] if examples else None)
