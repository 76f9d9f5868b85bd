"""Shape of a micro-batch, padded or concatenated."""

from types import SimpleNamespace

import pytest
from datasets import Dataset

from conftest import ROOT
from eyas.data.examples import LANGUAGE
from eyas.data.splits import Split
from eyas.recipe import load_recipe
from eyas.training.guards import batch_shape
from eyas.training.guards.batch_shape import BatchShape, largest_batch

LENGTHS = (10, 60, 100, 30)
EXAMPLES = Dataset.from_list([{"lengths": [length], "row": 7 + row} for row, length in enumerate(LENGTHS)])
PACKED = Dataset.from_list([{"rows": [1, 3], "seq_lengths": [60, 30]}, {"rows": [2], "seq_lengths": [100]}])
ROWS = SimpleNamespace(place=lambda row: f"a.jsonl:{row}")


@pytest.fixture
def largest(overrides_for, monkeypatch):
    """Return the largest of the micro-batches with these indices."""

    def of(batches, *words, name="falcon7b_lora", sequences=None):
        monkeypatch.setattr(batch_shape, "micro_batches", lambda *_: batches)
        file = ROOT / "recipes" / f"{name}.yaml"
        split = Split(rows=ROWS, examples=EXAMPLES, spec=LANGUAGE, sequences=sequences)
        return largest_batch(load_recipe(file, [*overrides_for(file), *words]), split, None, None)

    return of


def test_padded_rows_are_as_wide_as_the_longest(largest):
    shape = largest([[0, 3], [1, 2], [0, 1]], "training.packing=false")

    assert shape == BatchShape(rows=2, width=100, tokens=160, longest=100, longest_at="a.jsonl:9", flat=False)
    assert shape.held == 200 and shape.padding == pytest.approx(0.2)
    assert shape.text() == "2 rows × 100 tokens, 20% of them padding; the longest is a.jsonl:9 with 100 tokens"


def test_the_largest_batch_holds_the_most_tokens_not_the_longest_row(largest):
    assert largest([[2], [1, 1, 1]], "training.packing=false").tokens == 180


def test_rows_padded_to_max_length_are_that_wide(largest):
    shape = largest([[0, 3]], "training.max_length=128", name="distilbert_lora_yelp")

    assert (shape.width, shape.tokens, shape.held) == (128, 40, 256)


def test_packed_rows_are_concatenated_and_their_longest_document_is_named(largest):
    shape = largest([[0, 1]], sequences=PACKED)

    assert shape == BatchShape(rows=2, width=100, tokens=190, longest=100, longest_at="a.jsonl:9", flat=True)
    assert shape.held == 190 and shape.padding == 0
    assert shape.text() == "2 rows concatenated, 190 tokens; the longest is a.jsonl:9 with 100 tokens"


def test_unknown_rows_have_no_largest_batch(largest):
    assert largest(None) is None and largest([]) is None
