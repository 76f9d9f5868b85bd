"""The first batches of a run, from its own trainer, without its model."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from eyas.data.splits import Splits
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STAND_INS = {"CAUSAL_LM": "LlamaConfig", "SEQ_CLS": "BertConfig", "TOKEN_CLS": "BertConfig"}
"""Config of transformers for each of peft's task types. The collated batch does not depend on its sizes."""
COMPUTES = ("tf32", "torch_compile", "use_liger_kernel", "activation_offloading")
"""Arguments that may need an absent GPU, and change no batch."""


def first_batches(
    recipe: Recipe, task: Task, tokenizer: "PreTrainedTokenizerBase", splits: Splits, count: int
) -> list[dict[str, Any]]:
    """Return the tensors of the first micro-batches by name, at most one epoch.

    They come from the loader of the run's own trainer, so sampler, seed, packing and collator are the run's. Only the
    model is another, tiny and random. Nothing is written to the run's folder. Several ranks take these batches in turn.
    """
    bare = _without_compute_settings(recipe)
    with TemporaryDirectory() as folder, _without_log():
        arguments = task.arguments_for(bare, RunDirectory(Path(folder)))
        trainer = task.build_trainer(bare, arguments, _stand_in(task, tokenizer, splits.labels), tokenizer, splits)
        return list(islice(trainer.get_train_dataloader(), count))


def _without_compute_settings(recipe: Recipe) -> Recipe:
    training = recipe.training
    off = dict.fromkeys(("bf16", "fp16", *(name for name in COMPUTES if name in training.library_arguments)), False)
    return recipe.model_copy(
        update={"adapter": None, "quantization": None, "training": training.model_copy(update=off)}
    )


@contextmanager
def _without_log() -> Iterator[None]:
    """Log nothing about the stand-in, such as its packing mode: the recipe's model may differ."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def _stand_in(task: Task, tokenizer: "PreTrainedTokenizerBase", labels: list[str] | None) -> "PreTrainedModel":
    """Return a random model of one layer for the task's trainer, in place of the recipe's."""
    import transformers

    config = getattr(transformers, STAND_INS[task.peft_task_type])(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        **({} if labels is None else {"num_labels": len(labels)}),
    )
    return getattr(transformers, task.auto_model).from_config(config)
