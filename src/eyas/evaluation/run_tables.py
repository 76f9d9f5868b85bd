"""Tables of a run's settings and rows, for its report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eyas.data.report import MEANING, DataReport, SplitReport
from eyas.files import counted, in_units
from eyas.model.parameters import ParameterCount
from eyas.recipe import Recipe


def settings_table(recipe: Recipe, manifest: Mapping[str, Any]) -> list[list[str]]:
    """Return what was trained, how and where: a header, and one line for each fact that is known."""
    return [["", ""], *([name, text] for name, text in _facts(recipe, manifest) if text)]


def _facts(recipe: Recipe, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    training, runs = recipe.training, manifest.get("runs", {})
    options = training.library_arguments
    yield "finished", str(manifest.get("ended", ""))[:10]
    yield "task", recipe.task
    yield "base", _base(recipe)
    yield "method", _method(recipe)
    if "parameters" in runs:
        yield "trainable", str(ParameterCount(**runs["parameters"]))
    yield "rows", f"`{recipe.data.training_paths}`"
    yield "steps", f"{manifest.get('steps')} of {training.global_batch_size} rows, at most {training.max_length} tokens"
    yield "learning rate", f"{training.learning_rate:g}, {options.get('lr_scheduler_type', 'linear')}"
    yield "seed", str(training.seed)
    yield "time", f"{manifest.get('train_seconds') or 0:.0f} s on {_hardware(manifest)}"
    yield "peak memory", in_units(manifest["peak_bytes"]) if manifest.get("peak_bytes") else ""
    yield "eyas", str(manifest.get("eyas", ""))


def _base(recipe: Recipe) -> str:
    """Return the base's name, with its commit if it is on the hub."""
    commit = "" if recipe.model.is_local or recipe.model.revision is None else f" at `{recipe.model.revision}`"
    return f"`{recipe.model.name}`{commit}"


def _method(recipe: Recipe) -> str:
    return "full fine-tuning" if recipe.adapter is None else recipe.adapter.label


def _hardware(manifest: Mapping[str, Any]) -> str:
    hardware = manifest.get("hardware", {})
    cores = counted(hardware.get("cpu_cores", 0), "core")
    return f"{hardware.get('device_count')} × {hardware.get('device')}" if hardware.get("device_count") else cores


def data_table(report: DataReport) -> list[list[str]]:
    """Return a header, and one line for each split."""
    lines = [[name, *_split(split)] for name, split in report.splits().items()]
    return [["", "rows", "examples", "trained tokens", "median length", "99 % up to", "longest"], *lines]


def _split(split: SplitReport) -> Sequence[str]:
    length = split.lengths
    return (
        f"{split.rows:,}", f"{split.examples:,}", f"{split.supervised_tokens:,} of {split.tokens:,}",
        str(length.median), str(length.p99), str(length.longest),
    )  # fmt: skip


def defects_of_data(report: DataReport) -> list[str]:
    """Return one line for each defect of rows, and for held-out rows that are trained on too."""
    lines = [
        f"{name}: {counted(found.count, 'row')} {MEANING[defect]}"
        for name, split in report.splits().items()
        for defect, found in split.defects.items()
        if found.count
    ]
    lines += [
        f"{name}: {split.bad_rows:,} bad rows left out" for name, split in report.splits().items() if split.bad_rows
    ]
    return lines + [
        f"{name}: {counted(overlap.trained_on, 'row')} of {overlap.rows:,} trained on too"
        for name, overlap in report.overlaps().items()
        if overlap.trained_on
    ]
