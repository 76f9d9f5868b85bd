"""Merge of an adapter into the base it was trained on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from eyas.data.report import end_tokens_of
from eyas.distributed.console import say
from eyas.errors import ExportError
from eyas.export.artifact import Reader, release
from eyas.export.merge_layers import merge_and_check
from eyas.export.merged_model import MERGED, MergedModel, rounding_of
from eyas.export.parity import Probe, as_probe, parity_between, predictions
from eyas.export.proof import Evidence, Proof
from eyas.export.reference import FinishedRun, Reference, TrainedModel, record_reference
from eyas.export.refusals import float32_margin, refuse_another_function
from eyas.export.rounding import Rounder, computing_with, with_random_signs
from eyas.model.adapter import refuse_unmergeable
from eyas.model.saved import saved_tensors
from eyas.model.stop_tokens import prepare_to_save
from eyas.model.trained import load_tuned
from eyas.recipe import Recipe
from eyas.verify import refuse_outdated

if TYPE_CHECKING:
    from peft import PeftModel


def merge(
    run: FinishedRun, rows: Sequence[Probe], reader: Reader, onto_published: bool = False, force: bool = False
) -> Proof:
    """Write `merged/` and return its proof, in float32 and in the recipe's dtype.

    The reference is the adapter on the base it was trained on, dequantized if that was quantized, in float32, on the
    first tokens of `rows`. `reader` reopens the saved model. `onto_published` merges into the full-precision base
    instead, as most tools do, to show the cost of that. Raises ArtifactRefused, and leaves nothing behind, for a merged
    model that is not the trained model, unless `force` is set.
    """
    directory, recipe = run.directory, run.recipe
    if recipe.adapter is not None:
        refuse_unmergeable(recipe.adapter.method)
    if directory.merged.exists():
        refuse_outdated(directory, directory.merged, "remove it to merge again")
        raise ExportError(f"{directory.merged}: exists already; remove it to merge again")
    directory.parity_of_earlier_versions.unlink(missing_ok=True)  # figures of a model that is gone
    rounder = Rounder(recipe.merged_dtype, recipe.export.rounding, recipe.training.seed)
    say(_description(recipe, onto_published))
    reference, trained = record_reference(run, [as_probe(row) for row in rows], rounder)
    if onto_published:
        trained = replace(trained, model=_on_published_base(run))
    merged = merged_model(run, reference, trained, rounder, force)
    return release(MERGED, merged, run, reference, reader, force)


def merged_model(
    run: FinishedRun, reference: Reference, trained: TrainedModel, rounder: Rounder, force: bool = False
) -> MergedModel:
    """Merge the adapter in float32 and check the result.

    Each weight is checked, and the predictions are compared with the reference. Raises ArtifactRefused for a merge that
    computes another function, unless `force` is set.
    """
    adapter, model, weights, updates = run.recipe.adapter, trained.model, None, trained.updates
    if adapter is not None:
        tensors = saved_tensors(run.directory.adapter)
        model, weights = merge_and_check(model, tensors, adapter, trained.base_digests, rounder)
        updates = weights.updates
    margin = float32_margin(reference.noise)
    in_float32 = parity_between(reference.tuned, predictions(model, reference.probes), margin)
    say(f"merged in float32: {in_float32}; float32's own rounding: KL {reference.noise.kl_per_token:.1e}")
    if weights is not None:
        say(str(weights))
    if not force:
        refuse_another_function(MERGED.name, "in float32", in_float32, reference.noise, weights)
    evidence = Evidence(rounder.dtype, in_float32, in_float32, updates, weights)
    if rounder.dtype != "float32":
        with computing_with(model, with_random_signs(rounding_of(rounder, evidence), rounder.seed)):
            at_random = parity_between(reference.tuned, predictions(model, reference.probes))
        evidence = replace(evidence, at_random=at_random)
    prepare_to_save(model, run.tokenizer, end_tokens_of(run.directory))
    return MergedModel(model, run.tokenizer, rounder, evidence)


def _on_published_base(run: FinishedRun) -> "PeftModel":
    """Return the adapter on the full-precision base, in float32. A 4-bit adapter has never seen those weights."""
    import torch

    adapter = run.directory.adapter
    model: PeftModel = load_tuned(run.recipe, run.auto_model, run.labels, torch.float32, adapter, quantized=False)
    return model


def _description(recipe: Recipe, onto_published: bool) -> str:
    """Return one line on the base that is merged into."""
    if recipe.adapter is None:
        return "no adapter to merge: the model was trained in full; float32"
    if onto_published:
        return f"base: {recipe.model.name} as published, float32"
    if recipe.quantization is None:
        return f"base: {recipe.model.name}, float32"
    bits = 4 if recipe.quantization.load_in_4bit else 8
    return f"base: {recipe.model.name}, {bits}-bit weights dequantized, float32"
