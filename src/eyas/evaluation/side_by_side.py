"""Evaluation of base, tuned and merged model, one in memory at a time."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from eyas.data.prompts import as_chat, prompt_ids
from eyas.data.splits import Splits
from eyas.distributed.console import say
from eyas.evaluation.evaluate import evaluate
from eyas.evaluation.records import Record
from eyas.inference.generate import generate
from eyas.inference.load import load, without_adapter
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Answers = dict[str, dict[str, str]]
"""Answers to each prompt, by model."""


def score_all(
    run: RunDirectory, recipe: Recipe, auto_model: str, tokenizer: "PreTrainedTokenizerBase", splits: Splits
) -> tuple[dict[str, list[Record]], Answers]:
    """Return each model's records, and its answers to the recipe's own prompts."""
    records: dict[str, list[Record]] = {}
    answers: Answers = {prompt: {} for prompt in recipe.evaluation.prompts}
    prompts = [
        prompt_ids(tokenizer, as_chat(tokenizer, prompt), recipe.data.chat_template_kwargs) for prompt in answers
    ]
    for name, model in _models(run, recipe, auto_model, splits.labels):
        say(f"scoring {name} …")
        records[name] = evaluate(model, tokenizer, recipe, splits)
        texts = generate(model, tokenizer, prompts, recipe.evaluation.max_new_tokens)
        for prompt, text in zip(answers, texts, strict=True):
            answers[prompt][name] = text
        del model  # before the next one is loaded
    return records, answers


def _models(
    run: RunDirectory, recipe: Recipe, auto_model: str, labels: Sequence[str] | None
) -> "Iterator[tuple[str, PreTrainedModel]]":
    """Yield the base, the tuned model and, if there is one, the merged model."""
    if recipe.adapter is None or recipe.adapter.changes_the_base:
        yield "base", load(run, recipe, auto_model, labels, "base")
    tuned = load(run, recipe, auto_model, labels, "tuned")
    if recipe.adapter is not None and not recipe.adapter.changes_the_base:
        with without_adapter(tuned):  # the same base, not loaded twice
            yield "base", tuned
    yield "tuned", tuned
    del tuned
    if run.merged.exists():
        yield "merged", load(run, recipe, auto_model, labels, "merged")
