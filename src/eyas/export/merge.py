"""Merge the adapter into the base that it was trained on, and prove that the result is what was trained."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyas.errors import ExportError
from eyas.export.fresh_process import Reader, record
from eyas.export.merging import merge_and_check
from eyas.export.model_card import model_card
from eyas.export.parity import LONGEST_PROBE, Parity, compare, predictions
from eyas.export.proof import (
    MergeRefused,
    Proof,
    cost_in_words,
    float32_margin,
    refuse_another_function,
    refuse_what_rounding_destroyed,
)
from eyas.export.rounding import Change, Rounder, computing_with, held_in, nudged, share_rounded, with_random_signs
from eyas.export.update import LayerUpdate, whole_updates
from eyas.export.weights import digests
from eyas.files import write_json
from eyas.model.saved import saved_tensors
from eyas.model.trained import load_base, load_saved, load_tuned
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.sealing import seal

FEW = 4
"""Probes for what needs no more: float32's own rounding, and the written weights against the file."""


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
) -> Proof:
    """Write `merged/` and return the proof of it, in float32 and as it was saved in the recipe's dtype.

    The reference is the adapter on the base it was trained on (dequantized, if that was quantized), in float32. A merge
    that is not what was trained leaves nothing behind and raises MergeRefused, unless forced. `onto_published` merges
    into the full-precision base instead, as most tools do, to see what that costs. `reader` opens what was written.
    """
    if run.merged.exists():
        raise ExportError(f"{run.merged}: is there already; remove it to merge again")
    run.parity.unlink(missing_ok=True)  # the figures of a model that is no longer there
    say(f"base: {'as published' if onto_published else _base_in_words(recipe)}, float32")
    probes = [{name: value[:, :LONGEST_PROBE] for name, value in probe.items() if name != "labels"} for probe in probes]
    rounder = Rounder(recipe.merged_dtype, recipe.export.rounding, recipe.training.seed)
    base, trained, changed = _trained(run, recipe, auto_model, labels, probes, rounder)
    tuned = predictions(trained, probes)
    with computing_with(trained, nudged):
        noise = compare(tuned[:FEW], predictions(trained, probes[:FEW]))
    if onto_published:
        trained = load_tuned(recipe, auto_model, labels, _float32(), run.adapter, quantized=False)
    merged, weights = trained, None
    if recipe.adapter is not None:
        merged, weights = merge_and_check(trained, saved_tensors(run.adapter), recipe.adapter, base.digests, rounder)
        changed = list(weights.updates)
    in_float32 = compare(tuned, predictions(merged, probes), float32_margin(noise))
    say(f"merged in float32: {in_float32}; float32's own rounding: KL {noise.kl_per_token:.1e}")
    if weights is not None:
        say(str(weights))
    if not force:
        refuse_another_function("in float32", in_float32, noise, weights)
    rounding = rounder.change(update.name for update in changed if update.rounding == "stochastic")
    at_random = in_float32
    if rounder.dtype != "float32":
        with computing_with(merged, with_random_signs(rounding, rounder.seed)):
            at_random = compare(tuned, predictions(merged, probes))
    with _staging(run) as (staging, recorded):
        written = _write(merged, rounding, staging, probes[:FEW])
        tokenizer.save_pretrained(staging)
        del merged, trained
        record(recorded, probes, tuned, written.predictions, written.digests, recipe.merged_dtype)
        reopened = reader.compare(staging, auto_model, recorded)
        moved = compare(tuned, base.predictions)
        proof = Proof(
            recipe.merged_dtype, in_float32, noise, moved, base.rounded, reopened.to_tuned, at_random, changed, weights
        )
        say(f"{proof.after} and opened again: {proof.rounded}")
        say(f"rounding: {cost_in_words(proof)}")
        _refuse_another_file(reopened.other_tensors, staging)
        if not force:
            refuse_another_function(f"{proof.after} and opened again", reopened.to_written, noise, None)
            refuse_what_rounding_destroyed(proof)
        (staging / "README.md").write_text(model_card(run, recipe, proof, forced=force), encoding="utf-8")
        write_json(run.parity, proof.as_dict())
        seal(staging, run.merged, {"kind": run.merged.name, "parity": proof.as_dict()})
    return proof


@dataclass(frozen=True)
class _Base:
    """The base that was trained on, before anything was attached to it."""

    predictions: list[Any]
    rounded: Parity
    """Its own distance once it is rounded: none where it was in that dtype already."""
    digests: dict[str, str]


@dataclass(frozen=True)
class _Written:
    """The weights that were written, as the file should have them."""

    predictions: list[Any]
    digests: dict[str, str]


def _float32() -> Any:
    import torch

    return torch.float32


def _trained(
    run: RunDirectory, recipe: Recipe, auto_model: str, labels: Sequence[str] | None, probes: Any, rounder: Rounder
) -> tuple[_Base, Any, list[LayerUpdate]]:
    """Return what the base is, the trained model, and the updates of one that was trained whole."""
    seen: list[_Base] = []

    def look(base: Any) -> None:
        before = predictions(base, probes)

        rounded = before
        if share_rounded(base, rounder) < 1:
            with computing_with(base, rounder.change([])):
                rounded = predictions(base, probes)
        seen.append(_Base(before, compare(before, rounded), digests(base)))

    if recipe.adapter is None:
        base = load_base(recipe, auto_model, labels, _float32())
        look(base)
        trained = load_saved(run.model, auto_model, _float32())
        return seen[0], trained, whole_updates(base, trained, rounder)
    trained = load_tuned(recipe, auto_model, labels, _float32(), run.adapter, look_at_base=look)
    return seen[0], trained, []


def _write(model: Any, rounding: Change, folder: Path, probes: Any) -> _Written:
    """Round a model's weights and save them; it computes in float32 with what was saved."""
    should_be = digests(model, rounding)
    held_in(model, rounding)
    model.save_pretrained(folder)
    held_in(model, lambda _name, tensor: tensor.float() if tensor.is_floating_point() else tensor)
    return _Written(predictions(model, probes), should_be)


def _refuse_another_file(tensors: Sequence[str], folder: Path) -> None:
    if tensors:
        raise MergeRefused(
            f"{folder.name}: {len(tensors)} tensors are not those that were written, such as {tensors[0]}. Nothing was "
            "left. Look at the disk and at the versions of transformers and safetensors, and merge again"
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
