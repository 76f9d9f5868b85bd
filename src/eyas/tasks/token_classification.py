"""Classification of words, such as named entities, with the Hugging Face Trainer."""

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from eyas.data.examples import TAGGED
from eyas.data.masks import IGNORED
from eyas.data.splits import Splits
from eyas.metrics import accuracy, span_f1
from eyas.recipe import Recipe
from eyas.tasks.classifier import arguments_for, classifier_trainer
from eyas.tasks.task import Task

if TYPE_CHECKING:
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments


def build_trainer(
    recipe: Recipe,
    arguments: "TrainingArguments",
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    splits: Splits,
) -> "Trainer":
    """Return the Trainer over texts with one tag a word, on the word's first token."""
    from transformers import DataCollatorForTokenClassification

    scores = partial(_scores, names=splits.labels or [])
    return classifier_trainer(
        recipe, arguments, model, tokenizer, splits, TASK.peft_task_type, DataCollatorForTokenClassification, scores
    )


def _scores(prediction: "EvalPrediction", names: list[str]) -> dict[str, float]:
    """Return span F1 and accuracy of predictions [rows, length, classes] over the tagged tokens."""
    chosen, true = prediction.predictions.argmax(-1), prediction.label_ids
    rows = [(row[kept := labels != IGNORED], labels[kept]) for row, labels in zip(chosen, true, strict=True)]
    tags = [([names[index] for index in a], [names[index] for index in b]) for a, b in rows]
    answers, expected = [a for a, _ in tags], [b for _, b in tags]
    return {"span_f1": span_f1(answers, expected), "accuracy": accuracy([*chain(*answers)], [*chain(*expected)])}


TASK = Task(
    auto_model="AutoModelForTokenClassification",
    peft_task_type="TOKEN_CLS",
    rows=TAGGED,
    arguments_for=arguments_for,
    build_trainer=build_trainer,
    compaction=None,
)
