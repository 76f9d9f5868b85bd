"""Scores are refused where the held-out rows of a run have changed."""

import pytest

from eyas.cli.open_run import OpenRun
from eyas.data.sources import digest_of_source
from eyas.errors import DataError
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory


@pytest.mark.parametrize("path", ["held_out/a.jsonl", "held_out/*.jsonl", "held_out"])
def test_changed_rows_of_a_file_a_pattern_and_a_folder_are_refused(path, tmp_path):
    file = tmp_path / "held_out" / "a.jsonl"
    file.parent.mkdir()
    file.write_text('{"text": "one row"}\n')
    data = {"train": {"path": "rows.jsonl"}, "evaluation": {"path": str(tmp_path / path)}}
    recipe = Recipe.model_validate({"task": "sft", "model": {"name": "m"}, "data": data})
    source = recipe.data.held_out_sources["evaluation"]
    run = RunDirectory(tmp_path / "run")
    run.record(digests={"base": "sha256:0", "data": {}, "sources": {str(source): digest_of_source(source)}})
    opened = OpenRun(run, recipe, task=None, tokenizer=None)

    opened.refuse_changed_rows()
    file.write_text('{"text": "another"}\n')
    with pytest.raises(DataError, match="its held-out rows have changed since the training"):
        opened.refuse_changed_rows()

    file.unlink()
    file.parent.rmdir()
    opened.refuse_changed_rows()  # the rows that the run kept are scored
