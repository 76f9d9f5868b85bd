"""Evaluation of base, tuned and merged model, one in memory at a time."""

from functools import partial
from typing import TYPE_CHECKING

from eyas.data.prompts import user_prompt
from eyas.data.splits import Splits
from eyas.distributed.console import say
from eyas.evaluation.evaluate import evaluate
from eyas.evaluation.records import Record
from eyas.inference.generate import generate
from eyas.inference.load import load
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Answers = dict[str, dict[str, str]]
"""Answers to each prompt, by model."""


def score_all(
    run: RunDirectory, recipe: Recipe, auto_model: str, tokenizer: "PreTrainedTokenizerBase", splits: Splits
) -> tuple[dict[str, list[Record]], Answers]:
    """Return each model's records, and its answers to the recipe's own prompts.

    The base is scored before the adapter is attached to it. A model whose adapter is switched off may differ from its
    base: trained biases stay, and PiSSA has moved a part of the weights into the adapter.
    """
    records: dict[str, list[Record]] = {}
    answers: Answers = {prompt: {} for prompt in recipe.evaluation.prompts}
    form, options = splits.report.train.prompts, recipe.data.chat_template_kwargs
    prompts = [user_prompt(tokenizer, prompt, options, form=form) for prompt in answers]

    def score(name: str, model: "PreTrainedModel") -> None:
        say(f"scoring {name} …")
        records[name] = evaluate(model, tokenizer, recipe, splits)
        written = generate(model, tokenizer, prompts, recipe.evaluation.max_new_tokens)
        for prompt, answer in zip(answers, written, strict=True):
            answers[prompt][name] = answer.text

    score("tuned", load(run, recipe, auto_model, splits.labels, "tuned", look_at_base=partial(score, "base")))
    if run.merged.exists():
        score("merged", load(run, recipe, auto_model, splits.labels, "merged"))
    return records, answers
