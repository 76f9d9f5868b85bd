"""Merge the adapter into the base that it was trained on, and prove that the result is what was trained."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eyas.errors import ExportError
from eyas.export.model_card import model_card
from eyas.export.parity import LONGEST_PROBE, Parity, compare, predictions, record
from eyas.export.reopening import Reader
from eyas.files import write_json
from eyas.model.precision import torch_dtype
from eyas.model.tuned import load_saved, load_tuned
from eyas.model.tuned import merged as merged_into_base
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.sealing import seal

TOLERANCE = {
    "float32": (1e-6, 1.0),
    "bfloat16": (1e-3, 0.995),
    "float16": (1e-4, 0.999),
}
"""Most KL per token and least top-1 agreement; `float32` is also the bound on the merge itself, before any cast."""


def merge(
    run: RunDirectory,
    recipe: Recipe,
    auto_model: str,
    labels: Sequence[str] | None,
    tokenizer: Any,
    probes: Sequence[dict[str, Any]],
    reader: Reader,
    onto_published: bool = False,
    force: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Parity]:
    """Write `merged/` and return its distance from what was trained, before and after the cast to `export.dtype`.

    The reference is the adapter on the base it was trained on (dequantized, if that was quantized), in float32. Past
    the tolerance nothing is left behind and ExportError is raised, unless forced. `onto_published` merges into the
    full-precision base instead, as most tools do, to see what that costs. `reader` opens what was written.
    """
    import torch

    if run.merged.exists():
        raise ExportError(f"{run.merged}: is there already; remove it to merge again")
    run.parity.unlink(missing_ok=True)  # the figures of a model that is no longer there
    say(f"base: {'as published' if onto_published else _base_in_words(recipe)}, float32")
    trained = _trained(run, recipe, auto_model, labels)
    probes = [{name: value[:, :LONGEST_PROBE] for name, value in probe.items() if name != "labels"} for probe in probes]
    reference = predictions(trained, probes)
    if onto_published:
        trained = load_tuned(recipe, auto_model, labels, torch.float32, run.adapter, quantized=False)
    merged = merged_into_base(trained) if recipe.adapter else trained
    found = {"before the cast": compare(reference, predictions(merged, probes))}
    say(f"merged in float32: {found['before the cast']}")
    with _staging(run) as (staging, recorded):
        merged.to(torch_dtype(recipe.export.dtype)).save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        del merged, trained
        record(recorded, probes, reference)
        after = f"after the cast to {recipe.export.dtype}"
        found[after] = reader.compare(staging, auto_model, recorded)
        say(f"cast to {recipe.export.dtype} and reopened: {found[after]}")
        _refuse_past_tolerance(found, recipe, force)
        (staging / "README.md").write_text(model_card(run, recipe, found, forced=force), encoding="utf-8")
        figures = {name: parity.as_dict() for name, parity in found.items()}
        write_json(run.parity, figures)
        seal(staging, run.merged, {"kind": run.merged.name, "parity": figures})
    return found


def _trained(run: RunDirectory, recipe: Recipe, auto_model: str, labels: Sequence[str] | None) -> Any:
    import torch

    if recipe.adapter is None:
        return load_saved(run.model, auto_model, torch.float32)
    return load_tuned(recipe, auto_model, labels, torch.float32, run.adapter)


def _refuse_past_tolerance(found: dict[str, Parity], recipe: Recipe, force: bool) -> None:
    bounds = {"before the cast": TOLERANCE["float32"]}
    for name, parity in found.items():
        most_kl, least_agreement = bounds.get(name, TOLERANCE[recipe.export.dtype])
        if force or (parity.kl_per_token <= most_kl and parity.top1_agreement >= least_agreement):
            continue
        raise ExportError(
            f"{name}, the merged model is not what was trained: {parity} "
            f"(allowed: KL {most_kl:.0e}, top-1 {least_agreement:.1%}). Nothing was written."
        )


@contextmanager
def _staging(run: RunDirectory) -> Iterator[tuple[Path, Path]]:
    """Give a folder to build in and one for recorded probes; what is left of either goes, also of a merge cut short."""
    with run.locked():
        shutil.rmtree(run.merging, ignore_errors=True)
        run.merging.mkdir()
        try:
            yield run.merging / "merged", run.merging / "recorded"
        finally:
            shutil.rmtree(run.merging, ignore_errors=True)


def _base_in_words(recipe: Recipe) -> str:
    if recipe.adapter is None:
        return "none; the whole model was trained"
    if recipe.quantization is None:
        return recipe.model.name
    return f"{recipe.model.name}, {'4' if recipe.quantization.load_in_4bit else '8'}-bit weights dequantized"
