"""Classification of whole texts, with the Hugging Face Trainer."""

from typing import TYPE_CHECKING

from eyas.data.examples import LABELED
from eyas.data.splits import Splits
from eyas.metrics import accuracy, macro_f1
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
    """Return the Trainer over texts with one class each."""
    from transformers import DataCollatorWithPadding

    return classifier_trainer(
        recipe, arguments, model, tokenizer, splits, TASK.peft_task_type, DataCollatorWithPadding, _scores
    )


def _scores(prediction: "EvalPrediction") -> dict[str, float]:
    chosen, true = prediction.predictions.argmax(-1).tolist(), prediction.label_ids.tolist()
    return {"accuracy": accuracy(chosen, true), "f1": macro_f1(chosen, true)}


TASK = Task(
    auto_model="AutoModelForSequenceClassification",
    peft_task_type="SEQ_CLS",
    rows=LABELED,
    arguments_for=arguments_for,
    build_trainer=build_trainer,
    compaction="encoder",
)
