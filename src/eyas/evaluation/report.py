"""Report of a run: conclusion, scores, settings, proof of the merge, data, loss curve, and answers."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eyas.data.report import DataReport
from eyas.errors import CheckpointError
from eyas.evaluation.classes import class_table, confusion_table, scores_of_classes
from eyas.evaluation.compare import Comparison
from eyas.evaluation.conclusion import conclusion, remarks
from eyas.evaluation.plots import plot_loss, plot_scores
from eyas.evaluation.records import Record, write_records
from eyas.evaluation.run_tables import data_table, defects_of_data, settings_table
from eyas.export.proof import PARITY_HEADER, parity_rows, recorded_parity
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.sealing import faults, seal
from eyas.verify import MADE_FROM, sources_of

SHOWN_ROWS = 5
Answers = Mapping[str, Mapping[str, str]]
"""Answers to the recipe's own prompts, by prompt and model."""


def refuse_to_overwrite(run: RunDirectory) -> None:
    """Raise CheckpointError for a report folder with content that eyas did not write."""
    if run.report.exists() and (foreign := faults(run.report)):
        raise CheckpointError(f"{foreign[0]}; move or remove {run.report}, then write the report again")


def write_report(
    run: RunDirectory,
    recipe: Recipe,
    comparison: Comparison,
    records: Mapping[str, Sequence[Record]],
    answers: Answers,
    refusal: str | None = None,
) -> None:
    """Write report.md, its plots and each model's records into the run, and seal the folder.

    `refusal` is the reason for a missing merged model.
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
    answers: Answers,
    refusal: str | None,
) -> str:
    parts = [
        *_summary(run, recipe, comparison, records, refusal),
        *_classes(records),
        *_merge(run),
        *_data(run),
        "## Loss during training\n\n![loss](loss.png)",
        *_mistakes(records),
        *_answers(comparison, records, answers),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(
    run: RunDirectory,
    recipe: Recipe,
    comparison: Comparison,
    records: Mapping[str, Sequence[Record]],
    refusal: str | None,
) -> Iterator[str]:
    manifest = run.read_manifest()
    yield f"# {run.path.name}: before and after"
    yield f"**{conclusion(comparison, records)}**"
    if refusal is not None:
        yield f"**No merged model was released.** {refusal}"
    yield from remarks(manifest, comparison.kind)
    yield f"## Scores\n\n{comparison.title}."
    yield _table(comparison.table())
    if differences := comparison.differences_table():
        yield f"Differences on the same rows, with paired intervals:\n\n{_table(differences)}"
    yield "![scores](scores.png)"
    yield f"## Training\n\n{_table(settings_table(recipe, manifest))}"


def _classes(records: Mapping[str, Sequence[Record]]) -> Iterator[str]:
    """Yield the classes of the last model, which is the one to release."""
    model, rows = list(records.items())[-1]
    if scores := scores_of_classes(rows):
        yield f"## Classes of the {model} model\n\n{_table(class_table(scores))}"
        if confusion := confusion_table(rows):
            yield f"Rows of each class, by the class that is predicted:\n\n{_table(confusion)}"


def _merge(run: RunDirectory) -> Iterator[str]:
    parity = recorded_parity(run)
    if parity is not None:
        yield f"## Is the merged model what was trained?\n\n{_table([PARITY_HEADER, *parity_rows(parity)])}"


def _data(run: RunDirectory) -> Iterator[str]:
    report = DataReport.of_run(run)
    if report is None:
        raise CheckpointError(f"{run.data_report}: is missing; restore it from a copy")
    yield f"## Data\n\n{_table(data_table(report))}"
    if defects := defects_of_data(report):
        yield "\n".join(f"- {line}" for line in defects)


def _mistakes(records: Mapping[str, Sequence[Record]]) -> Iterator[str]:
    """Yield the wrong answers of the last model with the highest losses."""
    model, rows = list(records.items())[-1]
    wrong = sorted((row for row in rows if _is_wrong(row)), key=lambda row: -float(row["loss"]))
    if wrong:
        lines = [_quoted(row, {f"{model} (loss {row['loss']:.2f})": row["answer"]}) for row in wrong[:SHOWN_ROWS]]
        yield "\n\n".join([f"## Worst mistakes of the {model} model", *lines])


def _is_wrong(row: Record) -> bool:
    if "right" in row:
        return not all(row["right"].values())
    return "answer" in row and bool(row["answer"] != row["expected"])


def _answers(comparison: Comparison, records: Mapping[str, Sequence[Record]], answers: Answers) -> Iterator[str]:
    yield "## Answers"
    for index in range(min(SHOWN_ROWS, comparison.rows)):
        first = next(iter(records.values()))[index]
        if "answer" in first:
            yield _quoted(first, {model: rows[index]["answer"] for model, rows in records.items()})
    for prompt, by_model in answers.items():
        yield f"> {prompt}\n\n" + "\n".join(f"- **{model}**: {_inline(text)}" for model, text in by_model.items())


def _quoted(row: Record, answers: Mapping[str, Any]) -> str:
    """Return a row's prompt, its expected answer and these answers."""
    prompt = row.get("text") or (row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1]["content"])
    lines = [f"- **{name}**: {_inline(answer)}" for name, answer in answers.items()]
    return "\n".join([f"> {_inline(prompt)}", "", f"- expected: {_inline(row['expected'])}", *lines])


def _table(lines: Sequence[Sequence[str]]) -> str:
    header, *body = ["| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines]
    return "\n".join([header, "|" + "---|" * len(lines[0]), *body])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _inline(text: Any) -> str:
    return " ".join(str(text).split())[:300]
