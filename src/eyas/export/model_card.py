"""Model card (README.md) of an artifact: base, license, method, data, use, scores and proof."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from eyas.export.proof import PARITY_HEADER, Proof, cost_as_text, parity_rows
from eyas.model.released_step import ReleasedStep
from eyas.recipe import Recipe

if TYPE_CHECKING:
    from eyas.export.reference import FinishedRun

PIPELINES = {
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
}
"""Pipeline of transformers, which is the hub's tag too, for each auto class."""
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---", re.DOTALL)


def model_card(run: "FinishedRun", proof: Proof, forced: bool) -> str:
    """Return the Markdown of an artifact's model card; `forced` adds a warning."""
    manifest = run.directory.read_manifest()
    parts = [
        f"---\n{yaml.safe_dump(_metadata(run), sort_keys=False)}---",
        f"# {run.directory.path.name}",
        *_origin(run, manifest),
        *_use(run),
        *_scores(run, manifest),
        *_proof(run, proof, forced),
    ]
    return "\n\n".join(parts) + "\n"


def base_as_text(recipe: Recipe, manifest: Mapping[str, Any]) -> str:
    """Return a run's base: hub name and commit, or folder and digest."""
    if recipe.model.revision is not None and not recipe.model.is_local:
        return f"`{recipe.model.name}` at commit `{recipe.model.revision}`"
    return f"`{recipe.model.name}`, `{manifest.get('digests', {}).get('base')}`"


def _metadata(run: "FinishedRun") -> dict[str, Any]:
    """Return the metadata that the hub reads; what is not known is left out."""
    recipe = run.recipe
    license_ = license_of(recipe)
    datasets = sorted({source.path for source in recipe.data.training_sources if not source.is_local})
    return {
        **({"license": license_} if license_ else {}),
        "base_model": recipe.model.name,
        **({"datasets": datasets} if datasets else {}),
        "library_name": "transformers",
        "pipeline_tag": PIPELINES[run.auto_model],
        "tags": ["eyas", recipe.task, "full-fine-tuning" if recipe.adapter is None else recipe.adapter.method],
    }


def license_of(recipe: Recipe) -> str | None:
    """Return the license that the model card of a base in a folder states, or None."""
    card = Path(recipe.model.name).expanduser() / "README.md"
    if not recipe.model.is_local or not card.is_file():
        return None
    found = FRONT_MATTER.match(card.read_text(encoding="utf-8", errors="replace"))
    try:
        metadata = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return None
    stated = metadata.get("license") if isinstance(metadata, dict) else None
    return stated if isinstance(stated, str) else None


def _origin(run: "FinishedRun", manifest: Mapping[str, Any]) -> Iterator[str]:
    recipe, released = run.recipe, ReleasedStep.of_manifest(manifest)
    license_ = license_of(recipe)
    yield (
        f"{recipe.task} of `{recipe.model.name}` ({_method(recipe, manifest)}) on `{recipe.data.training_paths}`, "
        f"exported by eyas {manifest.get('eyas')}."
    )
    lines = [f"Base: {base_as_text(recipe, manifest)}.", f"License of the base: {license_ or 'see its model card'}."]
    if released is not None:
        lines.append(f"Weights: {released}.")
    if run.labels is not None:
        lines.append(f"Labels: {', '.join(f'`{label}`' for label in run.labels)}.")
    yield "\n".join(f"- {line}" for line in lines)


def _use(run: "FinishedRun") -> Iterator[str]:
    chat = PIPELINES[run.auto_model] == "text-generation" and getattr(run.tokenizer, "chat_template", None) is not None
    text = '[{"role": "user", "content": "…"}]' if chat else '"…"'
    yield (
        "## Use\n\n```python\nfrom transformers import pipeline\n\n"
        f'pipe = pipeline("{PIPELINES[run.auto_model]}", model="THIS_FOLDER")\nprint(pipe({text}))\n```'
    )


def _scores(run: "FinishedRun", manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield the evaluation of the released step during training, if there was one."""
    released = ReleasedStep.of_manifest(manifest)
    lines = [line for line in run.directory.metric_lines() if released is not None and line["step"] == released.step]
    scores = {name: value for line in lines for name, value in line.items() if _is_score(name)}
    if scores:
        body = "\n".join(f"- {name.removeprefix('eval_')}: {value:.4g}" for name, value in scores.items())
        yield f"## Scores on the held-out rows, in training\n\n{body}"


def _is_score(name: str) -> bool:
    """Return whether an entry of metrics.jsonl is a score; the trainer also logs its speed."""
    return name.startswith("eval_") and not name.endswith(("_runtime", "_per_second", "_num_tokens"))


def _proof(run: "FinishedRun", proof: Proof, forced: bool) -> Iterator[str]:
    trained = "the trained model" if run.recipe.adapter is None else "the adapter on the base it was trained on"
    yield f"## Is it what was trained?\n\nHeld-out rows through {trained} and through this model, both in float32."
    if forced:
        yield "**Written with --force: the figures were not compared with their bounds.**"
    header, *rows = [f"| {' | '.join(row)} |" for row in [PARITY_HEADER, *parity_rows(proof.as_dict())]]
    yield "\n".join([header, "|---|---|---|---|---|", *rows])
    weights = [] if proof.weights is None else [f"- In float32, {proof.weights}."]
    yield "\n".join([f"- Rounding: {cost_as_text(proof)}", *weights])


def _method(recipe: Recipe, manifest: Mapping[str, Any]) -> str:
    """Return the training method: the adapter and its size, and the quantization that the base really had."""
    if recipe.adapter is None:
        return "full fine-tuning"
    quantized = manifest.get("runs", {}).get("quantized", {"layers": 0})
    if not quantized["layers"]:
        return recipe.adapter.label
    experts = ", without its experts" if quantized["left"] else ""
    return f"{recipe.adapter.label}, base in {quantized['kind']}{experts}"
