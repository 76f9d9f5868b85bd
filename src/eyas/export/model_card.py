"""The README.md beside a merged model: what it is, and the proof."""

from collections.abc import Mapping
from typing import Any

from eyas.export.proof import PARITY_HEADER, Proof, cost_in_words, parity_rows
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory


def base_as_text(recipe: Recipe, manifest: Mapping[str, Any]) -> str:
    """Return which base a run was trained on: a hub name with its commit, or a folder with its digest."""
    if recipe.model.revision is not None and not recipe.model.is_local:
        return f"`{recipe.model.name}` at commit `{recipe.model.revision}`"
    return f"`{recipe.model.name}`, `{manifest.get('digests', {}).get('base')}`"


def model_card(run: RunDirectory, recipe: Recipe, proof: Proof, forced: bool) -> str:
    """Return the card's Markdown: base, method, data, and the distance from what was trained."""
    manifest = run.read_manifest()
    method = "full fine-tuning"
    if recipe.adapter is not None:
        bits = (
            ""
            if recipe.quantization is None
            else ", 4-bit base"
            if recipe.quantization.load_in_4bit
            else ", 8-bit base"
        )
        method = f"{recipe.adapter.label}{bits}"
    rows = [f"| {' | '.join(row)} |" for row in [PARITY_HEADER, *parity_rows(proof.as_dict())]]
    warning = "\n**Written with --force: the figures were not held against their bounds.**\n" if forced else ""
    return "\n".join(
        [
            "---",
            f"base_model: {recipe.model.name}",
            "library_name: transformers",
            "---",
            f"# {run.path.name}",
            "",
            f"{recipe.task} of `{recipe.model.name}` ({method}) on `{recipe.data.training_paths}`, merged by eyas "
            f"{manifest.get('eyas')}.",
            f"Base: {base_as_text(recipe, manifest)}.",
            "",
            "## Is it what was trained?",
            "Held-out rows through the adapter on the base it was trained on and through this model, both in float32.",
            warning,
            rows[0],
            "|---|---|---|---|---|",
            *rows[1:],
            "",
            f"- Rounding: {cost_in_words(proof)}",
            *([] if proof.weights is None else [f"- In float32, {proof.weights}."]),
            "",
        ]
    )
