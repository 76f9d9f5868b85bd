"""`eyas preview` on every shipped recipe."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import RECIPES, ROOT
from eyas.cli.main import app

TEXTS = ROOT / "recipes" / "falcon7b_qlora.yaml"
CLASSES = ROOT / "recipes" / "minilm_lora_sentiment.yaml"


@pytest.fixture
def preview(overrides_for, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")

    def run(recipe: Path, *words):
        return CliRunner().invoke(app, ["preview", *map(str, [recipe, *overrides_for(recipe), *words])])

    return run


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_a_shipped_recipe_is_shown(recipe, preview):
    found = preview(recipe)

    assert found.exit_code == 0, found.output
    assert "batch 1 · " in found.output and "row 1 · " in found.output and "train.jsonl:" in found.output
    assert "not among the prepared rows" not in found.output
    assert "\x1b" not in found.output


def test_every_row_is_shown_with_the_text_at_its_line(preview):
    found = preview(TEXTS, "training.packing=false", "--batches", "6")

    lines = found.output.splitlines()
    shown = {
        lines[place].split(" · ")[1]: lines[place + 1] for place in range(len(lines)) if lines[place][:4] == "row "
    }
    assert len(shown) == 24
    for place, text in shown.items():
        file, _, line = place.rpartition(":")
        row = json.loads(Path(file).read_text().splitlines()[int(line) - 1])
        first, _, learnt = text.partition("⟧")[0].partition("⟦")  # the first token has no context, so it is not trained
        assert first and first + learnt == f"{row['text']}<|endoftext|>"


@pytest.mark.parametrize(
    "words", [["training.packing=true"], ["training.packing=false", "training.padding_free=true"]], ids=str
)
def test_each_document_of_a_flat_row_is_found_in_its_file(words, preview):
    found = preview(TEXTS, *words, "--batches", "9")

    places = [line.split()[1] for line in found.output.splitlines() if line.startswith("┄┄")]
    assert len(places) == len(set(places)) == 24 and all("train.jsonl:" in place for place in places)


def test_a_truncated_row_is_marked(preview):
    assert "· cut: " not in preview(TEXTS).output
    assert "· cut: " in preview(TEXTS, "training.max_length=10").output


def test_a_stream_is_shown(preview):
    found = preview(TEXTS, "training.packing=false", "data.streaming=true")

    assert found.exit_code == 0 and "train.jsonl:1 · " in found.output


def test_an_epoch_with_fewer_batches_than_requested_is_reported(preview):
    found = preview(CLASSES, "--batches", "5")

    assert "batch 2 · 8 rows" in found.output and "an epoch has only these 2 batches" in found.output


def test_an_html_page_is_written(preview, tmp_path):
    found = preview(CLASSES, "--html", tmp_path / "page.html")

    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert found.exit_code == 0 and "row 1" not in found.output
    assert "<title>minilm_lora_sentiment: what the trainer gets</title>" in page
    assert "24 rows read; 24 examples" in page and page.count("<article>") == 16


def test_an_html_page_that_cannot_be_written_is_reported_in_one_line(preview, tmp_path):
    found = preview(CLASSES, "--html", tmp_path / "nowhere" / "page.html")

    assert found.exit_code == 2 and "cannot be written: No such file or directory" in found.output


def test_missing_files_are_reported_before_anything_is_loaded(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    found = CliRunner().invoke(app, ["preview", str(CLASSES)])

    assert found.exit_code == 1 and found.output.count("run `eyas demo` first") == 3


def test_a_preview_works_while_the_run_exists(preview, tmp_path):
    taken = tmp_path / "run"
    taken.mkdir()
    (taken / "manifest.json").write_text("{}")

    found = preview(CLASSES, f"run_directory={taken}")

    assert found.exit_code == 0 and [entry.name for entry in taken.iterdir()] == ["manifest.json"]
