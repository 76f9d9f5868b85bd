"""Prepared rows are reused, unless a part of the key has changed. The miss names it."""

import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from eyas.data import cache_key
from eyas.data.examples import LANGUAGE, ModelLimits
from eyas.data.prepare import prepare
from eyas.recipe import Recipe

LIMITS = ModelLimits(512, 400)


class Preparation:
    """Preparation of a recipe's rows. A test changes one thing at a time and calls it again."""

    def __init__(self, models: dict[str, Path], folder: Path) -> None:
        self.folder = folder
        self.rows = [[("user", f"hill {row}"), ("assistant", "mice")] for row in range(30)]
        self.settings: dict[str, Any] = {"training": {"max_length": 64}}
        self.data: dict[str, Any] = {}
        self.tokenizer = AutoTokenizer.from_pretrained(models["smollm2"])
        self.limits = LIMITS

    def __call__(self) -> None:
        for name, rows in (("train", self.rows), ("test", self.rows[:3])):
            chats = [{"messages": [{"role": role, "content": content} for role, content in row]} for row in rows]
            lines = "".join(json.dumps(chat) + "\n" for chat in chats)
            (self.folder / f"{name}.jsonl").write_text(lines)
        data = {
            "train": {"path": str(self.folder / "train.jsonl")},
            "evaluation": {"path": str(self.folder / "test.jsonl")},
            "limits": {"overlap": 1.0},
            "cache_directory": str(self.folder / "prepared"),
        }
        recipe = {"task": "sft", "model": {"name": "m"}, "data": data | self.data, **self.settings}
        prepare(Recipe.model_validate(recipe), self.tokenizer, LANGUAGE, self.limits)


@pytest.fixture
def job(models, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="eyas")
    return Preparation(models, tmp_path)


def last_message(caplog: pytest.LogCaptureFixture) -> str:
    lines = [record.getMessage() for record in caplog.records if record.name == "eyas.data.cache"]
    return lines[-1]


def change_a_row(job: Preparation) -> None:
    job.rows[7][1] = ("assistant", "mise")


def add_a_row(job: Preparation) -> None:
    job.rows.append(job.rows[0])


def swap_two_rows(job: Preparation) -> None:
    job.rows[10], job.rows[11] = job.rows[11], job.rows[10]


def change_a_held_out_row(job: Preparation) -> None:
    job.rows[0] = [("user", "another"), ("assistant", "mice")]


def change_the_template(job: Preparation) -> None:
    job.tokenizer.chat_template = job.tokenizer.chat_template.replace("'\n'", "'\n\n'", 1)


def add_a_token(job: Preparation) -> None:
    job.tokenizer.add_tokens(["falconry"])


def change_the_end_token(job: Preparation) -> None:
    job.tokenizer.eos_token = "<|endoftext|>"


def change_the_length(job: Preparation) -> None:
    job.settings["training"]["max_length"] = 48


def pack(job: Preparation) -> None:
    job.settings["training"]["packing"] = True


def change_the_seed(job: Preparation) -> None:
    job.settings["training"]["seed"] = 7


def learn_the_prompts_too(job: Preparation) -> None:
    job.data["answers_only"] = False


def rename_a_variable_of_the_template(job: Preparation) -> None:
    job.data["chat_template_kwargs"] = {"enable_thinking": False}


def draw_a_subset(job: Preparation) -> None:
    job.data["train"] = {"path": str(job.folder / "train.jsonl"), "rows": 10}


def shorten_the_model(job: Preparation) -> None:
    job.limits = ModelLimits(256, 400)


CHANGES = {
    change_a_row: "training rows", add_a_row: "training rows", swap_two_rows: "training rows",
    change_a_held_out_row: "training rows, held-out rows", change_the_template: "chat template",
    add_a_token: "tokenizer", change_the_end_token: "tokenizer", change_the_length: "training.max_length",
    pack: "training.packing", change_the_seed: "training.seed", learn_the_prompts_too: "data.answers_only",
    rename_a_variable_of_the_template: "data.chat_template_kwargs", draw_a_subset: "training sources",
    shorten_the_model: "positions of the model",
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_each_kind_of_change_misses_and_is_named(change, job, caplog):
    job()
    assert last_message(caplog) == "preparing rows: no cache entry"

    change(job)
    job()

    assert last_message(caplog) == f"preparing rows: changed since the last start: {CHANGES[change]}"


def test_different_job_lists_no_changes(job, caplog):
    job()
    for change in (pack, change_the_length, change_the_seed, learn_the_prompts_too, draw_a_subset, add_a_token):
        change(job)
    job()

    assert last_message(caplog) == "preparing rows: no cache entry"


@pytest.mark.parametrize("what", ["eyas", "transformers"])
def test_other_version_of_the_code_misses_and_is_named(what, job, caplog, monkeypatch):
    job()
    if what == "eyas":
        names = {
            file.relative_to(Path(cache_key.__file__).parent).as_posix()
            for file in Path(cache_key.__file__).parent.rglob("*.py")
        }
        assert {"examples.py", "masks/turns.py", "formats/table.py"} <= names
        monkeypatch.setattr(
            cache_key, "digest_of_files", lambda files: "another" if len(list(files)) == len(names) else "same"
        )
    else:
        monkeypatch.setattr(cache_key, "version", lambda name: "9.9" if name == what else "1")
        monkeypatch.setattr(cache_key, "LIBRARIES", (what,))
    job()

    assert f"changed since the last start: {what}" in last_message(caplog)


def test_unchanged_preparation_is_reused_and_older_entries_stay(job, caplog):
    job()
    job()
    assert last_message(caplog).startswith("prepared rows: reusing")

    change_the_length(job)
    job()
    job.settings["training"]["max_length"] = 64
    job()

    assert last_message(caplog).startswith("prepared rows: reusing")


def test_entry_with_a_flipped_byte_is_prepared_again(job, caplog):
    job()
    (file,) = (job.folder / "prepared").glob("*/train.arrow")
    flipped = bytearray(file.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    file.write_bytes(bytes(flipped))
    job()

    messages = [record.getMessage() for record in caplog.records if record.name == "eyas.data.cache"]
    assert "is corrupt; preparing them again" in messages[-2]
    assert bytes(flipped) != file.read_bytes()


def test_killed_preparation_leaves_no_entry(job, monkeypatch):
    monkeypatch.setattr("eyas.data.prepare.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        job()
    monkeypatch.undo()

    assert [entry for entry in (job.folder / "prepared").iterdir() if entry.is_dir() and entry.name[0] != "."] == []
    job()


PROGRAM = """
import sys, time
sys.path[:0] = [{tests!r}, {here!r}]
from pathlib import Path
from transformers import AutoTokenizer
from eyas.data.examples import LANGUAGE
from eyas.data.prepare import prepare
from eyas.data.examples import ModelLimits
from eyas.recipe import load_recipe
tokenizer = AutoTokenizer.from_pretrained({model!r})
began = time.perf_counter()
splits = prepare(load_recipe({recipe!r}), tokenizer, LANGUAGE, ModelLimits(512, 400))
print(splits.digests["train"], time.perf_counter() - began)
"""


@pytest.mark.slow
@pytest.mark.alone
def test_two_processes_prepare_fifty_thousand_rows_once_and_reuse_takes_seconds(models, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    rows = ({"text": f"{row}: the falcon flew over a green hill " * 4} for row in range(50_000))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe.write_text(
        f"task: sft\nmodel: {{name: m}}\ndata: {{train: {{path: {tmp_path}/a.jsonl}}, cache_directory: {tmp_path}/p}}\n"
    )
    program = PROGRAM.format(tests="", here="", model=str(models["falcon7b"]), recipe=str(recipe))

    def begin() -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)

    both = [begin(), begin()]
    digests = [process.communicate()[0].split()[0] for process in both]
    written = [path.stat().st_mtime_ns for path in tmp_path.glob("p/*/*.arrow")]
    started = time.monotonic()
    digest, seconds = begin().communicate()[0].split()

    print(f"second start of 50,000 rows: {float(seconds):.2f} s of {time.monotonic() - started:.1f} s in all")
    assert digests == [digest, digest]
    assert written == [path.stat().st_mtime_ns for path in tmp_path.glob("p/*/*.arrow")] and len(written) == 2
    assert float(seconds) < 3
