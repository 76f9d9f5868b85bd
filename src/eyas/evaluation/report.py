"""Report of a run: scores, loss curve, proof of the merge, and answers."""

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from eyas.data.report import DataReport
from eyas.errors import CheckpointError
from eyas.evaluation.compare import Comparison
from eyas.evaluation.plots import plot_loss, plot_scores
from eyas.evaluation.records import Record, write_records
from eyas.export.proof import PARITY_HEADER, parity_rows, recorded_parity
from eyas.files import read_json
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.sealing import faults, seal
from eyas.verify import MADE_FROM, sources_of

SHOWN_ROWS = 5


def refuse_to_overwrite(run: RunDirectory) -> None:
    """Raise CheckpointError for a report folder with content that eyas did not write."""
    if run.report.exists() and (foreign := faults(run.report)):
        raise CheckpointError(f"{foreign[0]}; move or remove {run.report}, then write the report again")


def write_report(
    run: RunDirectory,
    recipe: Recipe,
    comparison: Comparison,
    records: Mapping[str, Sequence[Record]],
    answers: Mapping[str, Mapping[str, str]],
    refusal: str | None = None,
) -> None:
    """Write report.md, its plots and each model's records into the run, and seal the folder.

    `answers` are the answers to the recipe's own prompts. `refusal` is the reason for a missing merged model.
    """
    staged = run.report.with_name(f".{run.report.name}")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    try:
        for model, rows in records.items():
            write_records(staged / f"{model}.jsonl", rows)
        plot_loss(run.metric_lines(), run.path.name, staged / "loss.png")
        plot_scores(comparison, run.path.name, staged / "scores.png")
        page = _markdown(run, recipe, comparison, records, answers, refusal)
        (staged / "report.md").write_text(page, encoding="utf-8")
        seal(staged, run.report, {"kind": run.report.name, MADE_FROM: sources_of(run, run.report)})
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _markdown(
    run: RunDirectory,
    recipe: Recipe,
    comparison: Comparison,
    records: Mapping[str, Sequence[Record]],
    answers: Mapping[str, Mapping[str, str]],
    refusal: str | None,
) -> str:
    manifest = run.read_manifest()
    parts = [
        f"# {run.path.name}: before and after",
        f"{recipe.task} of {_base(recipe)} on `{recipe.data.training_paths}`: {manifest.get('steps')} steps of "
        f"{recipe.training.global_batch_size} rows in {manifest.get('train_seconds', 0):.0f} s.",
        f"{comparison.rows} held-out rows, the same for every model; 95 % bootstrap intervals in brackets.",
        _table(comparison.table()),
        "![scores](scores.png)",
    ]
    parity = recorded_parity(run)
    if parity is not None:
        parts.append(_table([PARITY_HEADER, *parity_rows(parity)]))
    if refusal is not None:
        parts.append(f"**No merged model was released.** {refusal}")
    parts += ["## Data", f"```text\n{_data_report(run).text()}\n```"]
    parts += ["## Loss during training", "![loss](loss.png)", "## Answers"]
    for index in range(min(SHOWN_ROWS, comparison.rows)):
        parts.append(_one_row(index, records))
    for prompt, by_model in answers.items():
        parts.append(
            f"> {prompt}\n\n" + "\n".join(f"- **{model}**: {_inline(text)}" for model, text in by_model.items())
        )
    return "\n\n".join(part for part in parts if part) + "\n"


def _data_report(run: RunDirectory) -> DataReport:
    try:
        return DataReport.from_dict(read_json(run.data_report))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{run.data_report}: is not what was written: {error}; restore it from a copy") from None


def _base(recipe: Recipe) -> str:
    """Return the base's name, with its commit if it is on the hub."""
    commit = "" if recipe.model.is_local or recipe.model.revision is None else f" at `{recipe.model.revision}`"
    return f"`{recipe.model.name}`{commit}"


def _one_row(index: int, records: Mapping[str, Sequence[Record]]) -> str:
    first = next(iter(records.values()))[index]
    if "answer" not in first:
        return ""
    prompt = first.get("text") or (
        first["prompt"] if isinstance(first["prompt"], str) else first["prompt"][-1]["content"]
    )
    lines = [f"> {_inline(prompt)}", "", f"- expected: {_inline(first['expected'])}"]
    return "\n".join([*lines, *(f"- **{model}**: {_inline(rows[index]['answer'])}" for model, rows in records.items())])


def _table(lines: list[list[str]]) -> str:
    header, *body = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([header, "|" + "---|" * len(lines[0]), *body])


def _inline(text: Any) -> str:
    return " ".join(str(text).split())[:300]
