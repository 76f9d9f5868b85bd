"""Model card (README.md) of an artifact: base, method, data and proof."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eyas.export.proof import PARITY_HEADER, Proof, cost_as_text, parity_rows
from eyas.recipe import Recipe

if TYPE_CHECKING:
    from eyas.export.reference import FinishedRun


def model_card(run: "FinishedRun", proof: Proof, forced: bool) -> str:
    """Return the Markdown of an artifact's model card; `forced` adds a warning."""
    manifest, recipe = run.directory.read_manifest(), run.recipe
    rows = [f"| {' | '.join(row)} |" for row in [PARITY_HEADER, *parity_rows(proof.as_dict())]]
    return "\n".join(
        [
            "---",
            f"base_model: {recipe.model.name}",
            "library_name: transformers",
            "---",
            f"# {run.directory.path.name}",
            "",
            f"{recipe.task} of `{recipe.model.name}` ({_method(recipe)}) on `{recipe.data.training_paths}`, exported "
            f"by eyas {manifest.get('eyas')}.",
            f"Base: {base_as_text(recipe, manifest)}.",
            "",
            "## Is it what was trained?",
            "Held-out rows through the adapter on the base it was trained on and through this model, both in float32.",
            "\n**Written with --force: the figures were not compared with their bounds.**\n" if forced else "",
            rows[0],
            "|---|---|---|---|---|",
            *rows[1:],
            "",
            f"- Rounding: {cost_as_text(proof)}",
            *([] if proof.weights is None else [f"- In float32, {proof.weights}."]),
            "",
        ]
    )


def base_as_text(recipe: Recipe, manifest: Mapping[str, Any]) -> str:
    """Return a run's base: hub name and commit, or folder and digest."""
    if recipe.model.revision is not None and not recipe.model.is_local:
        return f"`{recipe.model.name}` at commit `{recipe.model.revision}`"
    return f"`{recipe.model.name}`, `{manifest.get('digests', {}).get('base')}`"


def _method(recipe: Recipe) -> str:
    """Return the training method, with adapter rank and base bits."""
    if recipe.adapter is None:
        return "full fine-tuning"
    bits = ""
    if recipe.quantization is not None:
        bits = f", {'4' if recipe.quantization.load_in_4bit else '8'}-bit base"
    return f"{recipe.adapter.label}{bits}"
