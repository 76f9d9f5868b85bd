"""Streamed rows: the same in every pass, in bounded memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from eyas.data.examples import LANGUAGE, ModelLimits
from eyas.data.prepare import prepare
from eyas.data.splits import Splits
from eyas.errors import DataError
from eyas.recipe import Recipe


def streamed(
    models: dict[str, Path], folder: Path, rows: list[Any], quarantine: Path | None = None, **data: Any
) -> Splits:
    file = folder / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"train": {"path": str(file)}, "streaming": True, "cache_directory": str(folder / "prepared"), **data}
    training = {"max_steps": 5, "max_length": 64}
    recipe = Recipe.model_validate({"task": "sft", "model": {"name": "m"}, "data": settings, "training": training})
    tokenizer = AutoTokenizer.from_pretrained(models["falcon7b"])
    return prepare(recipe, tokenizer, LANGUAGE, ModelLimits(512, 400), quarantine)


def numbers(models: dict[str, Path], stream: Any) -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(models["falcon7b"])
    return [int(tokenizer.decode(example["input_ids"]).split(":")[0]) for example in stream]


ROWS = [{"text": f"{row}: the hill"} for row in range(1500)]


def test_stream_yields_every_row_in_the_order_of_the_file_in_each_pass(models, tmp_path):
    splits = streamed(models, tmp_path, ROWS)

    assert numbers(models, splits.train.for_trainer) == numbers(models, splits.train.for_trainer) == list(range(1500))
    assert splits.report.train.examples == 1000  # the first, which are counted before training
    assert splits.report.train.paths == [f"{tmp_path}/a.jsonl (the first rows of a stream)"]


def test_order_of_a_shuffled_stream_depends_on_the_seed(models, tmp_path):
    first = numbers(models, streamed(models, tmp_path, ROWS, shuffle_buffer=100).train.for_trainer)
    again = numbers(models, streamed(models, tmp_path, ROWS, shuffle_buffer=100).train.for_trainer)

    assert first == again != list(range(1500)) and sorted(first) == list(range(1500))


def test_weighted_streams_are_mixed_in_their_shares(models, tmp_path):
    other = tmp_path / "b.jsonl"
    other.write_text("".join(json.dumps({"text": f"{9000 + row}: mice"}) + "\n" for row in range(100)))
    sources = [{"path": str(tmp_path / "a.jsonl"), "weight": 3.0}, {"path": str(other), "weight": 1.0}]

    mixed = numbers(models, streamed(models, tmp_path, ROWS, train=sources).train.for_trainer)

    assert [sum(row >= 9000 for row in mixed[:length]) for length in (40, 200, 400)] == [10, 50, 100]


def test_bad_row_stops_a_strict_stream_with_its_line(models, tmp_path):
    rows = [*ROWS[:1200], {"text": None}, *ROWS[1200:]]

    with pytest.raises(DataError, match=r"a\.jsonl:1201: `text` is null"):
        numbers(models, streamed(models, tmp_path, rows).train.for_trainer)


def test_bad_rows_of_a_stream_are_quarantined_once(models, tmp_path):
    rows = [*ROWS[:1200], {"text": None}, *ROWS[1200:]]
    quarantine = tmp_path / "run" / "quarantine.jsonl"

    splits = streamed(models, tmp_path, rows, quarantine, bad_rows="skip")

    assert numbers(models, splits.train.for_trainer) == list(range(1500))  # before there is a run
    quarantine.parent.mkdir()
    for _ in range(2):
        assert numbers(models, splits.train.for_trainer) == list(range(1500))
        assert [json.loads(line)["line"] for line in quarantine.read_text().splitlines()] == [1201]


def test_row_without_a_token_to_train_is_a_bad_row_of_a_stream(models, tmp_path):
    rows = [{"prompt": "hill " * (100 if row == 1100 else 1), "completion": "mice"} for row in range(1200)]

    with pytest.raises(DataError, match=r"a\.jsonl:1101: one of the rows without a token to train"):
        list(streamed(models, tmp_path, rows).train.for_trainer)


def test_change_of_any_byte_of_the_file_changes_the_digest(models, tmp_path):
    before = streamed(models, tmp_path, ROWS).digests
    after = streamed(models, tmp_path, [*ROWS[:-1], {"text": "1499: the hall"}]).digests

    assert before != after


PROGRAM = """
import resource, sys
from eyas.data.examples import LANGUAGE
from eyas.data.prepare import prepare
from eyas.data.examples import ModelLimits
from eyas.recipe import load_recipe
from transformers import AutoTokenizer
splits = prepare(load_recipe(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[2]), LANGUAGE, ModelLimits(512, 400))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
for count, _ in enumerate(splits.train.for_trainer, start=1):
    if count in (10_000, 100_000, 1_000_000):
        print(count, peak())
"""


@pytest.mark.sweep
def test_memory_is_flat_from_ten_thousand_rows_to_a_million(models, tmp_path):
    with (tmp_path / "a.jsonl").open("w") as stream:
        for row in range(1_000_000):
            stream.write(f'{{"text": "{row}: the falcon flew over a green hill and saw small mice run"}}\n')
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "task: sft\nmodel: {name: m}\ntraining: {max_steps: 5}\n"
        f"data: {{train: {{path: {tmp_path}/a.jsonl}}, streaming: true, cache_directory: {tmp_path}/p}}\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(recipe), str(models["falcon7b"])],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    peaks = {int(count): float(mib) for count, mib in map(str.split, done.stdout.splitlines())}
    print(", ".join(f"{mib:,.0f} MiB after {count:,} rows" for count, mib in peaks.items()))
    assert len(peaks) == 3 and peaks[1_000_000] < peaks[10_000] * 1.05
