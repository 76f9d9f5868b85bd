"""Rows prepared without a model: files, their refusals, and the text that is trained."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoTokenizer

import stand_ins
from eyas.data.examples import LABELED, LANGUAGE, TAGGED, ModelLimits
from eyas.data.masks import IGNORED
from eyas.data.prepare import prepare
from eyas.data.splits import Split, Splits
from eyas.recipe import Recipe

TEMPLATES = Path(__file__).parent / "data" / "chat_templates"
SPECS = {"sft": LANGUAGE, "sequence_classification": LABELED, "token_classification": TAGGED}


@cache
def _folder(bert: bool) -> Path:
    folder = Path(_KEPT.name) / ("bert" if bert else "chat")
    stand_ins.tokenizer(folder, chat=not bert, bert=bert)
    return folder


_KEPT = TemporaryDirectory(prefix="eyas-tokenizer-")


def tokenizer(template: str | None = None, task: str = "sft") -> Any:
    """A tokenizer with a chat template: the name of a file, the template itself, or that of the tokenizer."""
    made = AutoTokenizer.from_pretrained(_folder(bert=task != "sft"))
    if template is not None:
        file = TEMPLATES / f"{template}.jinja"
        made.chat_template = template if "{" in template else file.read_text(encoding="utf-8")
    return made


def write_rows(file: Path, rows: list[Any]) -> Path:
    """Write rows as JSON lines."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def prepared(
    source: Path | str | dict, folder: Path, task: str = "sft", template: str | None = None, **data: Any
) -> Splits:
    """Prepare the rows of a file, or of a source with its settings."""
    train = source if isinstance(source, dict) else {"path": str(source)}
    data = {"train": train, "cache_directory": str(folder / "prepared"), **data}
    recipe = Recipe.model_validate({"task": task, "model": {"name": "m"}, "data": data})
    return prepare(recipe, tokenizer(template, task), SPECS[task], ModelLimits(512, 400))


def rows_in(split: Split) -> list[Any]:
    """The canonical rows of a split, in order."""
    return [split.rows[row] for row in range(len(split.rows))]


def trained_texts(split: Split, template: str | None = None) -> list[str]:
    """The trained tokens of each example as text."""
    decode = tokenizer(template).decode
    return [decode([label for label in example["labels"] if label != IGNORED]) for example in split.examples]
