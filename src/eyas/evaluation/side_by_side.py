"""The same questions to each model of a run, one model in memory at a time."""

from collections.abc import Callable
from typing import Any

from eyas.data.prompts import as_chat, prompt_ids
from eyas.data.splits import Splits
from eyas.evaluation.evaluate import Record, evaluate
from eyas.inference.generate import generate
from eyas.inference.load import load, without_adapter
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory

Answers = dict[str, dict[str, str]]


def ask_all(
    run: RunDirectory, recipe: Recipe, auto_model: str, tokenizer: Any, splits: Splits, say: Callable[[str], None]
) -> tuple[dict[str, list[Record]], Answers]:
    """Return each model's records of the held-out rows, and its answers to the recipe's own prompts."""
    records: dict[str, list[Record]] = {}
    answers: Answers = {prompt: {} for prompt in recipe.evaluation.prompts}

    def ask(name: str, model: Any) -> None:
        say(f"scoring {name} …")
        records[name] = evaluate(model, tokenizer, recipe, splits)
        prompts = [
            prompt_ids(tokenizer, as_chat(tokenizer, prompt), recipe.data.chat_template_kwargs) for prompt in answers
        ]
        for prompt, text in zip(
            answers, generate(model, tokenizer, prompts, recipe.evaluation.max_new_tokens), strict=True
        ):
            answers[prompt][name] = text

    if recipe.adapter is None:
        ask("base", load(run, recipe, auto_model, splits.labels, "base"))
        ask("tuned", load(run, recipe, auto_model, splits.labels, "tuned"))
    else:
        if recipe.adapter.changes_the_base:
            ask("base", load(run, recipe, auto_model, splits.labels, "base"))
        tuned = load(run, recipe, auto_model, splits.labels, "tuned")
        if not recipe.adapter.changes_the_base:
            with without_adapter(tuned):  # the base that the adapter sits on, without loading it twice
                ask("base", tuned)
        ask("tuned", tuned)
        del tuned
    if run.merged.exists():
        ask("merged", load(run, recipe, auto_model, splits.labels, "merged"))
    return records, answers
