"""Preview of a batch, read from its tensors."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from eyas.data.masks import IGNORED
from eyas.data.preview.batch import Batch, BatchRow, Document, Kind, Token
from eyas.data.preview.provenance import Origins
from eyas.data.preview.token_text import token_texts
from eyas.data.row_spec import Columns, TokenSequence
from eyas.data.splits import Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def preview(
    batch: Mapping[str, Any], split: Split, tokenizer: "PreTrainedTokenizerBase", labels: Sequence[str] | None
) -> Batch:
    """Return the preview of a collated batch of tensors, whose rows the split's spec reads.

    `attention_mask` [rows, length] marks padding. A flat row has `position_ids` instead, which restart at 0 with each
    document. `labels` are the class names.
    """
    origins = Origins(split)
    rows = []
    for columns in _rows(batch):
        sequence = split.spec.batch_sequence(columns)
        kept = _not_padding(columns, sequence.ids, tokenizer.pad_token_id)
        borders = [0, *_later_starts(columns, kept), len(sequence.ids)]
        documents = [_document(sequence, kept, range(*ends), split, origins, tokenizer) for ends in pairwise(borders)]
        index = sequence.class_index
        rows.append(BatchRow(documents, labels[index] if labels is not None and index is not None else None))
    return Batch(rows)


def _rows(batch: Mapping[str, Any]) -> list[Columns]:
    """Return each row's values of the columns that have one value per row."""
    count = len(batch["attention_mask"] if "attention_mask" in batch else batch["position_ids"])
    columns = {name: value.tolist() for name, value in batch.items() if hasattr(value, "tolist") and value.ndim}
    columns = {name: values for name, values in columns.items() if len(values) == count}
    return [{name: values[index] for name, values in columns.items()} for index in range(count)]


def _not_padding(columns: Columns, ids: Sequence[int], pad_token_id: int) -> list[bool]:
    """Return True for each token that is not padding."""
    if "attention_mask" in columns:
        return [bool(attended) for attended in columns["attention_mask"]]
    positions = columns["position_ids"]
    kept = [True] * len(ids)
    # TRL pads a flat row to a multiple with position 0, as if each such token were a document.
    for index in range(len(ids) - 1, 0, -1):
        if positions[index] or ids[index] != pad_token_id:
            break
        kept[index] = False
    return kept


def _later_starts(columns: Columns, kept: Sequence[bool]) -> list[int]:
    """Return the start of each document except the first."""
    positions = columns.get("position_ids", ())
    return [index for index, position in enumerate(positions) if index and position == 0 and kept[index]]


def _document(
    sequence: TokenSequence,
    kept: Sequence[bool],
    where: range,
    split: Split,
    origins: Origins,
    tokenizer: "PreTrainedTokenizerBase",
) -> Document:
    ids, labels = sequence.ids, sequence.labels
    without_padding = [index for index in where if kept[index]]
    texts = dict(zip(without_padding, token_texts([ids[index] for index in without_padding], tokenizer), strict=True))
    tokens = []
    for index in where:
        label = None if labels is None else labels[index]
        kind: Kind = "padding" if not kept[index] else "masked" if label in (None, IGNORED) else "trained"
        tokens.append(Token(index, ids[index], label, texts.get(index, ""), kind))
    document = TokenSequence(
        [ids[index] for index in without_padding],
        None if labels is None else [labels[index] for index in without_padding],
        sequence.class_index,
    )
    examples = [(split.examples[example], position) for example, position in origins.of(document)]
    places = list(dict.fromkeys(split.place(example["row"]) for example, _ in examples))
    return Document(tokens, places, examples[0][0]["full_lengths"][examples[0][1]] if examples else None)
