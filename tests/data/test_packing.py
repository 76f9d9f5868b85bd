"""Packed examples: none lost, none cut, little space left, and no prediction across a border."""

import random
import time
from itertools import pairwise

import pytest
from datasets import Dataset
from trl import pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from eyas.data.packing import best_fit, packed

EXAMPLES = {
    "input_ids": [[1, 2, 3], [4, 5], [6], [7, 8, 9, 10]],
    "labels": [[1, 2, 3], [-100, 5], [6], [-100, 8, 9, 10]],
}


def lengths_of_text(count: int) -> list[int]:
    """Many short examples and a few long ones, as in real data."""
    generator = random.Random(0)
    return [min(512, 1 + int(generator.lognormvariate(4, 1))) for _ in range(count)]


def test_every_example_is_in_one_bin_and_no_bin_is_too_full():
    lengths = lengths_of_text(2000)

    bins = best_fit(lengths, 512)

    assert sorted(index for indices in bins for index in indices) == list(range(2000))
    assert max(sum(lengths[index] for index in indices) for indices in bins) <= 512


@pytest.mark.parametrize(
    ("lengths", "bins"),
    [
        ([], []),
        ([8], [[0]]),
        ([8, 8], [[0], [1]]),
        ([2, 5, 3, 6], [[3, 0], [1, 2]]),
        ([6, 5, 3], [[0], [1, 2]]),  # into the fuller bin only if it fits there
        ([5, 6, 2], [[1, 2], [0]]),  # both have space: into the fuller one
        ([1, 1, 1, 1, 4], [[4, 0, 1, 2, 3]]),
    ],
)
def test_longest_goes_first_into_the_fullest_bin_with_space(lengths, bins):
    assert best_fit(lengths, 8) == bins


def test_same_lengths_give_the_same_bins():
    assert best_fit(lengths_of_text(2000), 512) == best_fit(lengths_of_text(2000), 512)


def test_bins_are_as_full_as_those_of_trl():
    """TRL's packing is the same method in other code. Which of two equally full bins takes an example may differ."""
    lengths = lengths_of_text(900)
    theirs = pack_dataset(Dataset.from_dict({"input_ids": [[0] * length for length in lengths]}), 512)

    bins = best_fit(lengths, 512)

    assert sorted(sum(lengths[index] for index in indices) for indices in bins) == sorted(
        len(ids) for ids in theirs["input_ids"]
    )


def test_bins_are_nearly_full():
    lengths = lengths_of_text(5000)

    assert sum(lengths) / (512 * len(best_fit(lengths, 512))) > 0.99


def test_packing_time_grows_linearly_with_the_number_of_examples():
    lengths = lengths_of_text(200_000)

    start = time.perf_counter()
    best_fit(lengths, 512)

    assert time.perf_counter() - start < 20  # half a second on an idle CPU


@pytest.mark.parametrize("length", [0, 9])
def test_example_that_fits_in_no_bin_is_refused(length):
    with pytest.raises(AssertionError, match=f"example 1 has {length} tokens, and a bin takes 8"):
        best_fit([3, length], 8)


def test_packed_row_is_its_examples_end_to_end():
    rows = list(packed(Dataset.from_dict(EXAMPLES), [[3, 0], [2, 1]]))

    assert rows == [
        {
            "input_ids": [7, 8, 9, 10, 1, 2, 3],
            "labels": [-100, 8, 9, 10, -100, 2, 3],
            "seq_lengths": [4, 3],
            "rows": [3, 0],
            "lengths": [7],
        },
        {"input_ids": [6, 4, 5], "labels": [-100, -100, 5], "seq_lengths": [1, 2], "rows": [2, 1], "lengths": [3]},
    ]


def test_no_prediction_crosses_a_border():
    lengths = lengths_of_text(300)
    examples = Dataset.from_dict({column: [[7] * length for length in lengths] for column in EXAMPLES})

    rows = list(packed(examples, best_fit(lengths, 512)))

    assert len(rows) > 10
    for row in rows:
        starts = [sum(row["seq_lengths"][:place]) for place in range(len(row["seq_lengths"]))]
        assert [place for place, label in enumerate(row["labels"]) if label == -100] == starts


def test_trl_reads_the_borders_of_a_packed_row():
    rows = list(packed(Dataset.from_dict(EXAMPLES), [[3, 0], [2, 1]]))

    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(rows)

    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 0, 0, 1]]
    assert [end - start for start, end in pairwise(batch["cu_seq_lens_q"].tolist())] == [4, 3, 1, 2]
    assert batch["labels"].tolist() == [rows[0]["labels"] + rows[1]["labels"]]
